"""A pipeline's tasks: which there are, what they wait for, where they run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset

from pesto_airflow import pesto_pipeline
from pesto_airflow.catalog import overlay_between, write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput, InvalidPipeline
from pesto_runtime.run.services import resolve_services
from tests.support.commands import saved
from tests.support.runs import CLOUD_COVER, pipeline, stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Unpack

    from pydantic import JsonValue

    from pesto_airflow.taskgroups import GroupSettings

TWO_PHASES = pipeline(
    stage("small", "grow", image="$inputs.scene"),
    stage("level", "mean", image="$small.image"),
    stage("high", "above", image="$small.image", level="$level.mean"),
    outputs={"image": "$high.image"},
)


def catalog(document: Mapping[str, JsonValue], folder: Path) -> Path:
    services = resolve_services(Pipeline.parse(document), base=CLOUD_COVER.parent)
    write_catalog(services.found.values(), folder)
    return folder


def made(
    document: Mapping[str, JsonValue], services: Path, **settings: Unpack[GroupSettings]
) -> DAG:
    with DAG("made", schedule=None) as dag:
        pesto_pipeline(document, services=services, scene="s.tif", folder="out", **settings)
    return dag


def test_each_phase_is_mapped_and_closed_before_the_next(tmp_path: Path) -> None:
    """Two phases: the task that closes the first returns the chunks of the second."""
    dag = made(TWO_PHASES, catalog(TWO_PHASES, tmp_path))
    after = {
        task.task_id.removeprefix("test."): {each.removeprefix("test.") for each in
                                             task.upstream_task_ids}
        for task in dag.tasks
    }  # fmt: skip
    assert after == {
        "plan": set(),
        "map_small": {"plan"},
        "reduce_level": {"map_small", "plan"},
        "map_high": {"plan", "reduce_level"},
        "finish_high": {"map_high", "plan"},
        "publish": {"finish_high", "plan"},
    }


def test_mapped_tasks_have_the_retries_of_the_package(tmp_path: Path) -> None:
    """A mapped task's defaults are read off its class; the scheduler sees them."""
    dag = made(TWO_PHASES, catalog(TWO_PHASES, tmp_path))
    mapped = dag.get_task("test.map_small")
    assert mapped.retries == 2
    assert mapped.retry_delay.total_seconds() == 10
    assert type(mapped.retry_policy).__name__ == "PestoRetryPolicy"
    assert mapped.map_index_template == "{{ task.chunk_name }}"


@pytest.mark.parametrize(
    ("process", "mapped", "other"),
    [("above", "map_high", "map_small"), ("mean", "map_small", "map_high")],
    ids=["map", "reduce"],
)
def test_a_process_that_wants_a_gpu_chooses_the_pool_of_its_phase(
    tmp_path: Path, process: str, mapped: str, other: str
) -> None:
    """Only the phase that it is part of, as a map or as a reduce; a pool that is named wins."""
    folder = catalog(TWO_PHASES, tmp_path)
    (file,) = folder.glob(f"{process}@*.json")
    document = json.loads(file.read_text())
    document["overlay"] = {"resources": {"gpu": True}}
    saved(file, document)
    dag = made(TWO_PHASES, folder, gpu_queue="gpu")
    assert dag.get_task(f"test.{other}").pool == "default_pool"
    assert dag.get_task(f"test.{mapped}").pool == "pesto_gpu"
    assert dag.get_task(f"test.{mapped}").queue == "gpu"
    assert made(TWO_PHASES, folder, pool="mine").get_task(f"test.{mapped}").pool == "mine"


def test_a_stage_has_arguments_of_its_own(tmp_path: Path) -> None:
    """For the mapped task of its phase, and no other; they win over a pool of the group."""
    folder, limit = catalog(TWO_PHASES, tmp_path), timedelta(hours=2)
    own: dict[str, Any] = {"execution_timeout": limit, "retries": 7, "pool": "big"}
    dag = made(TWO_PHASES, folder, pool="mine", operator_args={"high": own})
    high, small = dag.get_task("test.map_high"), dag.get_task("test.map_small")
    assert (high.execution_timeout, high.retries, high.pool) == (limit, 7, "big")
    assert (small.execution_timeout, small.retries, small.pool) == (None, 2, "mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smal": {}}, "no stage 'smal'; there are small, level, high"),
        ({"small": {"chunk": 1}}, r"\['small'\] must not have 'chunk'"),
        (
            {"small": {"retries": 1}, "level": {"retries": 2}},
            "'small' and 'level' run in one task, and have different values of 'retries'",
        ),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    tmp_path: Path, arguments: dict[str, dict[str, int]], message: str
) -> None:
    """When the file is parsed."""
    with pytest.raises(InvalidInput, match=message):
        made(TWO_PHASES, catalog(TWO_PHASES, tmp_path), operator_args=arguments)


def test_every_output_is_an_asset(tmp_path: Path) -> None:
    """Named after the pipeline, or as `assets` names it; an outlet of the last task."""
    folder = catalog(TWO_PHASES, tmp_path)
    assert made(TWO_PHASES, folder).get_task("test.publish").outlets == [Asset("made.test.image")]
    assets = {"image": Asset("levels")}
    assert made(TWO_PHASES, folder, assets=assets).get_task("test.publish").outlets == [
        Asset("levels")
    ]


def test_errors_are_raised_when_the_file_is_parsed(tmp_path: Path) -> None:
    """A process without a description, an input that is missing or unknown, a wrong binding."""
    with pytest.raises(InvalidInput, match=r"above, grow, mean.*pesto discover"):
        made(TWO_PHASES, tmp_path)
    folder = catalog(TWO_PHASES, tmp_path)
    with DAG("wrong", schedule=None), pytest.raises(InvalidPipeline, match=r"/sceen.*\n.*/scene: "):
        pesto_pipeline(TWO_PHASES, services=folder, folder="out", inputs={"sceen": "s.tif"})
    wrong: dict[str, JsonValue] = {**TWO_PHASES, "outputs": {"image": "$high.imag"}}
    with pytest.raises(InvalidPipeline, match="imag"):
        made(wrong, folder)


def test_an_overlay_is_what_makes_one_document_the_other() -> None:
    """Changed, added and removed keys; a merge patch gives the other document back."""
    said: JsonValue = {"a": 1, "b": {"c": [1], "d": 2}, "e": 3}
    described: JsonValue = {"a": 1, "b": {"c": [2]}, "f": {"g": 4}}
    patch = overlay_between(said, described)
    assert patch == {"b": {"c": [2], "d": None}, "e": None, "f": {"g": 4}}
