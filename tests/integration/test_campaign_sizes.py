"""500 small scenes and three large ones in one campaign, which is killed on the way."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import saved, started, waited
from tests.support.rasters import noise, sha256_of, stamps, write_scene
from tests.support.runs import chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.endurance, pytest.mark.timeout(3000)]

SMALL, LARGE = 500, 3
KILLS = (100, 300)  # complete scenes before each


def results(folder: Path) -> int:
    """Packs of blocks in the run stores of all scenes."""
    return len(list(folder.glob("*/.pesto/blocks/*/*")))


def ended(*words: object) -> int:
    """The exit code of a command that takes minutes."""
    with started(*words) as process:
        return process.wait(1800)


def test_small_and_large_scenes_outlive_kills(tmp_path: Path) -> None:
    """The bytes of each scene alone; two unreadable scenes fail, and a rerun touches them alone."""
    scenes = {f"s{n:03d}": noise(60 + n % 7, 50 + n % 5, seed=n) for n in range(SMALL)}
    scenes |= {f"large{n}": noise(2100, 1900, seed=n) for n in range(LARGE)}
    for name, pixels in scenes.items():
        write_scene(tmp_path / f"{name}.tif", pixels)
    for name in ("s007", "large1"):
        (tmp_path / f"{name}.tif").write_bytes(b"II*\0 not a raster")
    listed = saved(tmp_path / "list.json", [str(tmp_path / f"{name}.tif") for name in scenes])  # type: ignore[arg-type]  # a list
    document = chain("grow", "soften")
    words = ["run", saved(tmp_path / "p.json", document), "--scenes", listed, "-o", tmp_path / "o",
             "--tile", 400, "--max-tasks", 64]  # fmt: skip
    for kill_at in KILLS:
        with started(*words) as process:
            waited(lambda at=kill_at: results(tmp_path / "o") >= at, timeout_s=600)  # type: ignore[misc]  # a count
            os.kill(process.pid, signal.SIGKILL)
    assert ended(*words) == 3
    report = json.loads((tmp_path / "o" / "campaign.json").read_text())
    assert report["counts"] == {"COMPLETE": SMALL + LARGE - 2, "FAILED": 2}
    failed = {name for name, each in report["scenes"].items() if each["status"] == "FAILED"}
    assert failed == {"s007", "large1"}
    for name in scenes.keys() - failed:
        alone = run_local(document, tmp_path / "alone" / name, {"scene": tmp_path / f"{name}.tif"})
        assert sha256_of(tmp_path / "o" / name / "image.tif") == alone.sha256(), name

    before = {name: stamps(tmp_path / "o" / name) for name in scenes.keys() - failed}
    for name in failed:
        (tmp_path / f"{name}.tif").unlink()  # GDAL would open it first
        write_scene(tmp_path / f"{name}.tif", scenes[name])
    assert ended(*words) == 0
    assert {name: stamps(tmp_path / "o" / name) for name in before} == before
