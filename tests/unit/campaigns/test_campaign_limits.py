"""A campaign that reaches a limit publishes complete scenes, says what is left, and goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.commands import pesto, saved
from tests.support.file_server import serving
from tests.support.rasters import noise, pixels_of, stamps, write_scene

if TYPE_CHECKING:
    from pathlib import Path

_SLOW = """
import os, time
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

@process(version="1")
def careful(
    scene: Annotated[np.ndarray, Raster(margin=0)],
) -> Annotated[np.ndarray, Raster(name="image")]:
    if scene.max() == 255 and os.path.exists(FLAG):
        time.sleep(0.5)
    return scene
"""
TILES = 24  # of the large scene, 0.5 s each


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """The command of a campaign over three small scenes and a slow one, in one task."""
    flag, code = tmp_path / "is_slow", tmp_path / "code.py"
    flag.touch()
    code.write_text(_SLOW.replace("FLAG", repr(str(flag))))
    sizes = {"a": (60, 50), "b": (70, 40), "c": (80, 30), "large": (4096, 1536)}
    for name, size in sizes.items():
        pixels = noise(*size)
        if name == "large":
            pixels[:] = 255
        write_scene(tmp_path / f"{name}.tif", pixels)
    listed = [str(tmp_path / f"{name}.tif") for name in sizes]
    document: dict[str, Any] = {
        "name": "limited", "inputs": {"scene": "image"}, "services": {"careful": f"{code}:careful"},
        "stages": [{"id": "s", "process": "careful", "inputs": {"scene": "$inputs.scene"}}],
        "outputs": {"image": "$s.image"},
    }  # fmt: skip
    return [
        "run", saved(tmp_path / "p.json", document), "--scenes",
        saved(tmp_path / "s.json", listed), "-o", tmp_path / "out", "--tile", 512, "--workers", 1,  # type: ignore[arg-type]  # a list
        "--max-tasks", 1, "--json",
    ]  # fmt: skip


def test_complete_scenes_are_published_and_the_rest_goes_on(
    tmp_path: Path, words: list[object]
) -> None:
    """Also those of a task that was stopped; the same command computes only what is left."""
    out = tmp_path / "out"
    first = pesto(*words, "--deadline", "6s")
    assert first.returncode == 3, first.stderr
    report = json.loads(first.stdout)
    assert report == json.loads((out / "campaign.json").read_text())
    assert (report["status"], report["counts"]) == ("PARTIAL", {"COMPLETE": 3, "STOPPED": 1})
    assert report["scenes"]["large"]["error"] == "was stopped before all of its tiles were done"
    assert [each.name for each in (out / "large").iterdir()] == [".pesto"]
    stop = report["stopped"]
    assert stop["limit"] == "deadline"
    assert stop["tiles_done"] + stop["tiles_left"] == 3 + TILES
    assert 3 < stop["tiles_done"] < 3 + TILES
    assert 0 < stop["seconds"] < 6
    assert stop["seconds_left"] == pytest.approx(0.5 * stop["tiles_left"], rel=0.5)
    assert "STOPPED" in (out / "campaign.html").read_text()
    before = {name: stamps(out / name) for name in "abc"}

    (tmp_path / "is_slow").unlink()
    again = pesto(*words, "--deadline", "100s")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["status"], report["counts"]) == ("COMPLETE", {"COMPLETE": 4})
    assert "stopped" not in report
    tiles = report["scenes"]["large"]["tiles"]
    assert tiles["reused"] > 0
    assert tiles["reused"] + tiles["computed"] == TILES
    assert {name: stamps(out / name) for name in "abc"} == before
    np.testing.assert_array_equal(
        pixels_of(out / "large" / "image.tif"), pixels_of(tmp_path / "large.tif")
    )


def test_what_scenes_transfer_counts_before_it_is_read(tmp_path: Path, words: list[object]) -> None:
    """6 MB at 100 a MB; with enough money (control), the campaign is complete."""
    prices = saved(tmp_path / "prices.json", {"gb_transferred": 100_000})
    with serving(tmp_path, tmp_path / "log") as server:
        saved(tmp_path / "s.json", [f"{server.url}/large.tif"])  # type: ignore[arg-type]  # a list
        poor = pesto(*words, "--budget", 20, "--prices", prices)
        (tmp_path / "is_slow").unlink()
        rich = pesto(*words, "--budget", 2000, "--prices", prices)
    assert json.loads(poor.stdout)["counts"] == {"STOPPED": 1}
    assert json.loads(rich.stdout)["counts"] == {"COMPLETE": 1}


def test_a_deadline_before_the_first_tile_stops_all_scenes(
    tmp_path: Path, words: list[object]
) -> None:
    """The seconds that are left are not known; nothing is published, the folders stay usable."""
    done = pesto(*words, "--deadline", "0.001")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"] == {"STOPPED": 4}
    assert report["status"] == "PARTIAL"
    (tmp_path / "is_slow").unlink()
    again = pesto(*words)
    assert json.loads(again.stdout)["counts"] == {"COMPLETE": 4}
