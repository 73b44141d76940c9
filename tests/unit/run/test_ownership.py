"""One run owns an output folder: who is refused, who joins, and when a folder is free again."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import ExitStack
from threading import Timer
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import FolderInUse, StoreFailed, StoreRefused
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run import workspace
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import close_phase
from pesto_runtime.run.context import begin_run, chunks_of, load_context
from pesto_runtime.run.ownership import OwnerBeat, abandon, claim, owner_of, release
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.publishing import publish_run
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import locked_workspace, run_store
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import CLOUD_COVER, Settings, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan

MINUTES = 60


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(600, 300))


def planned(folder: Path, document: dict[str, JsonValue], scene: Path) -> Plan:
    """The plan of a run into a folder, as a task of an orchestrator makes it."""
    pipeline = Pipeline.parse(document)
    services = resolve_services(pipeline, base=CLOUD_COVER.parent)
    inputs = read_inputs(pipeline, services, {"scene": str(scene)})
    sizing = Sizing(workers=1, tile=200)
    made = plan(pipeline, services, inputs, store=run_store(folder), sizing=sizing, folder=folder)
    return made.plan


def claimed(
    folder: Path, document: dict[str, JsonValue], scene: Path, *, member: str = "first"
) -> Plan:
    """The same, with the folder owned and the plan stored."""
    made = planned(folder, document, scene)
    with locked_workspace(folder, run=made.run):
        claim(folder, made, member=member)
        begin_run(made)
    return made


def age(folder: Path, seconds: float) -> None:
    """Let the owner have been silent for a while."""
    path = folder / ".pesto" / "owner.json"
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_run_that_comes_or_goes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the lock without being the owner: before its claim, and while it cleans up."""
    folder = tmp_path / "out"

    def entered() -> bool:
        with ExitStack() as other:
            other.enter_context(locked_workspace(folder, run="other"))
            leaves = Timer(0.5, other.close)
            leaves.start()
            try:
                with locked_workspace(folder, run="mine"):
                    return True
            finally:
                leaves.join()

    assert entered()
    monkeypatch.setattr(workspace, "_UNOWNED_S", 0)  # the control
    with pytest.raises(FolderInUse, match="another run"):
        entered()


def test_a_run_that_works_elsewhere_is_named_and_not_disturbed(tmp_path: Path, scene: Path) -> None:
    """Its run, host and age, and the ways out; nothing in the folder changes."""
    folder = tmp_path / "out"
    owner = claimed(folder, chain("grow"), scene)
    age(folder, 3 * MINUTES)
    before = tree(folder)
    with pytest.raises(FolderInUse) as caught:
        run_local(chain("fragile"), folder, {"scene": scene})
    told = str(caught.value)
    assert f"run {owner.run} of pipeline 'test' on {socket.gethostname()}" in told
    assert "last sign 180 s ago" in told
    assert "--take-over" in told
    assert caught.value.exit_code == 2
    assert tree(folder) == before


@pytest.mark.parametrize("way", ["take over", "silent for long", "abandoned", "released", "same"])
def test_a_folder_is_free_for(tmp_path: Path, scene: Path, way: str) -> None:
    """The controls: who may have it at once."""
    folder = tmp_path / "out"
    owner = claimed(folder, chain("grow"), scene)
    settings: Settings = {}
    if way == "take over":
        settings["take_over"] = True
    elif way == "silent for long":
        age(folder, 11 * MINUTES)
    elif way == "abandoned":
        abandon(owner)
    elif way == "released":
        release(folder, owner.run, member="first")
    document = chain("grow") if way == "same" else chain("fragile")
    done = run_local(document, folder, {"scene": scene}, **settings)
    assert done.result["status"] == "COMPLETE"
    assert owner_of(folder) is None


@pytest.mark.parametrize("minutes", [9, 11])
def test_silence_ends_ownership_after_ten_minutes(
    tmp_path: Path, scene: Path, minutes: float
) -> None:
    """By the clock of the disk, on both sides of the limit."""
    folder = tmp_path / "out"
    claimed(folder, chain("grow"), scene)
    age(folder, minutes * MINUTES)
    other = planned(folder, chain("fragile"), scene)
    with locked_workspace(folder, run=other.run):
        if minutes < 10:
            with pytest.raises(FolderInUse):
                claim(folder, other, member="other")
        else:
            claim(folder, other, member="other")
            found = owner_of(folder)
            assert found is not None
            assert found.run == other.run


