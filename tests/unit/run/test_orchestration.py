"""The activities as an orchestrator runs them: task by task, without state in between."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import FolderInUse, RasterUnreadable, StoreFailed, TilesFailed
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run import workspace
from pesto_runtime.run.callers import close_callers
from pesto_runtime.run.chunk import process, tiles_at_once
from pesto_runtime.run.closing import close_phase, mosaic
from pesto_runtime.run.context import begin_run, chunks_of, load_context
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan, shape
from pesto_runtime.run.publishing import publish_run
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import discover, resolve_services
from pesto_runtime.run.workspace import locked_workspace, run_store
from tests.support.fakes import as_npy, fake_service
from tests.support.file_limit import largest_file
from tests.support.processes import MARKER
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import Done, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

LEVELLED = pipeline(
    stage("grown", "grow", image="$inputs.scene"),
    stage("mean", "mean", image="$grown.image"),
    stage("high", "above", image="$grown.image", level="$mean.mean"),
    stage("ranked", "rank", image="$grown.image"),
    outputs={"high": "$high.image", "mean": "$mean.mean", "ranked": "$ranked.image"},
)
"""A fan-out with a reduce, and two phases that wait for it."""

BROKEN = pipeline(
    stage("kept", "fragile", image="$inputs.scene", broken="$inputs.broken"),
    stage("mean", "mean", image="$kept.image"),
    stage("ranked", "rank", image="$kept.image"),
    outputs={"kept": "$kept.image", "mean": "$mean.mean", "ranked": "$ranked.image"},
    scene="image",
    broken="string",
)


def begun(
    document: Mapping[str, JsonValue],
    folder: Path,
    given: Mapping[str, str],
    *,
    options: tuple[str, ...] = (),
    tile: int = 200,
) -> str:
    """The href of a plan whose store is an output folder's own; about six chunks a phase."""
    model = Pipeline.parse(document)
    services = resolve_services(model, base=folder, options=options)
    inputs = read_inputs(model, services, given)
    sizing = Sizing(workers=2, tile=tile)
    made = plan(model, services, inputs, store=run_store(folder), sizing=sizing)
    return begin_run(made.plan)


def driven(plan_href: str, folder: Path) -> dict[str, JsonValue]:
    """What an orchestrator does; every task in a process that knows nothing yet."""
    for number in range(len(load_context(plan_href).plan.phases)):
        for chunk in chunks_of(plan_href, number):
            load_context.cache_clear()
            process(chunk)
        load_context.cache_clear()
        close_phase(plan_href, number)
    load_context.cache_clear()
    return publish_run(plan_href, folder, RunRecord(engine={"name": "test"}))


def holes_of(result: Mapping[str, JsonValue]) -> tuple[JsonValue, JsonValue, JsonValue]:
    tiles = result["tiles"]
    assert isinstance(tiles, dict)
    return result["status"], tiles["holes"], result["skipped"]


def test_driven_task_by_task_a_run_is_that_of_the_local_engine(tmp_path: Path) -> None:
    """Reduces, later phases and whole rasters; the store is gone in the end."""
    scene = write_scene(tmp_path / "s.tif", noise(1100, 600))
    here = run_local(LEVELLED, tmp_path / "local", {"scene": scene})
    folder = tmp_path / "tasks"
    result = driven(begun(LEVELLED, folder, {"scene": str(scene)}), folder)
    there = Done(folder, result)
    assert there.sha256("high") == here.sha256("high")
    assert there.sha256("ranked") == here.sha256("ranked")
    assert there.value("mean") == here.value("mean")
    assert there.tiles == here.tiles
    assert (folder / "report.html").exists()
    assert not (folder / ".pesto").exists()


def test_the_last_task_repeated_returns_the_same_result(tmp_path: Path) -> None:
    """Its worker may die between the last byte and the report of its result."""
    scene = write_scene(tmp_path / "s.tif", noise(700, 600))
    href = begun(chain("grow"), tmp_path / "out", {"scene": str(scene)})
    first = driven(href, tmp_path / "out")
    load_context.cache_clear()
    record = RunRecord(engine={"name": "again"})
    assert publish_run(href, tmp_path / "out", record) == first


