"""Scenes of a campaign that have no folder yet: their first task begins their run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.campaigns import (
    CampaignSettings,
    SceneInputs,
    close_campaign_phase,
    load_campaign,
    plan_campaign,
    process_task,
    publish_campaign,
)
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import FolderInUse
from pesto_runtime.pipeline import Sizing
from pesto_runtime.places import RemotePath, place_of
from pesto_runtime.run.ownership import owner_of
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from tests.support.buckets import BUCKET, moto_server, variables
from tests.support.file_server import use
from tests.support.rasters import noise, write_scene
from tests.support.runs import chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_runtime.places import AnyPath

pytestmark = pytest.mark.contract

MODEL = Pipeline.parse(chain("grow"))
SIZES = {"a": (90, 60), "b": (700, 500), "c": (60, 90), "d": (33, 44)}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        yield port


@pytest.fixture(params=["disk", "bucket"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> AnyPath:
    """The folder of a campaign."""
    if request.param == "disk":
        return tmp_path / "out"
    use(variables(port), monkeypatch)
    return RemotePath(f"{BUCKET}/{abs(hash(request.node.name))}")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return {name: write_scene(folder / f"{name}.tif", noise(*size)) for name, size in SIZES.items()}


def planned(
    folder: AnyPath, scenes: dict[str, Path], *, member: str = "first", tasks: int = 1
) -> str:
    services = resolve_services(MODEL, base=Path.cwd())
    listed = [SceneInputs(name, {"scene": str(path)}) for name, path in scenes.items()]
    sizing = Sizing(workers=1, max_tasks=tasks, tile=200)
    return plan_campaign(MODEL, services, listed, CampaignSettings(folder, sizing, member))


def publish(href: str, folder: AnyPath, member: str = "first") -> dict[str, JsonValue]:
    record = RunRecord(engine={"name": member})  # its only name: the member
    close_campaign_phase(href, 0)
    return publish_campaign(href, folder, record)


def test_a_plan_makes_no_folder_and_each_scene_has_its_bytes(
    folder: AnyPath, scenes: dict[str, Path], tmp_path: Path
) -> None:
    """Two tasks begin the large one at once; the plans of all scenes are one object."""
    href = planned(folder, scenes, tasks=5)
    campaign = load_campaign(href)
    assert len(campaign.packs) == 1
    assert all(owner_of(folder / name) is None for name in scenes)
    if isinstance(folder, Path):
        assert {each.name for each in folder.iterdir()} == {".pesto"}

    tasks = campaign.tasks[0]
    assert [sum(any(part.scene == n for part in task) for task in tasks) for n in range(4)] == [
        1, 2, 1, 1
    ]  # fmt: skip
    with ThreadPoolExecutor(len(tasks)) as pool:
        list(pool.map(lambda task: process_task(href, 0, task), range(len(tasks))))
    owners = [owner_of(folder / name) for name in scenes]
    assert [each and each.members for each in owners] == [("first",)] * len(scenes)
    document = publish(href, folder)
    assert document["counts"] == {"COMPLETE": len(scenes)}
    for name, scene in scenes.items():
        alone = run_local(chain("grow"), tmp_path / "alone" / name, {"scene": scene})
        assert (folder / name / "image.tif").read_bytes() == (
            alone.folder / "image.tif"
        ).read_bytes()
    # A late repetition of a task finds nothing to do, and leaves nothing.
    if isinstance(folder, Path):
        assert not list(folder.rglob(".pesto"))


def test_a_folder_that_another_run_has_taken_since_costs_its_scene_alone(
    folder: AnyPath, scenes: dict[str, Path]
) -> None:
    """Between the plan and the first task; the control is the scene whose folder is free."""
    href = planned(folder, {name: scenes[name] for name in ("a", "c")})
    other = planned(folder, {"c": scenes["d"]}, member="other")
    process_task(other, 0, 0)
    with pytest.raises(FolderInUse, match=r"1 scene failed; all others are done:\s+c: .*in use by"):
        process_task(href, 0, 0)
    document = publish(href, folder)
    assert document["counts"] == {"COMPLETE": 1, "FAILED": 1}
    assert publish(other, folder, "other")["counts"] == {"COMPLETE": 1}


def test_the_same_campaign_twice_at_once_shares_its_folders(
    folder: AnyPath, scenes: dict[str, Path]
) -> None:
    """The first to publish leaves the folder of a scene in which the second one works."""
    chosen = {"a": scenes["a"]}
    first, second = planned(folder, chosen), planned(folder, chosen, member="second")
    process_task(first, 0, 0)
    process_task(second, 0, 0)
    owner = owner_of(folder / "a")
    assert owner is not None
    assert set(owner.members) == {"first", "second"}
    assert publish(first, folder)["counts"] == {"COMPLETE": 1}
    found = owner_of(folder / "a")
    assert found is not None
    assert found.members == ("second",)
    assert process_task(second, 0, 0)["scenes"] == 1


def test_a_late_task_leaves_a_published_scene_as_it_is(
    folder: AnyPath, scenes: dict[str, Path]
) -> None:
    """Of a campaign that has one more scene, which failed: its plan stays, and those of others."""
    absent = place_of("/none/absent.tif")
    assert isinstance(absent, Path)
    href = planned(folder, {"a": scenes["a"], "absent": absent})
    assert process_task(href, 0, 0)["scenes"] == 1
    assert publish(href, folder)["counts"] == {"COMPLETE": 1, "FAILED": 1}
    before = (folder / "a" / "result.json").read_bytes()
    assert process_task(href, 0, 0)["scenes"] == 0
    assert (folder / "a" / "result.json").read_bytes() == before
    assert owner_of(folder / "a") is None
    # Its folder is there now: the next plan claims it, or finds it complete.
    again = load_campaign(planned(folder, {"a": scenes["a"]}, member="again"))
    assert [(each.is_complete, each.packed) for each in again.scenes] == [(True, None)]
