"""A campaign beside another start of its command, and after one that was killed."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pesto_runtime.campaigns import process_task
from pesto_runtime.campaigns.campaign_plan import CampaignRecords, load_campaign
from pesto_runtime.campaigns.campaign_planning import CampaignSettings, plan_campaign
from pesto_runtime.campaigns.campaign_result import publish_campaign
from pesto_runtime.campaigns.campaign_tasks import close_campaign_phase
from pesto_runtime.campaigns.scene_lists import SceneInputs
from pesto_runtime.contract import Pipeline
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from tests.support.commands import PESTO, pesto, saved, waited
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import chain

if TYPE_CHECKING:
    from pathlib import Path

_WAITS = """
import os, time
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

@process(version="1")
def waits(
    scene: Annotated[np.ndarray, Raster(margin=0)], level: int = 0,
) -> Annotated[np.ndarray, Raster(name="image")]:
    while scene.max() == 255 and os.path.exists(FLAG):
        time.sleep(0.05)
    return scene
"""


def left_in(folder: Path) -> list[Path]:
    return [*folder.rglob(".pesto")]


class TwoStarts:
    """Two starts of one command: both plan, then their tasks run in any order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "out"
        document = Pipeline.parse(chain("grow"))
        services = resolve_services(document, base=folder)
        scenes = [
            SceneInputs(name, {"scene": str(write_scene(folder / f"{name}.tif", noise(60, 50)))})
            for name in "abc"
        ]
        self.records = [RunRecord(engine={"name": "local", "run": name}) for name in "12"]
        self.hrefs = [
            plan_campaign(
                document, services, scenes,
                CampaignSettings(self.folder, Sizing(max_tasks=3, tile=200), each.member),
            )
            for each in self.records
        ]  # fmt: skip

    def process(self, start: int, count: int = 3) -> None:
        """Run the first tasks of a start."""
        for task in range(count):
            process_task(self.hrefs[start], 0, task)

    def end(self, start: int) -> tuple[dict[str, str], object]:
        """Close the phase and publish: the scenes that failed, and the counts."""
        failed = close_campaign_phase(self.hrefs[start], 0)
        done = publish_campaign(self.hrefs[start], self.folder, self.records[start])
        return failed, done["counts"]


def test_a_start_that_ends_first_takes_nothing_from_another(tmp_path: Path) -> None:
    """The first one deletes the records of the campaign, of tasks of the second one, too."""
    starts = TwoStarts(tmp_path)
    assert [len(load_campaign(href).tasks[0]) for href in starts.hrefs] == [3, 3]
    starts.process(1, count=2)
    starts.process(0)
    assert starts.end(0) == ({}, {"COMPLETE": 3})
    assert starts.end(1) == ({}, {"COMPLETE": 3})
    assert json.loads((starts.folder / "campaign.json").read_text())["status"] == "COMPLETE"
    assert left_in(starts.folder) == []


def test_records_that_are_lost_are_no_success(tmp_path: Path) -> None:
    """Control: without the first start, the scenes of tasks without a record have failed."""
    starts = TwoStarts(tmp_path)
    starts.process(1)
    CampaignRecords(starts.hrefs[1]).delete()
    failed = close_campaign_phase(starts.hrefs[1], 0)
    assert failed.keys() == {"a", "b", "c"}


@pytest.mark.parametrize("level", [1, 2])
def test_a_killed_campaign_owns_nothing_any_more(tmp_path: Path, level: int) -> None:
    """Neither from the same command nor from another; while it lives (control), it does."""
    flag, code, out = tmp_path / "waits", tmp_path / "code.py", tmp_path / "out"
    flag.touch()
    code.write_text(_WAITS.replace("FLAG", repr(str(flag))))
    pixels = noise(600, 600)
    pixels[:, 550:] = 255  # the first block is stored before the tile that waits
    image = write_scene(tmp_path / "a.tif", pixels)
    document: dict[str, Any] = {
        "name": "killed", "inputs": {"scene": "image", "level": "integer"},
        "services": {"waits": f"{code}:waits"},
        "stages": [
            {"id": "s", "process": "waits",
             "inputs": {"scene": "$inputs.scene", "level": "$inputs.level"}},
        ],
        "outputs": {"image": "$s.image"},
    }  # fmt: skip
    words = [
        "run", saved(tmp_path / "p.json", document), "--scenes",
        saved(tmp_path / "s.json", [str(image)]), "-o", out, "--tile", 512, "--workers", 1,  # type: ignore[arg-type]  # a list
    ]  # fmt: skip
    with subprocess.Popen([*PESTO, *map(str, words), "-i", "level=1"]) as first:
        try:
            waited(lambda: any(out.glob("a/.pesto/blocks/*/*")))
            other = pesto(*words, "-i", "level=3")
        finally:
            first.kill()
    assert other.returncode == 3
    assert "is in use by run" in other.stdout
    flag.unlink()
    done = pesto(*words, "-i", f"level={level}", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["scenes"]["a"]["inputs"]["level"] == level
    assert (pixels_of(out / "a" / "image.tif") == pixels).all()
    if level == 1:  # another run leaves the blocks of this one
        assert report["scenes"]["a"]["tiles"]["reused"] > 0
        assert left_in(out) == []
