"""The logs of a run's tasks, and the arguments that they reject before any work."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from pesto_airflow import (
    PestoMapCampaignOperator,
    PestoMapOperator,
    PestoMergeOperator,
    PestoMosaicOperator,
    PestoPlanOperator,
    PestoPublishOperator,
)
from pesto_airflow.operators.run import MOST_LOGGED_HOLES
from pesto_runtime.errors import FolderInUse, InvalidInput, StoreRefused
from tests.support.airflow_tasks import Run
from tests.support.processes import MARKER
from tests.support.rasters import noise, write_scene
from tests.support.runs import CLOUD_COVER, chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_airflow.operators.run import RunOperator

WIDTH, HEIGHT, TILE = 300, 120, 20
BAD_TILES = 12
TILES = (WIDTH // TILE) * (HEIGHT // TILE)


def log_of(task: RunOperator, run: Run) -> list[tuple[str, str]]:
    """(Level, text) of what a task writes into its log."""
    with capture_logs() as entries:
        task.perform(run.context)
    return [
        (entry["log_level"], str(entry["event"]) % entry.get("positional_args", ()))
        for entry in entries
    ]


def plan_task(
    folder: Path | str, scene: Path | str, document: Mapping[str, JsonValue]
) -> PestoPlanOperator:
    return PestoPlanOperator(
        task_id="plan", pipeline=document, base=CLOUD_COVER.parent, folder=folder,
        inputs={"scene": str(scene)}, tile=TILE, max_tasks=1,
    )  # fmt: skip


def test_each_task_logs_its_part_of_a_run_with_holes(tmp_path: Path) -> None:
    """Tiles and chunks; ten reasons and how many more; the status, the counts, the folder."""
    pixels = noise(WIDTH, HEIGHT)
    pixels[0, 10, [10 + TILE * tile for tile in range(BAD_TILES)]] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    run, out = Run(), tmp_path / "out"

    planned = log_of(plan_task(out, scene, chain("raises", slug="too-large")), run)
    href = str(run.pushed["plan"])
    mapped = log_of(PestoMapOperator(task_id="m", plan=href, chunk=0, holes="keep"), run)
    published = log_of(PestoPublishOperator(task_id="p", plan=href, folder=out), run)

    assert planned[-1] == ("info", f"planned phase 0 (s0): {TILES} tiles in 1 chunks")
    warned = [text for level, text in mapped if level == "warning"]
    assert len(warned) == MOST_LOGGED_HOLES + 1
    features = json.loads((out / "holes.geojson").read_text())["features"]
    assert len(features) == BAD_TILES
    assert all("s0" in text for text in warned[:MOST_LOGGED_HOLES])
    assert all(text.endswith("/image: must be dark") for text in warned[:MOST_LOGGED_HOLES])
    assert warned[-1].startswith(f"and {BAD_TILES - MOST_LOGGED_HOLES} more holes")
    assert published[-1] == (
        "info",
        f"PARTIAL: tiles {TILES - 12} computed, 0 reused, 12 holes; the outputs are in {out}",
    )


def test_sizes_may_be_rendered_templates(tmp_path: Path) -> None:
    """Texts of numbers; another text is refused by the name of the setting."""
    scene, run = write_scene(tmp_path / "s.tif", noise(300, 120)), Run()
    sized = {"tile": "20", "max_tasks": "1", "workers": "2", "patience": "1.5"}

    def planned(**given: str) -> list[tuple[str, str]]:
        task = PestoPlanOperator(
            task_id="plan", pipeline=chain("grow"), base=CLOUD_COVER.parent,
            folder=tmp_path / "out", inputs={"scene": str(scene)},
            **{**sized, **given},  # type: ignore[arg-type]  # names of settings that take texts
        )  # fmt: skip
        return log_of(task, run)

    assert planned()[-1] == ("info", f"planned phase 0 (s0): {TILES} tiles in 1 chunks")
    assert planned(tile="None")[-1] == ("info", "planned phase 0 (s0): 1 tiles in 1 chunks")
    for name in sized:
        with pytest.raises(InvalidInput, match=f"{name} must be a number, and is 'many'"):
            planned(**{name: "many"})


@pytest.mark.parametrize(
    ("folder", "scene", "named"),
    [("out", "/s.tif", "folder 'out'"), ("/out", "s.tif", "input 'scene' 's.tif'")],
)
def test_a_relative_path_is_refused_by_name(folder: str, scene: str, named: str) -> None:
    """Before anything is read or written; the error has the solution."""
    with pytest.raises(InvalidInput, match=rf"{named} is a relative path.*give an absolute path"):
        plan_task(folder, scene, chain("grow")).perform(cast("Context", {}))


def test_a_label_never_fails(tmp_path: Path) -> None:
    """Airflow renders it after a failure too, and an error of it would take the place of that."""
    absent = (tmp_path / "plan.json").as_uri()
    assert PestoMapOperator(task_id="map", plan=absent, chunk=3).chunk_name == "3"
    scenes = PestoMapCampaignOperator(task_id="map", campaign=absent, number=4)
    assert scenes.task_name == "4"


@pytest.mark.parametrize(
    "task",
    [
        PestoPublishOperator(task_id="p", plan="file:///p", folder="out"),
        PestoMosaicOperator(task_id="m", plan="file:///p", raster="$a.b", path="out/a.tif"),
        PestoMergeOperator(task_id="v", plan="file:///p", vector="$a.b", path="out/a.geojson"),
    ],
    ids=lambda task: type(task).__name__,
)
def test_what_writes_refuses_a_relative_path(task: RunOperator) -> None:
    """Each operator that is given a place by hand."""
    context = Run().context
    with pytest.raises(InvalidInput, match=r"'out.* is a relative path"):
        task.perform(context)


def test_a_folder_that_cannot_be_written_is_refused_by_the_plan(tmp_path: Path) -> None:
    """A file stands where the folder should be: nothing is planned."""
    (tmp_path / "out").write_text("")
    scene = write_scene(tmp_path / "s.tif", noise(40, 40))
    with pytest.raises(StoreRefused, match="cannot be an output folder"):
        plan_task(tmp_path / "out", scene, chain("grow")).perform(cast("Context", {}))


@pytest.mark.parametrize("second", ["grow", "fragile"])
def test_one_run_owns_a_folder_and_the_same_one_joins(tmp_path: Path, second: str) -> None:
    """Plans made at once: equal runs share the folder; of two different ones, one is refused."""
    scene = write_scene(tmp_path / "s.tif", noise(40, 40))
    tasks = [plan_task(tmp_path / "out", scene, chain(name)) for name in ("grow", second)]
    runs = [Run(), Run()]

    def perform(task: RunOperator, run: Run) -> object:
        try:
            dag_run = SimpleNamespace(run_id=f"run {id(run)}", dag_id="dag")
            return task.perform(cast("Context", {"ti": run, "dag_run": dag_run}))
        except FolderInUse as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(perform, tasks, runs))
    plans = [str(run.pushed["plan"]) for run in runs if run.pushed]
    assert all(Path(plan.removeprefix("file://")).exists() for plan in plans)
    if second == "grow":
        assert answers == [[0], [0]]
        assert plans[0] == plans[1]
    else:
        (refused,) = [answer for answer in answers if answer != [0]]
        assert f"is in use by run {plans[0].rpartition('/')[2].partition('-')[0]}" in str(refused)
