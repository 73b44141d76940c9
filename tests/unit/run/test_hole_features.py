"""Holes as GeoJSON: where a tile lies, whatever the scene knows of its place."""

import pytest

from pesto_runtime.contract import Grid, Hole, Window
from pesto_runtime.run.result import hole_features

HOLE = Hole(window=Window(2, 3, 4, 5), stage="s", error={"detail": "why", "type": "t"})


def grid(crs: str | None, transform: tuple[float, ...] | None) -> list[Grid]:
    facts = {"width": 9, "height": 9, "crs": crs, "transform": transform}
    return [Grid.model_validate(facts)]


@pytest.mark.parametrize(
    ("transform", "ring"),
    [
        (None, [[2, 3], [6, 3], [6, 8], [2, 8], [2, 3]]),
        ((10, 0, 100, 0, -10, 900),
         [[120, 870], [160, 870], [160, 820], [120, 820], [120, 870]]),
        ((0, 1, 0, 1, 0, 0), [[3, 2], [3, 6], [8, 6], [8, 2], [3, 2]]),
    ],
    ids=["pixels", "north up", "transposed"],
)  # fmt: skip
def test_a_hole_is_a_closed_ring_in_the_scenes_coordinates(
    transform: tuple[float, ...] | None, ring: list[list[float]]
) -> None:
    """Also where axes are swapped; without a transform in pixels."""
    document = hole_features([HOLE], grid("EPSG:32616", transform))
    properties = {"stage": "s", "window": [2, 3, 4, 5], "error": "why", "type": "t"}
    properties["errors"] = []
    geometry = {"type": "Polygon", "coordinates": [ring]}
    assert document["features"] == [
        {"type": "Feature", "geometry": geometry, "properties": properties}
    ]


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["none"]'])
def test_a_crs_is_named_only_where_it_has_a_code(crs: str | None) -> None:
    """A wrong name would put the holes elsewhere."""
    assert "crs" not in hole_features([HOLE], grid(crs, None))
    named = hole_features([HOLE], grid("EPSG:32616", None))["crs"]
    assert "EPSG::32616" in str(named)


def test_holes_of_several_crs_name_their_own() -> None:
    """A collection has one `crs`, so there is none."""
    grids = [*grid("EPSG:32616", None), *grid("EPSG:4326", None)]
    document = hole_features([HOLE, HOLE], grids)
    assert "crs" not in document
    names = [each["properties"]["crs"] for each in document["features"]]  # type: ignore[index,call-overload,union-attr]  # JSON
    assert names == ["EPSG:32616", "EPSG:4326"]
