"""Dots for features: in their place over the scene, and never in the way of a report."""

import json
import re
from pathlib import Path

import pytest

from pesto_runtime.report import ReportImage
from pesto_runtime.report.features_drawing import vector_figures
from pesto_runtime.report.pictures import Picture, pictures_of
from tests.support.rasters import noise, write_scene

GEOMETRIES = [
    {"type": "Point", "coordinates": [1030.0, 1960.0]},
    {"type": "Polygon", "coordinates": [[[1040, 1980], [1060, 1980], [1060, 1940], [1040, 1980]]]},
]


def picture(scene: Path) -> Picture:
    """The picture of a scene."""
    (found,) = pictures_of([ReportImage("scene", "Scene", scene.as_uri())])
    return found


@pytest.mark.parametrize(
    ("transform", "dots"),
    [
        ((10, 0, 1000, 0, -10, 2000), [(3, 4), (5, 4)]),
        ((0, 10, 1000, -10, 0, 2000), [(4, 3), (4, 5)]),
    ],
    ids=["north up", "transposed"],
)
def test_a_dot_is_where_the_centre_of_its_feature_is(
    tmp_path: Path, transform: tuple[float, ...], dots: list[tuple[float, float]]
) -> None:
    """In pixels of the scene, also where axes are swapped."""
    scene = write_scene(tmp_path / "s.tif", noise(20, 10), transform=transform)
    features = [{"type": "Feature", "geometry": each, "properties": {}} for each in GEOMETRIES]
    path = tmp_path / "v.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    page = vector_figures({"v": path}, picture(scene))
    found = re.findall(r"M([-0-9.]+) ([-0-9.]+)h0", page)
    assert [(float(x), float(y)) for x, y in found[: len(found) // 2]] == dots
    assert "2 features" in page
    assert 'viewBox="0 0 20 10"' in page


@pytest.mark.parametrize("text", ["", "[]", '{"features": [{}]}', '{"features": [5]}'])
def test_what_cannot_be_read_is_left_out(tmp_path: Path, text: str) -> None:
    """So are a missing file and a missing scene."""
    scene = picture(write_scene(tmp_path / "s.tif", noise(20, 10)))
    path = tmp_path / "v.geojson"
    path.write_text(text)
    assert vector_figures({"v": path}, scene) == ""
    assert vector_figures({"v": tmp_path / "none"}, scene) == ""
    assert vector_figures({"v": path}, picture(tmp_path / "none.tif")) == ""
    assert vector_figures({"v": path}, None) == ""
    assert vector_figures({}, scene) == ""
