"""A campaign on a real Airflow: few tasks for many scenes, and no scene stops another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pesto_airflow.catalog import write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.run.services import resolve_services
from tests.support.commands import saved
from tests.support.processes import MARKER
from tests.support.rasters import noise, sha256_of, stamps, write_scene
from tests.support.runs import CLOUD_COVER, Done, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

SIZES = {"small": (90, 60), "odd": (517, 333), "marked": (500, 300), "large": (1500, 1100)}
TILE, MOST_TASKS = 200, 3
DOCUMENT = pipeline(
    stage("first", "fragile", image="$inputs.scene", broken="$inputs.broken"),
    stage("mean", "mean", image="$inputs.scene"),
    stage("above", "above", image="$first.image", level="$mean.mean"),
    outputs={"image": "$above.image", "mean": "$mean.mean"},
    scene="image", broken="string",
)  # fmt: skip
DAG = """
from airflow.sdk import Param, dag, task

from pesto_airflow import pesto_campaign


@dag(schedule=None, params={{"scenes": Param(type="array"), "folder": Param(type="string")}})
def many_scenes():
    @task
    def listed(params: dict) -> list[str]:
        return params["scenes"]

    pesto_campaign(
        {pipeline!r}, services={services!r}, scenes=listed(), folder="{{{{ params.folder }}}}",
        inputs={{"broken": {broken!r}}}, group_id="run", tile={tile}, max_tasks={most},
    )


many_scenes()
"""


@dataclass(frozen=True)
class Scenes:
    """Scenes of a campaign: the tile of one fails while a file exists, one is absent."""

    folder: Path

    @property
    def is_broken(self) -> Path:
        """The file."""
        return self.folder / "is_broken"

    @property
    def out(self) -> Path:
        """The folder of the campaign."""
        return self.folder / "out"

    @property
    def conf(self) -> dict[str, JsonValue]:
        """What the DAG is told."""
        listed = [str(self.folder / f"{name}.tif") for name in (*SIZES, "absent")]
        return {"scenes": [*listed], "folder": str(self.out)}

    @property
    def counts(self) -> JsonValue:
        """Scenes by status, as `campaign.json` has them."""
        found: JsonValue = json.loads((self.out / "campaign.json").read_text())["counts"]
        return found

    def alone(self, name: str) -> Done:
        """The run of one scene by the local engine."""
        given = {"scene": self.folder / f"{name}.tif", "broken": self.folder / "unbroken"}
        return run_local(DOCUMENT, self.folder / "alone" / name, given)

    def write(self) -> None:
        """Write the scenes."""
        for name, size in SIZES.items():
            pixels = noise(*size)
            if name == "marked":
                pixels[0, 250, 450] = MARKER
            write_scene(self.folder / f"{name}.tif", pixels)
        self.is_broken.touch()

    def dag(self) -> str:
        """Save pipeline and descriptions; return the DAG's file."""
        found = resolve_services(Pipeline.parse(DOCUMENT), base=CLOUD_COVER.parent)
        write_catalog(found.found.values(), self.folder / "catalog")
        return DAG.format(
            pipeline=str(saved(self.folder / "pipeline.json", DOCUMENT)), tile=TILE,
            most=MOST_TASKS, services=str(self.folder / "catalog"), broken=str(self.is_broken),
        )  # fmt: skip


def tasks_in(airflow: Airflow, run_id: str, state: str | None = None) -> list[str]:
    """The ids of the tasks of a run in a state, one for each mapped one."""
    tasks = airflow.api.tasks("many_scenes", run_id)
    return [task.task_id for task in tasks if state in (None, task.state)]


