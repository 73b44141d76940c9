"""A pipeline over many scenes on a real Conductor: few tasks, and no scene stops another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.following import tasks_of
from tests.support.commands import pesto
from tests.support.conductor_workers import conductor_worker
from tests.support.landsat import expected_answer
from tests.support.processes import MARKER
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import ROOT, SCENE, pipeline, run_local, stage

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Document

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]

SIZES = {"small": (90, 60), "odd": (517, 333), "tall": (40, 700), "marked": (300, 250)}


def reason(workflow: Document) -> str:
    return str(workflow.get("reasonForIncompletion"))


def marked_scenes(folder: Path) -> dict[str, Path]:
    """Scenes, of which one has a marker."""
    scenes = {}
    for name, size in SIZES.items():
        pixels = noise(*size)
        pixels[pixels == MARKER] = 0
        if name == "marked":
            pixels[0, 5, 5] = MARKER
        scenes[name] = write_scene(folder / f"{name}.tif", pixels)
    return scenes


def chunks_of(workflow: Document) -> list[Document]:
    """Tasks of its chunks."""
    return [e for e in tasks_of(workflow) if e["taskType"] == "pesto_process_scenes"]


def statuses(folder: Path) -> dict[str, str]:
    """Scene -> status, of a `campaign.json`."""
    scenes = json.loads((folder / "campaign.json").read_text())["scenes"]
    return {name: str(each["status"]) for name, each in scenes.items()}


def test_a_failed_scene_stops_no_other_and_the_next_run_computes_it_alone(
    conductor: Desk, tmp_path: Path
) -> None:
    """One scene is no image, and a tile of one fails: the others have the bytes of a run alone.

    The control is the second run, of the same input after the tile is mended: it computes the tiles
    of one scene, and of no other, in few tasks.
    """
    broken, log, out = tmp_path / "broken", tmp_path / "log", tmp_path / "out"
    broken.touch()
    scenes = marked_scenes(tmp_path)
    unreadable = tmp_path / "unreadable.tif"
    unreadable.write_text("this is no image")
    document = pipeline(
        stage("a", "watched", image="$inputs.scene", broken=str(broken), log=str(log)),
        stage("m", "mean", image="$a.image"),
        stage("b", "above", image="$a.image", level="$m.mean"),
        outputs={"image": "$b.image", "mean": "$m.mean"},
    )
    inputs: dict[str, JsonValue] = {
        "scenes": [str(each) for each in (*scenes.values(), unreadable)],
        "folder": str(out), "tile": 200, "workers": 2, "max_tasks": 3,
    }  # fmt: skip

    def run() -> Document:
        identity = conductor.start(document, inputs, domains={"*": "many"}, is_campaign=True)
        return conductor.ended(identity, 120)

    with conductor_worker(conductor.url, tmp_path, "--domain", "many"):
        first = run()
        assert statuses(out) == {
            "small": "COMPLETE", "odd": "COMPLETE", "tall": "COMPLETE", "marked": "FAILED",
            "unreadable": "FAILED",
        }  # fmt: skip
        assert (first["status"], "[marked, unreadable]" in reason(first)) == ("FAILED", True)
        assert 0 < len(chunks_of(first)) <= 2 * 3, "phases and max_tasks"
        calls = len(log.read_text().splitlines())

        broken.unlink()
        second = run()
        assert statuses(out)["marked"] == "COMPLETE"
        assert "unreadable" in reason(second)
        assert len(log.read_text().splitlines()) == calls + 1, "the tile that had failed"

        inputs["scenes"] = [str(each) for each in scenes.values()]
        third = run()
        assert third["status"] == "COMPLETED", reason(third)
        assert not chunks_of(third)
    for name, scene in scenes.items():
        alone = run_local(document, tmp_path / name, {"scene": scene})
        assert sha256_of(out / name / "image.tif") == alone.sha256(), name
        assert json.loads((out / name / "mean.json").read_text()) == alone.value("mean")


def test_the_committed_campaign_runs_by_the_commands(conductor: Desk, tmp_path: Path) -> None:
    """`register`, then `start` with a list of scenes, as the page of campaigns has it."""
    file = ROOT / "workflows" / "conductor" / "cloud_cover_campaign.json"
    rendered = pesto("render", "workflows/cloud_cover.json", "--engine", "conductor", "--campaign")
    assert rendered.stdout == file.read_text()
    done = pesto("conductor", "register", "--url", conductor.url, file)
    assert done.returncode == 0, done.stderr
    conductor.register()  # other tests want impatient task definitions
    scenes = json.dumps([{"id": name, "scene": str(SCENE)} for name in ("monday", "tuesday")])
    with conductor_worker(conductor.url, tmp_path):
        done = pesto(
            "conductor", "start", "cloud-cover-campaign", "--url", conductor.url, "--wait",
            "--json", "-i", f"scenes={scenes}", "-i", f"folder={tmp_path}/out",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)["output"]
    assert (output["status"], output["counts"], output["failed"]) == (
        "COMPLETE", {"COMPLETE": 2}, [],
    )  # fmt: skip
    for name in ("monday", "tuesday"):
        cover = json.loads((tmp_path / "out" / name / "cover.json").read_text())
        assert cover == expected_answer().cover


def test_workflows_run_where_their_scenes_are(conductor: Desk, tmp_path: Path) -> None:
    """`--site` selects the workers by the prefix of the scenes; several sites are refused."""
    file = ROOT / "workflows" / "conductor" / "cloud_cover_campaign.json"
    done = pesto("conductor", "register", "--url", conductor.url, file)
    assert done.returncode == 0, done.stderr
    conductor.register()  # other tests want impatient task definitions
    sites = []
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.tif").symlink_to(SCENE)
        sites += ["--site", f"{name}={tmp_path / name}/"]

    def start(*places: str) -> CompletedProcess[str]:
        scenes = json.dumps([{"id": each, "scene": f"{tmp_path}/{each}/s.tif"} for each in places])
        return pesto(
            "conductor", "start", "cloud-cover-campaign", "--url", conductor.url, "-i",
            f"scenes={scenes}", "-i", f"folder={tmp_path}/out-{places[0]}", *sites,
        )  # fmt: skip

    refused = start("west", "east")
    assert refused.returncode == 2
    assert "the scenes are at several sites" in refused.stderr
    with (
        conductor_worker(conductor.url, tmp_path, "--domain", "east") as east,
        conductor_worker(conductor.url, tmp_path, "--domain", "west") as west,
    ):
        ends = {}
        for name in ("east", "west"):
            told = start(name)
            assert told.returncode == 0, told.stderr
            ends[name] = conductor.ended(told.stdout.strip(), 120)
        pids = {"east": east.child, "west": west.child}
    for name, workflow in ends.items():
        assert workflow["status"] == "COMPLETED", reason(workflow)
        workers = {str(each["workerId"]) for each in tasks_of(workflow) if each.get("workerId")}
        assert {each.rpartition("-")[2] for each in workers} == {str(pids[name])}