def test_a_chunk_keeps_its_folder_and_stops_when_another_run_has_it(
    tmp_path: Path, scene: Path
) -> None:
    """Its sign of life is new; without its folder it stores nothing, and cannot publish."""
    folder = tmp_path / "out"
    first = claimed(folder, chain("grow"), scene)
    age(folder, 9 * MINUTES)
    href = begin_run(first)
    process(chunks_of(href, 0)[0])
    assert time.time() - (folder / ".pesto" / "owner.json").stat().st_mtime < MINUTES

    second = planned(folder, chain("fragile"), scene)
    with locked_workspace(folder, run=second.run):
        claim(folder, second, member="second", take_over=True)
    load_context(href).store.delete([*load_context(href).store.names("blocks")])
    with pytest.raises(FolderInUse, match=second.run):
        process(chunks_of(href, 0)[0])
    assert not any(name.startswith(".pesto/blocks/") for name in tree(folder))
    with pytest.raises(FolderInUse, match=second.run):
        publish_run(href, folder, RunRecord(engine={}))
    assert not (folder / "result.json").exists()


def test_a_late_repetition_of_a_task_owns_nothing(tmp_path: Path, scene: Path) -> None:
    """An engine may repeat a task whose run has ended; the control is one that has not."""
    folder = tmp_path / "out"
    made = claimed(folder, chain("grow"), scene, member="test:1")
    href = begin_run(made)
    for chunk in chunks_of(href, 0):
        process(chunk)
    publish_run(href, folder, RunRecord(engine={"name": "test", "run": 1}))
    (folder / ".pesto").mkdir()  # a bucket has no folders: there, nothing has to be made
    files = tree(folder)
    OwnerBeat(made).keep()
    assert tree(folder) == files
    (folder / "result.json").unlink()
    OwnerBeat(made).keep()
    assert tree(folder) - files == {".pesto/owner.json"}


@pytest.mark.parametrize("count", [1, 3])
def test_identical_runs_share_a_folder_until_the_last_has_published(
    tmp_path: Path, scene: Path, count: int
) -> None:
    """The store stays for those that still work, and goes with the last one."""
    folder = tmp_path / "out"
    first = planned(folder, chain("grow"), scene)
    hrefs = []
    for number in range(count):
        with locked_workspace(folder, run=first.run):
            joins = claim(folder, first, member=f"test:{number}")
            hrefs.append(begin_run(first, joins=joins))
        assert joins == (number > 0)
    results = []
    for number, href in enumerate(hrefs):
        load_context.cache_clear()
        for chunk in chunks_of(href, 0):
            process(chunk)
        record = RunRecord(engine={"name": "test", "run": number})
        results.append(publish_run(href, folder, record))
        assert (folder / ".pesto").exists() == (number < count - 1)
    assert {result["status"] for result in results} == {"COMPLETE"}
    assert results[0]["tiles"] == {"computed": 8, "reused": 0, "holes": 0}
    assert tree(folder) == {"image.tif", "result.json", "report.html"}


def test_two_runs_of_one_folder_do_not_publish_each_others_picture(
    tmp_path: Path, scene: Path
) -> None:
    """Task by task, as an orchestrator runs them: the second is refused when it plans."""
    folder, other = tmp_path / "out", write_scene(tmp_path / "o.tif", noise(600, 300, seed=5))
    claimed(folder, chain("grow"), scene)
    with pytest.raises(FolderInUse):
        claimed(folder, chain("grow"), other, member="second")


@pytest.mark.parametrize("replace", [True, False])
def test_a_run_that_may_replace_a_result_when_it_plans_may_when_it_publishes(
    tmp_path: Path, scene: Path, *, replace: bool
) -> None:
    """Task by task; without `replace` (control) it is refused when it plans."""
    folder, other = tmp_path / "out", write_scene(tmp_path / "o.tif", noise(600, 300, seed=5))
    run_local(chain("grow"), folder, {"scene": scene})
    made = planned(folder, chain("grow"), other)
    with locked_workspace(folder, run=made.run):
        if not replace:
            with pytest.raises(FolderInUse):
                claim(folder, made, member="test:1")
            return
        claim(folder, made, member="test:1", replace=True)
        href = begin_run(made)
    for chunk in chunks_of(href, 0):
        process(chunk)
    record = RunRecord(engine={"name": "test", "run": 1})
    assert publish_run(href, folder, record)["status"] == "COMPLETE"