def test_scenes_share_tasks_and_the_failed_ones_alone_run_again(
    airflow: Airflow, tmp_path: Path
) -> None:
    """A tile of one scene fails, one scene is absent; clearing mends the first, a new run both."""
    scenes = Scenes(tmp_path)
    scenes.write()
    airflow.add("many_scenes", scenes.dag())

    run_id, state = airflow.run("many_scenes", scenes.conf, timeout_s=200)
    assert state == "failed"
    assert set(tasks_in(airflow, run_id, "failed")) == {"run.map_first", "run.require_scenes"}
    assert tasks_in(airflow, run_id).count("run.map_first") == MOST_TASKS
    assert scenes.counts == {"COMPLETE": 3, "FAILED": 2}
    for name in ("small", "odd", "large"):
        assert sha256_of(scenes.out / name / "image.tif") == scenes.alone(name).sha256()
    published = airflow.task("many_scenes", run_id, "run.publish")
    told = airflow.api.xcoms("many_scenes", run_id, published)["return_value"]
    assert isinstance(told, dict)
    assert told["failed"] == ["marked", "absent"]

    before = {name: stamps(scenes.out / name) for name in ("small", "odd", "large")}
    scenes.is_broken.unlink()
    failed = next(
        task
        for task in airflow.api.tasks("many_scenes", run_id)
        if (task.task_id, task.state) == ("run.map_first", "failed")
    )
    airflow.api.clear_with_downstream("many_scenes", run_id, failed)
    assert airflow.api.await_end("many_scenes", run_id, timeout_s=200) == "failed"
    assert scenes.counts == {"COMPLETE": 4, "FAILED": 1}, "one scene is still absent"
    assert sha256_of(scenes.out / "marked" / "image.tif") == scenes.alone("marked").sha256()

    write_scene(tmp_path / "absent.tif", noise(100, 100))
    run_id, state = airflow.run("many_scenes", scenes.conf, timeout_s=200)
    assert state == "success", airflow.logs("many_scenes", run_id)
    assert scenes.counts == {"COMPLETE": 5}
    assert {name: stamps(scenes.out / name) for name in before} == before
    assert tasks_in(airflow, run_id).count("run.map_first") == 1


SITES_DAG = """
from airflow.sdk import Param, TaskGroup, dag, task

from pesto_airflow import pesto_campaign

SITES = {{"east": "{folder}/east/", "west": "{folder}/west/"}}


@dag(schedule=None, params={{"scenes": Param(type="array")}})
def two_sites():
    @task
    def scenes_at(prefix: str, params: dict) -> list[str]:
        return [scene for scene in params["scenes"] if scene.startswith(prefix)]

    for site, prefix in SITES.items():
        with TaskGroup(site, default_args={{"queue": site}}):
            pesto_campaign(
                {pipeline!r}, services={services!r}, group_id="run", scenes=scenes_at(prefix),
                folder="{folder}/out-" + site,
            )


two_sites()
"""


def test_a_campaign_is_in_the_queue_of_its_site(airflow: Airflow, tmp_path: Path) -> None:
    """All tasks of a group of the site; each computes the scenes there alone."""
    document = chain("grow")
    for site in ("east", "west"):
        (tmp_path / site).mkdir()
        write_scene(tmp_path / site / f"{site[0]}.tif", noise(100, 100))
    found = resolve_services(Pipeline.parse(document), base=CLOUD_COVER.parent)
    write_catalog(found.found.values(), tmp_path / "catalog")
    airflow.add("two_sites", SITES_DAG.format(
        folder=tmp_path, services=str(tmp_path / "catalog"),
        pipeline=str(saved(tmp_path / "pipeline.json", document)),
    ))  # fmt: skip
    scenes: list[JsonValue] = [str(each) for each in sorted(tmp_path.glob("*/*.tif"))]
    run_id, state = airflow.run("two_sites", {"scenes": scenes})
    assert state == "success", airflow.logs("two_sites", run_id)
    tasks = airflow.api.tasks("two_sites", run_id)
    for site in ("east", "west"):
        names = {task.task_id for task in tasks if task.task_id.startswith(site)}
        assert {f"{site}.run.plan", f"{site}.run.map_s0", f"{site}.run.publish"} < names
        found_tasks = [e for n in names for e in airflow.api.instances("two_sites", run_id, n)]
        assert {str(each["queue"]) for each in found_tasks} == {site}
        report = json.loads((tmp_path / f"out-{site}" / "campaign.json").read_text())
        assert [*report["scenes"]] == [site[0]]
