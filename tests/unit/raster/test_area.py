"""Areas on Earth as windows of a raster: a window covers all of its area, and not a pixel more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import rasterio
from rasterio.warp import transform

from pesto_runtime.contract import ImageReference, Window
from pesto_runtime.errors import InvalidInput
from pesto_runtime.raster.area import window_of_area
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

DEGREES = (0.25, 0.0, 10.0, 0.0, -0.25, 50.0)  # 10 to 25 E, 50 to 40 N


@pytest.fixture
def degrees(tmp_path: Path) -> ImageReference:
    path = write_scene(tmp_path / "d.tif", noise(60, 40), crs="EPSG:4326", transform=DEGREES)
    return ImageReference(href=path.as_uri())


@pytest.mark.parametrize(
    ("area", "window"),
    [
        ([11.0, 45.0, 12.0, 47.5], (4, 10, 4, 10)),  # sides on edges of pixels
        ([11.1, 45.1, 11.9, 47.4], (4, 10, 4, 10)),  # and within them
        ([0, 0, 90, 89], (0, 0, 60, 40)),  # all of it
        ([24.9, 39, 30, 40.1], (59, 39, 1, 1)),  # one pixel at the corner
        ({"type": "Point", "coordinates": [12.6, 44.9]}, (10, 20, 1, 1)),
        (
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [
                [[11, 45], [12, 45], [12, 47.5], [11, 45]]]}},
            (4, 10, 4, 10),
        ),
        (
            {"type": "FeatureCollection", "features": [
                {"type": "Feature", "geometry": {"type": "Point", "coordinates": [11.1, 45.1]}},
                {"type": "Feature", "geometry": {"type": "MultiPoint",
                                                 "coordinates": [[11.9, 47.4, 300]]}}]},
            (4, 10, 4, 10),
        ),
    ],
)  # fmt: skip
def test_a_window_covers_its_area(
    degrees: ImageReference, area: JsonValue, window: tuple[int, int, int, int]
) -> None:
    assert window_of_area(degrees, area) == Window(*window)


def test_an_area_is_projected_with_its_sides(tmp_path: Path) -> None:
    """On a parallel far from the central meridian, the middle of a side lies beyond its ends."""
    path = write_scene(
        tmp_path / "u.tif", noise(400, 400), crs="EPSG:32632",
        transform=(1000.0, 0.0, 300_000.0, 0.0, -1000.0, 6_700_000.0),
    )  # fmt: skip
    west, south, east, north = 6.5, 58.0, 11.5, 59.0
    found = window_of_area(ImageReference(href=path.as_uri()), [west, south, east, north])
    lowest = math.inf
    with rasterio.open(path) as dataset:
        for step in range(1001):
            lon = west + (east - west) * step / 1000
            xs, ys = transform("OGC:CRS84", dataset.crs, [lon, lon], [south, north])
            lowest = min(lowest, ys[0])
            for x, y in zip(xs, ys, strict=True):
                column, row = ~dataset.transform * (x, y)
                assert found.col_off <= column <= found.col_stop
                assert found.row_off <= row <= found.row_stop + 1e-2
    assert found.row_stop == math.ceil((6_700_000 - lowest) / 1000)
    (corner,), (middle,) = (
        transform("OGC:CRS84", "EPSG:32632", [lon], [south])[1] for lon in (west, 9.0)
    )
    assert corner - middle > 2000  # negative control: corners alone would miss two rows


def test_geojson_of_another_crs_is_taken_at_its_word(tmp_path: Path) -> None:
    """As vector products of this package are written."""
    path = write_scene(tmp_path / "u.tif", noise(50, 50))
    crs: JsonValue = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32616"}}
    area: JsonValue = {"type": "Point", "coordinates": [452475 + 95, 3408645 - 35], "crs": crs}
    assert window_of_area(ImageReference(href=path.as_uri()), area) == Window(3, 1, 1, 1)


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ([12, 45, 11, 46], "west < east and south < north"),
        ([1, 2, 3], "is neither"),
        ({"type": "Polygon"}, "is neither"),
        ([[1, 2], [3, 4]], "is neither"),
        ("here", "is neither"),
        ([-20, 45, -19, 46], "does not meet"),
        ({"type": "Point", "coordinates": [11, 45], "crs": {"properties": {"name": "x"}}},
         "unknown crs 'x'"),
    ],
)  # fmt: skip
def test_what_is_no_area_of_the_scene_is_refused(
    degrees: ImageReference, area: JsonValue, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        window_of_area(degrees, area)


def test_a_scene_without_a_place_has_a_way_out(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "n.tif", noise(9, 9), crs=None, transform=None)
    with pytest.raises(InvalidInput, match="give pixels, by --window"):
        window_of_area(ImageReference(href=path.as_uri()), [1, 2, 3, 4])