def test_a_run_that_plans_again_is_not_refused_by_itself(tmp_path: Path, scene: Path) -> None:
    """A repeated task may see another scene; a second run (control) would be refused."""
    folder, other = tmp_path / "out", write_scene(tmp_path / "o.tif", noise(600, 300, seed=5))
    claimed(folder, chain("grow"), scene)
    again = claimed(folder, chain("grow"), other)
    owner = owner_of(folder)
    assert owner is not None
    assert (owner.run, owner.members) == (again.run, ("first",))


@pytest.mark.parametrize("other", ["pipeline", "scene", "parameter", "same"])
def test_a_finished_result_is_overwritten_only_by_its_own_pipeline_and_scene(
    tmp_path: Path, scene: Path, other: str
) -> None:
    """Of another pipeline or scene only with `replace`, and then its files go."""
    folder = tmp_path / "out"
    run_local(chain("above", level=10), folder, {"scene": scene})
    before = {name: (folder / name).read_bytes() for name in tree(folder)}
    document = chain("above", level=200 if other == "parameter" else 10)
    if other == "pipeline":
        document |= {"name": "another", "outputs": {"picture": "$s0.image"}}
    place = write_scene(tmp_path / "o.tif", noise(600, 300)) if other == "scene" else scene
    if other in ("parameter", "same"):
        assert run_local(document, folder, {"scene": place}).result["status"] == "COMPLETE"
        return
    with pytest.raises(FolderInUse, match="finished result of another run"):
        run_local(document, folder, {"scene": place})
    assert {name: (folder / name).read_bytes() for name in tree(folder)} == before
    run_local(document, folder, {"scene": place}, replace=True)
    result = json.loads((folder / "result.json").read_text())
    assert result["pipeline"] == document["name"]
    product = "picture.tif" if other == "pipeline" else "image.tif"
    assert tree(folder) == {product, "result.json", "report.html"}


@pytest.mark.parametrize("change", ["deleted", "garbage", "from the future", "untouched"])
def test_what_happens_to_the_owners_file_leaves_nothing(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """In the middle of a run: the run ends as it would, and the folder is free."""
    folder = tmp_path / "out"

    def changed(plan_href: str, number: int) -> tuple[str, ...]:
        path = folder / ".pesto" / "owner.json"
        if change == "deleted":
            path.unlink()
        elif change == "garbage":
            path.write_text("garbage")
        elif change == "from the future":
            os.utime(path, (time.time() + 1e6,) * 2)
        return close_phase(plan_href, number)

    monkeypatch.setattr("pesto_runtime.run.local.close_phase", changed)
    assert run_local(chain("grow"), folder, {"scene": scene}).result["status"] == "COMPLETE"
    assert tree(folder) == {"image.tif", "result.json", "report.html"}
    assert not (folder / ".pesto").exists()


def test_a_workspace_that_is_a_link_is_refused_and_its_target_stays(
    tmp_path: Path, scene: Path
) -> None:
    """Everything in the workspace is deleted at the end of a run: never in another place."""
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("keep")
    (folder / ".pesto").symlink_to(elsewhere)
    with pytest.raises(StoreRefused, match="is a symbolic link"):
        run_local(chain("grow"), folder, {"scene": scene})
    assert tree(elsewhere) == {"mine.txt"}


def test_a_directory_with_the_name_of_an_output_is_named_before_anything_is_withdrawn(
    tmp_path: Path, scene: Path
) -> None:
    """The result of before stays, and the same command goes on once the directory is away."""
    folder = tmp_path / "out"
    run_local(chain("above", level=10), folder, {"scene": scene})
    before = (folder / "result.json").read_bytes()
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    with pytest.raises(StoreFailed, match=r"report\.html is a directory"):
        run_local(chain("above", level=20), folder, {"scene": scene})
    assert (folder / "result.json").read_bytes() == before
    (folder / "report.html").rmdir()
    assert run_local(chain("above", level=20), folder, {"scene": scene}).tiles[1] > 0
