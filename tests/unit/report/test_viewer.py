"""The facts of the viewer, and the sizes of its pictures."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import RasterClass, Window
from pesto_runtime.report import ReportImage, pictures
from pesto_runtime.report.facts import HoleFacts
from pesto_runtime.report.pictures import gallery, pictures_of
from pesto_runtime.report.tilemap import Tile
from pesto_runtime.report.viewer import viewer
from pesto_runtime.tiling import sample_grid
from tests.unit.report.sample_run import write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

RNG = np.random.default_rng(11)


def images_in(folder: Path) -> tuple[ReportImage, ...]:
    """A scene of 400 x 300 pixels, and a mask of half its resolution, with classes."""
    scene = write_raster(folder / "scene.tif", RNG.integers(0, 9000, (300, 400)).astype(np.uint16))
    mask = write_raster(folder / "mask.tif", RNG.integers(0, 2, (150, 200)).astype(np.uint8))
    classes = (
        RasterClass(value=0, name="land", color_hint="e8e2d0"),
        RasterClass(value=1, name="water", color_hint="1f6fb4"),
    )
    return (
        ReportImage("scene", "Scene", scene.as_uri()),
        ReportImage("mask", "Output", mask.as_uri(), classes=classes),
    )


def facts_of(page: str) -> dict[str, JsonValue]:
    """The JSON of a viewer."""
    found = re.search(r'id="viewer-data">(.*?)</script>', page)
    assert found
    document: dict[str, JsonValue] = json.loads(found[1])
    return document


@pytest.mark.parametrize("most", [2048, 100])
def test_a_cell_has_the_scene_pixels_of_a_picture_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Of an output of half the resolution twice as many; of a sampled picture as many as N."""
    monkeypatch.setattr(sample_grid, "MOST_SAMPLES", most)
    page = viewer(pictures_of(images_in(tmp_path)), (400, 300), place=None, tiles=[], holes=[])
    layers = facts_of(page)["layers"]
    assert isinstance(layers, list)
    cells = [layer["cell"] for layer in layers if isinstance(layer, dict)]
    assert cells == ([[1, 1], [2, 2]] if most == 2048 else [[4, 4], [4, 4]])


def test_classes_tiles_and_holes_are_in_the_facts(tmp_path: Path) -> None:
    """Colours with labels, tiles with their words, holes with their reasons; text cannot end it."""
    page = viewer(
        pictures_of(images_in(tmp_path)),
        (400, 300),
        place=None,
        tiles=[("t", [Tile(Window(0, 0, 400, 300), 1.5, "done")])],
        holes=[HoleFacts((1, 2, 3, 4), "s", "</script><b>")],
    )
    facts = facts_of(page)
    assert isinstance(facts["layers"], list)
    mask = facts["layers"][1]
    assert isinstance(mask, dict)
    assert (mask["labels"], mask["colours"]) == (["0 land", "1 water"], ["#e8e2d0", "#1f6fb4"])
    words = "column 0, row 0, 400 × 300 px: 1.50 s"
    assert facts["tiles"] == [[[0, 0, 400, 300, "t0", words]]]
    assert facts["holes"] == [[1, 2, 3, 4, "s: </script><b>"]]
    assert facts["metres"] is None


def test_nothing_to_see_is_no_viewer(tmp_path: Path) -> None:
    """Without a readable image, or a grid."""
    none = pictures_of((ReportImage("gone", "Scene", (tmp_path / "none.tif").as_uri()),))
    assert viewer(none, (4, 3), place=None, tiles=[], holes=[]) == ""
    assert viewer((), (4, 3), place=None, tiles=[], holes=[]) == ""


def test_large_pictures_are_halved_until_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest file first: the mask stays as it is. Control: with room, nothing is halved."""
    images = images_in(tmp_path)
    before = [each.preview for each in pictures_of(images)]
    monkeypatch.setattr(pictures, "MOST_BYTES", 40_000)
    after = [each.preview for each in pictures_of(images)]
    assert [each.picture for each in before if each] == [(400, 300), (200, 150)]
    assert [each.picture for each in after if each] == [(200, 150), (200, 150)]
    assert sum(len(each.data) for each in after if each) <= 40_000


def test_names_of_classes_are_in_the_legend(tmp_path: Path) -> None:
    """With their colours; an image that is not shown is counted."""
    page = gallery(pictures_of(images_in(tmp_path)), of=3)
    assert 'style="background:#1f6fb4"' in page
    assert "<b>water</b>" in page
    assert "1 more image not shown" in page
