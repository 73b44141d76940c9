"""What `publish` gives to other tasks, and the events that it does not emit."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from airflow.sdk import DAG, Asset, task

from pesto_airflow import (
    PestoClosePhaseOperator,
    PestoMapOperator,
    PestoMergeOperator,
    PestoMosaicOperator,
    PestoPlanOperator,
    PestoPublishOperator,
    pesto_pipeline,
)
from pesto_runtime.errors import RunFailed
from tests.support.airflow_tasks import Run
from tests.support.processes import MARKER
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, pipeline, stage
from tests.unit.airflow_pipeline.test_task_groups import catalog

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey
    from pydantic import JsonValue

DOCUMENT = pipeline(
    stage("same", "raises", image="$inputs.scene", slug="too-large"),
    stage("mean", "mean", image="$same.image"),
    outputs={"image": "$same.image", "mean": "$mean.mean"},
)
ASSETS = {name: Asset(name) for name in ("image", "mean")}


def events() -> dict[Asset, SimpleNamespace]:
    """An event of each Asset, without facts."""
    return {each: SimpleNamespace(extra={}) for each in ASSETS.values()}


def published(
    folder: Path, *, bad: bool, fail_on_partial: bool = False
) -> tuple[Run, PestoPublishOperator, JsonValue]:
    """Run a map and a reduce; with a bad tile, the reduce cannot be folded."""
    pixels = noise(300, 120)
    pixels[0, 10, 10] = MARKER if bad else 0
    run, out = Run(events=events()), folder / "out"
    PestoPlanOperator(
        task_id="plan", pipeline=DOCUMENT, base=CLOUD_COVER.parent, folder=out, tile=100,
        inputs={"scene": str(write_scene(folder / "s.tif", pixels))}, max_tasks=1,
    ).perform(run.context)  # fmt: skip
    href = str(run.pushed.pop("plan"))
    PestoMapOperator(task_id="m", plan=href, chunk=0, holes="keep").perform(run.context)
    PestoClosePhaseOperator(task_id="c", plan=href).perform(run.context)
    last = PestoPublishOperator(
        task_id="p", plan=href, folder=out, assets=ASSETS, fail_on_partial=fail_on_partial
    )
    return run, last, last.perform(run.context)


def test_a_complete_run_tells_values_and_files(tmp_path: Path) -> None:
    """One result in less than 4 KB; each output by its name; an event of each."""
    run, last, told = published(tmp_path, bad=False)
    assert isinstance(told, dict)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    image = tmp_path / "out" / "image.tif"
    file = {"href": image.as_uri(), "sha256": sha256_of(image)}
    mean = json.loads((tmp_path / "out" / "mean.json").read_text())
    assert told == {
        "status": "COMPLETE", "run": result["run"], "outputs": {"image": file, "mean": mean},
        "skipped": [], "tiles": {"computed": 6, "reused": 0, "holes": 0},
    }  # fmt: skip
    assert run.pushed == {"image": image.as_uri(), "mean": mean}
    assert last.outlets == [ASSETS["image"], ASSETS["mean"]]
    assert run.events[ASSETS["image"]].extra == {**file, "status": "COMPLETE"}


def test_tasks_link_to_report_result_and_store(tmp_path: Path) -> None:
    """Also a task that knows its plan alone; the store of a complete run is deleted."""

    def links(task: BaseOperator) -> list[str]:
        key = cast("TaskInstanceKey", None)
        return [each.get_link(task, ti_key=key) for each in task.operator_extra_links]

    out, run, scene = (
        tmp_path / "out",
        Run(events=events()),
        write_scene(tmp_path / "s.tif", noise(30, 20)),
    )
    planned = PestoPlanOperator(
        task_id="plan", pipeline=DOCUMENT, base=CLOUD_COVER.parent, folder=out, tile=100,
        inputs={"scene": str(scene)},
    )  # fmt: skip
    planned.perform(run.context)
    mapped = PestoMapOperator(task_id="m", plan=str(run.pushed["plan"]), chunk=0)
    files = [(out / name).as_uri() for name in ("report.html", "result.json")]
    assert links(planned) == links(mapped) == [*files, (out / ".pesto").as_uri()]
    mapped.perform(run.context)
    PestoClosePhaseOperator(task_id="c", plan=mapped.plan).perform(run.context)
    last = PestoPublishOperator(task_id="p", plan=mapped.plan, folder=out)
    last.perform(run.context)
    assert links(last) == [*files, ""]
    assert all((out / name).exists() for name in ("report.html", "result.json"))


def test_an_output_that_was_not_made_has_no_event(tmp_path: Path) -> None:
    """The mean of a hole is skipped: it is named, and no DAG that waits for it starts."""
    run, last, told = published(tmp_path, bad=True)
    assert isinstance(told, dict)
    assert (told["status"], told["skipped"]) == ("PARTIAL", ["mean"])
    assert set(run.pushed) == {"image"}
    assert last.outlets == [ASSETS["image"]]
    assert run.events[ASSETS["image"]].extra["status"] == "PARTIAL"
    assert run.events[ASSETS["mean"]].extra == {}


def test_a_partial_run_fails_its_task_if_that_is_asked(tmp_path: Path) -> None:
    """After it was published, so that one can look at it."""
    with pytest.raises(RunFailed, match=r"PARTIAL: tiles 5 computed.*fail_on_partial is set"):
        published(tmp_path, bad=True, fail_on_partial=True)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "PARTIAL"


def test_values_beyond_4_kb_are_given_by_href(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow stores XComs in its database. The first test is the control."""
    monkeypatch.setattr("pesto_airflow.operators.outputs.MOST_BYTES", 10)
    run, _, _ = published(tmp_path, bad=False)
    assert run.pushed["mean"] == (tmp_path / "out" / "mean.json").as_uri()


def test_results_of_other_tasks_are_waited_for(tmp_path: Path) -> None:
    """Places that another task returns, and a task that takes the value of an output."""
    services = catalog(DOCUMENT, tmp_path)
    with DAG("made", schedule=None) as dag:

        @task
        def place() -> str:
            return "/out"

        @task.branch
        def choice(mean: float) -> str:
            return "dark" if mean < 100 else "bright"

        group = pesto_pipeline(
            DOCUMENT, services=services, inputs={"scene": "/s.tif"}, folder=place(), store=place()
        )
        choice(group.output["mean"])  # type: ignore[arg-type]  # Airflow supplies the value
        places = {
            PestoMosaicOperator(task_id="a", plan="p", raster="$a.b", path=place()),
            PestoMergeOperator(task_id="b", plan="p", vector="$a.b", path=place()),
        }
    assert dag.get_task("test.plan").upstream_task_ids == {"place", "place__1"}
    assert "place" in dag.get_task("test.publish").upstream_task_ids
    assert dag.get_task("choice").upstream_task_ids == {"test.publish"}
    assert all(len(each.upstream_task_ids) == 1 for each in places)