def test_the_last_task_waits_for_an_attempt_that_still_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orchestrator that heard nothing begins the task anew; the first one (control) is there."""
    scene, folder = write_scene(tmp_path / "s.tif", noise(700, 600)), tmp_path / "out"
    href = begun(chain("grow"), folder, {"scene": str(scene)})
    for chunk in chunks_of(href, 0):
        process(chunk)
    inside, leave = threading.Event(), threading.Event()

    def publishing() -> None:
        with locked_workspace(folder, run="first"):
            inside.set()
            leave.wait(10)

    first = threading.Thread(target=publishing)
    first.start()
    inside.wait(60)
    monkeypatch.setattr(workspace, "_UNOWNED_S", 0)
    with pytest.raises(FolderInUse, match="in use"), locked_workspace(folder, run="second"):
        pass
    threading.Timer(0.3, leave.set).start()
    record = RunRecord(engine={})
    assert publish_run(href, folder, record)["status"] == "COMPLETE"
    first.join()


def test_outputs_skipped_for_holes_are_the_same_as_of_the_local_engine(
    tmp_path: Path,
) -> None:
    """No task remembers the holes of another: they are read off the store."""
    pixels = noise(1100, 600) % 200
    pixels[0, 300, 300] = MARKER
    scene, broken = write_scene(tmp_path / "s.tif", pixels), tmp_path / "broken"
    broken.touch()
    given = {"scene": str(scene), "broken": str(broken)}
    here = run_local(BROKEN, tmp_path / "local", given)
    there = driven(begun(BROKEN, tmp_path / "tasks", given), tmp_path / "tasks")
    assert holes_of(there) == holes_of(here.result) == ("PARTIAL", 1, ["mean", "ranked"])
    assert sha256_of(tmp_path / "tasks" / "kept.tif") == here.sha256("kept")


@pytest.mark.parametrize("tile_again", [200, 333])
def test_a_chunk_that_has_to_be_whole_fails_with_what_and_where(
    tmp_path: Path, tile_again: int
) -> None:
    """The other tiles are kept: once the cause is gone, the failed pixels alone are computed."""
    pixels = noise(1100, 600) % 200
    pixels[0, 300, 300] = MARKER
    scene, broken = write_scene(tmp_path / "s.tif", pixels), tmp_path / "broken"
    broken.touch()
    given, folder = {"scene": str(scene), "broken": str(broken)}, tmp_path / "out"
    (chunk, *others) = chunks_of(begun(BROKEN, folder, given), 0)
    with pytest.raises(TilesFailed) as caught:
        process(chunk, holes="fail")
    message = str(caught.value)
    assert "1 of 9 tiles failed" in message
    assert "stage 'kept', tile [200, 200, 200, 200]" in message
    assert "float division by zero" in message
    assert not caught.value.retryable
    assert process(chunk, holes="keep").holes == 1
    broken.unlink()
    href = begun(BROKEN, folder, given, tile=tile_again)
    again = process(chunks_of(href, 0)[0], holes="fail")
    assert (again.tiles, again.reused, again.holes) == {200: (1, 8, 0), 333: (4, 0, 0)}[tile_again]
    assert all(process(each).holes == 0 for each in others)
    there = Done(folder, driven(href, folder))
    here = run_local(BROKEN, tmp_path / "local", given)
    assert [there.sha256(each) for each in ("kept", "ranked")] == [
        here.sha256(each) for each in ("kept", "ranked")
    ]
    assert there.value("mean") == here.value("mean")


def test_a_chunk_that_fails_names_the_wrong_field(tmp_path: Path) -> None:
    """Of each hole that the message lists."""
    scene = write_scene(tmp_path / "s.tif", np.full((1, 30, 30), MARKER, np.uint8))
    document = chain("raises", slug="too-large")
    href = begun(document, tmp_path / "out", {"scene": str(scene)})
    with pytest.raises(TilesFailed, match=r"1 of 1 tiles failed.*\n.*: no; /image: must be dark"):
        process(chunks_of(href, 0)[0], holes="fail")


def test_a_product_interrupted_with_a_hole_has_no_nodata_once_the_hole_is_healed(
    tmp_path: Path,
) -> None:
    """Its unfinished file has nodata in the hole; the next attempt must not continue it."""
    pixels = noise(1100, 600) % 200
    pixels[0, 300, 300] = MARKER
    scene, broken = write_scene(tmp_path / "s.tif", pixels), tmp_path / "broken"
    broken.touch()
    given = {"scene": str(scene), "broken": str(broken)}
    href = begun(BROKEN, tmp_path / "out", given)
    for chunk in chunks_of(href, 0):
        process(chunk)
    with largest_file(600_000), pytest.raises(StoreFailed):
        mosaic(href, "$kept.image", tmp_path / "kept.tif")
    assert (tmp_path / "kept.tif.part").exists()
    broken.unlink()
    for chunk in chunks_of(href, 0):
        process(chunk, holes="fail")
    assert mosaic(href, "$kept.image", tmp_path / "kept.tif").holes == ()
    assert np.array_equal(pixels_of(tmp_path / "kept.tif"), pixels)


def test_a_retry_opens_a_scene_again_that_was_incomplete(tmp_path: Path) -> None:
    """The same worker retries: a raster that it has open would never have the missing bytes.

    The missing bytes come without a trace: same size, modification time and inode.
    """
    scene = write_scene(
        tmp_path / "s.tif", noise(300, 2000), names=(), options={"compress": "deflate"}
    )
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    modified = scene.stat().st_mtime_ns
    named = f"{scene}#bands=grey:1"
    href = begun(chain("grow"), tmp_path / "out", {"scene": named})
    chunks = chunks_of(href, 0)
    with pytest.raises(RasterUnreadable):
        process(chunks[-1])
    scene.write_bytes(whole)
    os.utime(scene, ns=(modified, modified))
    for chunk in chunks:
        process(chunk, holes="fail")
    made = publish_run(href, tmp_path / "out", RunRecord(engine={}))
    here = run_local(chain("grow"), tmp_path / "local", {"scene": named})
    assert Done(tmp_path / "out", made).sha256() == here.sha256()


@pytest.mark.parametrize(("threads", "most"), [(4, 4), (1, 1)])
def test_tiles_of_a_chunk_are_asked_at_once_and_the_bytes_are_the_same(
    tmp_path: Path, *, threads: int, most: int
) -> None:
    """A service is waited for by several threads; with one (control) never two calls at once."""
    scene = write_scene(tmp_path / "s.tif", noise(512, 512))
    busy: list[int] = [0, 0]
    guard = threading.Lock()

    def answer(image: np.ndarray) -> tuple[int, str, bytes]:
        with guard:
            busy[0] += 1
            busy[1] = max(busy)
        time.sleep(0.1)
        with guard:
            busy[0] -= 1
        return as_npy(np.full((1, *image.shape[1:]), 7, np.uint8))

    with fake_service(answer) as service:
        options = (f"grow={service.url}",)
        href = begun(chain("grow"), tmp_path / "out", {"scene": str(scene)}, options=options)
        (chunk,) = chunks_of(href, 0)
        result = process(chunk, threads=threads)
        close_callers()
    assert busy[1] == most
    assert result.tiles == service.calls == 9
    # Per axis, tiles of 200, 200 and 112 pixels with a margin of 1 inside the scene.
    assert result.bytes_read == (201 + 202 + 113) ** 2
    made = publish_run(href, tmp_path / "out", RunRecord(engine={}))
    assert made["status"] == "COMPLETE"
    assert np.unique(Done(tmp_path / "out", made).pixels()) == [7]


def test_a_shape_is_that_of_the_plan(tmp_path: Path) -> None:
    """Known before any scene: phases, what they fold, and what later ones read."""
    scene = write_scene(tmp_path / "s.tif", noise(700, 600))
    model = Pipeline.parse(LEVELLED)
    shapes = shape(model, resolve_services(model, base=tmp_path))
    planned = load_context(begun(LEVELLED, tmp_path / "out", {"scene": str(scene)})).plan.phases
    assert [(s.kind, s.stages, s.reduces) for s in shapes] == [
        (p.kind, p.stages, p.reduces) for p in planned
    ]
    assert [s.rasters for s in shapes] == [("$grown.image",), (), ()]
    assert all(s.fans_out for s in shapes)


def test_a_shape_from_saved_descriptions_needs_no_pixels_and_no_network(tmp_path: Path) -> None:
    """Needed at every parse of a DAG; with services contacted (control), both are loaded."""
    catalog = tmp_path / "catalog"
    model = Pipeline.parse(chain("grow"))
    discover(tuple(map(str, model.services.values())), catalog)
    code = (
        "import sys; from pathlib import Path\n"
        "from pesto_runtime.run.planning import load_pipeline, shape\n"
        "from pesto_runtime.run.services import resolve_services\n"
        "model = load_pipeline(Path('p.json'))\n"
        "found = resolve_services(model, base=Path(), catalog=Path('catalog'), ask=ASK)\n"
        "assert shape(model, found)[0].stages == ('s0',)\n"
        "print(*sorted({'numpy', 'rasterio', 'httpx', 'obstore'} & set(sys.modules)))"
    )
    (tmp_path / "p.json").write_text(model.model_dump_json(by_alias=True, exclude_none=True))
    printed = [
        subprocess.run(
            [sys.executable, "-c", code.replace("ASK", ask)],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        ).stdout.split()
        for ask in ("False", "True")
    ]  # fmt: skip
    assert printed[0] == []
    assert "numpy" in printed[1]


@pytest.mark.parametrize(("batch", "expected"), [(None, 8), (12, 12)])
def test_a_task_runs_as_many_tiles_as_its_service_is_worth(
    tmp_path: Path, *, batch: int | None, expected: int
) -> None:
    """Eight where a service is waited for, or a whole batch; one (control) where it computes."""
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    with fake_service(as_npy) as service:
        if batch is not None:
            service.description |= {"batched": True, "resources": {"max_batch_size": batch}}
        options = (f"grow={service.url}",)
        href = begun(chain("grow"), tmp_path / "out", {"scene": str(scene)}, options=options)
        assert tiles_at_once(load_context(href), 0) == expected
    href = begun(chain("grow"), tmp_path / "here", {"scene": str(scene)})
    assert tiles_at_once(load_context(href), 0) == 1
