"""Warps without a meaning are refused before work: images apart, absurd sizes, wrong nodata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pesto_runtime.contract import Grid, Window
from pesto_runtime.errors import InvalidInput, InvalidPipeline
from pesto_runtime.raster.resampling import Warp
from tests.support.commands import pesto, saved
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

UTM31, UTM32, DEGREES = "EPSG:32631", "EPSG:32632", "EPSG:4326"
SIZE = (60, 40)
LIKE = [30.0, 0.0, 600_000.0, 0.0, -30.0, 5_400_000.0]


def document(**inputs: JsonValue) -> dict[str, Any]:
    stage = {"image": "$inputs.scene", "like": "$inputs.other", "nodata": 0, **inputs}
    return {
        "name": "warped",
        "inputs": {"scene": "image", "other": "image"},
        "stages": [{"id": "w", "process": "warp", "inputs": stage}],
        "outputs": {"image": "$w.image"},
    }


def images(
    folder: Path, *, crs: str = UTM31, origin: tuple[float, float] = (600_000, 5_400_000),
    pixel: float = 30.0, name: str = "scene",
) -> dict[str, str]:  # fmt: skip
    """Write the image of `like`, and one whose first corner is somewhere."""
    transform = [pixel, 0.0, origin[0], 0.0, -pixel, origin[1]]
    scene = write_scene(folder / f"{name}.tif", noise(*SIZE) + 1, crs=crs, transform=transform)
    other = write_scene(folder / "other.tif", noise(*SIZE), crs=UTM31, transform=LIKE)
    return {"scene": str(scene), "other": str(other)}


@pytest.mark.parametrize(
    ("place", "with_data"),
    [
        ({}, 60 * 40),
        ({"origin": (600_000 + 60 * 30, 5_400_000)}, 0),  # they have an edge in common
        ({"origin": (600_000 + 59 * 30, 5_400_000)}, 40),  # and here a column
        ({"origin": (600_000, 5_400_000 + 40 * 30)}, 0),
        ({"origin": (600_000, 5_400_000 + 39 * 30)}, 60),
        (
            {"origin": (-5_000_000, 9_000_000), "pixel": 200_000},
            60 * 40,
        ),  # one has all of the other
        ({"crs": UTM32}, 0),
        ({"crs": DEGREES, "origin": (4.36, 48.76), "pixel": 0.001}, 60 * 40),
        ({"crs": DEGREES, "origin": (4.36, -48.76), "pixel": 0.001}, 0),
    ],
)
def test_an_image_that_touches_nowhere_is_refused(
    tmp_path: Path, place: dict[str, Any], with_data: int
) -> None:
    """With both bounds and the way out; one that touches somewhere is warped."""
    given = images(tmp_path, **place)
    if with_data:
        run_local(document(), tmp_path / "out", given)
        assert np.count_nonzero(pixels_of(tmp_path / "out" / "image.tif")) == with_data
        return
    with pytest.raises(InvalidInput, match="give images of one place") as found:
        run_local(document(), tmp_path / "out", given)
    assert "stage 'w': $inputs.scene (longitude" in found.value.detail
    wanted = "wholly outside of $inputs.other (longitude 4.35999 to 4.38476, latitude 48.7339 to "
    assert wanted in found.value.detail
    assert not (tmp_path / "out").exists()


def test_a_grid_without_a_place_for_all_of_the_other_is_not_refused() -> None:
    """A map of the world, of which a zone has no part: places that are not known decide nothing."""
    world = Grid(width=360, height=180, crs=DEGREES, transform=(1.0, 0, -180.0, 0, -1.0, 90.0))
    zone = Grid(width=60, height=40, crs=UTM31, transform=tuple(LIKE))
    south = Grid(width=360, height=30, crs=DEGREES, transform=(1.0, 0, -180.0, 0, -1.0, -60.0))
    assert Warp(world, zone, "nearest").touches()
    assert Warp(zone, world, "nearest").touches()
    assert not Warp(south, zone, "nearest").touches()
    assert not Warp(zone, south, "nearest").touches()


def test_what_lies_between_two_samples_is_not_refused() -> None:
    """A pole inside of a map, and a ring around it that has no corner and no sample of the map."""
    polar = (10_000.0, 0, -1_650_000.0, 0, -10_000.0, 1_650_000.0)
    chart = Grid(width=320, height=320, crs="EPSG:3413", transform=polar)
    ring = Grid(width=720, height=1, crs=DEGREES, transform=(0.5, 0, -180.0, 0, -0.5, 90.0))
    warp = Warp(ring, chart, "nearest")
    cols, rows = warp.places(Window(0, 0, 320, 320))
    assert ((cols >= 0) & (cols < 720) & (rows >= 0) & (rows < 1)).any(), "the control"
    assert warp.touches()


def test_a_scene_of_a_campaign_that_touches_nowhere_fails_alone(tmp_path: Path) -> None:
    """With its reason; the other one is complete."""
    # Both are planned as one: the differences of their offsets are the same numbers.
    near = images(tmp_path, name="near", crs=DEGREES, origin=(4, 49), pixel=0.01)
    far = images(tmp_path, name="far", crs=DEGREES, origin=(5, 49), pixel=0.01)
    moved = [30.0, 0.0, 600_001.0, 0.0, -30.0, 5_400_000.0]
    far["other"] = str(
        write_scene(tmp_path / "moved.tif", noise(*SIZE), crs=UTM31, transform=moved)
    )
    scenes = saved(tmp_path / "s.json", [{"id": "near", **near}, {"id": "far", **far}])  # type: ignore[arg-type]  # a list
    out = tmp_path / "out"
    done = pesto("run", saved(tmp_path / "p.json", document()), "--scenes", scenes, "-o", out)
    assert done.returncode == 3
    found = json.loads((out / "campaign.json").read_text())["scenes"]
    assert {name: each["status"] for name, each in found.items()} == {
        "near": "COMPLETE", "far": "FAILED",
    }  # fmt: skip
    assert "wholly outside" in found["far"]["error"]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (100_000, "`ratio` 100000 makes 6000000 x 4000000 pixels of the 60 x 40 of .inputs.other"),
        ("1/100", "`ratio` 1/100 makes 0 x 0 pixels"),
        ("1/50", "`ratio` 1/50 makes 1 x 0 pixels"),
    ],
)
def test_a_ratio_that_leaves_no_image_is_refused_by_name(
    tmp_path: Path, ratio: JsonValue, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        run_local(document(ratio=ratio), tmp_path / "out", images(tmp_path))


def test_the_smallest_image_of_a_ratio_is_made(tmp_path: Path) -> None:
    """The control."""
    run_local(document(ratio="1/40"), tmp_path / "out", images(tmp_path))
    assert pixels_of(tmp_path / "out" / "image.tif").shape == (1, 1, 1)


@pytest.mark.parametrize("nodata", [300, 1.5, "x"])
def test_a_wrong_nodata_is_reported_once(tmp_path: Path, nodata: JsonValue) -> None:
    with pytest.raises(InvalidPipeline) as found:
        run_local(document(nodata=nodata), tmp_path / "out", images(tmp_path))
    (fault,) = found.value.fields
    assert fault.pointer == "/stages/0/inputs/nodata"
