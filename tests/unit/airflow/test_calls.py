"""The preparation of one call: its key, its inputs, and the outputs that it must not return."""

from __future__ import annotations

import doctest
from dataclasses import dataclass, replace

import pytest

from pesto_airflow import process_call
from pesto_airflow.process_call import (
    call_key,
    client_inputs,
    placement,
    require_jobs,
    require_references,
)
from pesto_runtime.client.describing import Described
from pesto_runtime.contract import Description, ImageReference
from pesto_runtime.errors import InvalidInput
from pesto_runtime.processor import load_processor
from tests.support.runs import PROCESSES, ROOT


@dataclass(frozen=True)
class Run:
    """The fields of a task instance that matter; `try_number` must not."""

    dag_id: str = "d"
    run_id: str = "r"
    task_id: str = "t"
    map_index: int = -1
    max_tries: int = 2
    try_number: int = 1


INPUTS: dict[str, object] = {"scene": "file:///a.tif", "level": 2}
OUT = {"image": "file:///b.tif"}


def described(target: str, *, plain: bool = False) -> Described:
    """A process as a service of ours, or a plain PESTO one, describes it."""
    description = load_processor(target).description
    transports = () if plain else ("application/json",)
    return Described(description, transports, "build", description.digest)


def test_a_key_is_the_same_for_every_try_and_another_for_every_other_call() -> None:
    """A retry keeps `max_tries`; a clear counts it up."""
    key = call_key(Run(), INPUTS, OUT)
    assert key == call_key(replace(Run(), try_number=2), dict(reversed(INPUTS.items())), OUT)
    others = [
        call_key(replace(Run(), dag_id="e"), INPUTS, OUT),
        call_key(replace(Run(), run_id="e"), INPUTS, OUT),
        call_key(replace(Run(), task_id="e"), INPUTS, OUT),
        call_key(replace(Run(), map_index=0), INPUTS, OUT),
        call_key(replace(Run(), max_tries=3), INPUTS, OUT),
        call_key(Run(), {**INPUTS, "level": 3}, OUT),
        call_key(Run(), INPUTS, {}),
    ]
    assert len({key, *others}) == 8


def test_inputs_that_are_not_json_have_no_key() -> None:
    """Neither arrays nor NaN cross a task boundary."""
    with pytest.raises(InvalidInput, match="not JSON"):
        call_key(Run(), {"level": float("nan")}, {})


def test_pixels_never_become_a_result() -> None:
    """An image needs an href, which the error spells out; the control has one."""
    mask = described(f"{ROOT}/examples/cloud_mask.py:cloud_mask")
    with pytest.raises(InvalidInput) as caught:
        require_references(mask, {})
    assert "out={'cloud': 's3://bucket/cloud.tif'}" in str(caught.value)
    require_references(mask, {"cloud": "file:///b.tif"})
    with pytest.raises(InvalidInput, match="is not an output; there are cloud"):
        require_references(mask, {"cloud": "file:///b.tif", "clowd": "file:///c.tif"})


def test_json_needs_no_href() -> None:
    """A number is its own reference, also from a plain PESTO service."""
    require_references(described(f"{PROCESSES}:mean"), {})
    require_references(described(f"{PROCESSES}:mean", plain=True), {})


def test_a_plain_pesto_service_writes_nothing_and_may_have_no_jobs() -> None:
    """Both errors have the solution."""
    plain = described(f"{PROCESSES}:grow", plain=True)
    with pytest.raises(InvalidInput, match="stage of a pipeline"):
        require_references(plain, {})
    with pytest.raises(InvalidInput, match="mode='sync'"):
        require_jobs(plain, "durable")
    require_jobs(described(f"{PROCESSES}:grow"), "durable")


def test_images_are_sent_by_reference() -> None:
    """An href, or one with window and bands; an empty input is not sent."""
    ours = described(f"{ROOT}/examples/cloud_mask.py:cloud_mask")
    window = {"href": "file:///a.tif", "window": [0, 0, 8, 8], "bands": [1, 2, 3, 4]}
    assert client_inputs(ours, {"scene": "file:///a.tif", "threshold": None}) == {
        "scene": ImageReference(href="file:///a.tif")
    }
    assert client_inputs(ours, {"scene": window})["scene"] == ImageReference.model_validate(window)
    with pytest.raises(InvalidInput) as caught:
        client_inputs(ours, {"scene": {"hreff": "file:///a.tif"}})
    assert {field.pointer for field in caught.value.fields} >= {"/scene/hreff"}


def test_null_for_a_required_input_is_not_left_out() -> None:
    """A null image is refused by name, a null value is sent; a null optional input is left out."""
    ours = described(f"{PROCESSES}:above")
    with pytest.raises(InvalidInput) as caught:
        client_inputs(ours, {"image": None, "level": 2})
    assert {field.pointer for field in caught.value.fields} == {"/image"}
    ready = client_inputs(ours, {"image": "file:///a.tif", "level": None})
    assert ready == {"image": ImageReference(href="file:///a.tif"), "level": None}
    optional = described(f"{PROCESSES}:fragile")
    assert "broken" not in client_inputs(optional, {"image": "file:///a.tif", "broken": None})


def test_a_plain_pesto_service_reads_its_own_uris() -> None:
    """A string is PESTO's URI, as it always was; a window is read here and sent as pixels."""
    plain = described(f"{PROCESSES}:grow", plain=True)
    assert client_inputs(plain, {"image": "file:///a.tif"}) == {"image": "file:///a.tif"}
    assert isinstance(
        client_inputs(plain, {"image": {"href": "file:///a.tif"}})["image"], ImageReference
    )


@pytest.mark.parametrize(("gpu", "chosen"), [(None, {}), (0, {}), (1, {"pool": "pesto_gpu"})])
def test_a_gpu_chooses_the_pool(gpu: float | None, chosen: dict[str, str]) -> None:
    """As `resources.gpu` of the description declares; also the queue, if one is named."""
    document = load_processor(f"{PROCESSES}:grow").description.to_json()
    description = Description.parse({**document, "resources": {"gpu": gpu}})
    assert placement(description) == chosen
    queued = placement(description, gpu_pool=None, gpu_queue="gpu")
    assert queued == ({"queue": "gpu"} if chosen else {})


def test_the_examples_hold() -> None:
    """Names of calls."""
    assert doctest.testmod(process_call).failed == 0
