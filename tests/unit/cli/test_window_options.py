"""`--window` and `--aoi` cut the images of a run, and say so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import rasterio

from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Command

DEGREES = (0.25, 0.0, 10.0, 0.0, -0.25, 50.0)  # 10 to 25 E, 50 to 40 N
AUTHOR = """
import numpy as np
from pesto_runtime import process

@process(version="1.0.0", margin=1)
def same(scene: np.ndarray) -> np.ndarray:
    return scene
"""
POINT = {"type": "Point", "coordinates": [12.6, 44.9]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.py").write_text(AUTHOR)
    (tmp_path / "a.json").write_text(json.dumps(POINT))
    write_scene(tmp_path / "d.tif", noise(60, 40), crs="EPSG:4326", transform=DEGREES)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("--aoi", "12.6,44.85,12.7,44.95"),
        ("--aoi", "a.json"),
        ("--aoi", json.dumps(POINT)),
        ("--window", "10,20,1,1"),
    ],
)
def test_a_run_over_an_area_is_the_run_over_its_window(
    pesto: Command, folder: Path, words: tuple[str, str]
) -> None:
    """Pixels and place of the product are those of the window; a margin there is warned about."""
    given = ("t.py:same", "-i", "scene=d.tif", *words)
    assert "is cut to the window [10, 20, 1, 1]" in pesto("check", *given).err
    assert pesto("plan", *given).code == 0
    assert pesto("run", *given, "-o", "out").code == 0
    with rasterio.open(folder / "out" / "same.tif") as dataset:
        assert (dataset.read() == noise(60, 40)[:, 20:21, 10:11]).all()
        assert tuple(dataset.transform)[:6] == (0.25, 0, 12.5, 0, -0.25, 45.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--window", "1,2"), "is not [col_off, row_off, width, height]"),
        (("--window", "a"), "is not COL_OFF,ROW_OFF,WIDTH,HEIGHT"),
        (("--window", "50,0,20,10"), "is not inside"),
        (("--aoi", "none.json"), "a GeoJSON file that exists"),
        (("--aoi", "{"), "--aoi is not JSON"),
        (("--aoi", "11,45,12,46", "--window", "0,0,1,1"), "exclude each other"),
    ],
)
def test_wrong_windows_and_areas_exit_2(
    pesto: Command, folder: Path, words: tuple[str, ...], message: str
) -> None:
    said = pesto("run", "t.py:same", "-i", "scene=d.tif", *words, "-o", "out")
    assert (said.code, message in said.err, (folder / "out").exists()) == (2, True, False)


def test_an_image_that_is_cut_already_is_refused(pesto: Command) -> None:
    """A window of a window could be meant in two ways."""
    scene = "scene=d.tif#window=0,0,9,9"
    said = pesto("check", "t.py:same", "-i", scene, "--window", "0,0,5,5")
    assert (said.code, "has a window already" in said.err) == (2, True)
