"""Operators, sensor, decorator and triggers, each executed as Airflow would, on real services."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from pesto_airflow.decorators import PestoDecoratedOperator
from pesto_airflow.errors import PestoTaskFailed, PestoTryAgain
from pesto_airflow.hooks import PestoServiceLink
from pesto_airflow.operators.discover import PestoDiscoverOperator
from pesto_airflow.operators.process import MOST_SUBMISSIONS, PestoProcessOperator
from pesto_airflow.sensors import PestoHealthSensor
from pesto_airflow.trial.standalone import free_port
from pesto_airflow.triggers import PestoHealthTrigger, PestoJobTrigger
from pesto_runtime.contract import Description
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import file_href
from tests.contract.serving import Server, lines_of, served, until
from tests.support.busy import busy_service
from tests.support.rasters import pixels_of
from tests.support.runs import ROOT, SCENE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger, TriggerEvent

MASK = ROOT / "dags" / "catalog" / "cloud-mask@1.0.0.json"
OUT = {"cloud": "{{ params.out }}"}


@dataclass(frozen=True)
class Run:
    """The fields of a task instance that are read: those that a key is made of, and tags."""

    stats_tags: ClassVar[dict[str, str]] = {}

    run_id: str
    dag_id: str = "d"
    task_id: str = "t"
    map_index: int = -1
    max_tries: int = 0


def context(run_id: object) -> Context:
    """What of Airflow's context the operators read; no task state store, as under `dag.test`."""
    return {"ti": Run(str(run_id))}  # type: ignore[typeddict-item]  # the fields that are read


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A service of cloud masks, and the folder that it may write to."""
    folder = tmp_path_factory.mktemp("masks")
    options = ("--workers", "1", "--allow", str(folder))
    with served("examples/cloud_mask.py:cloud_mask", *options) as server:
        yield server, folder


def fired(trigger: BaseTrigger) -> dict[str, object]:
    """The payload of a trigger, run to its event as another triggerer would make it again."""
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    again = type(trigger)(**json.loads(json.dumps(arguments)))

    async def first() -> TriggerEvent:
        return await anext(aiter(again.run()))

    payload: dict[str, object] = asyncio.run(first()).payload
    return payload


@pytest.mark.parametrize("mode", ["sync", "durable", "deferrable"])
def test_an_image_is_written_by_the_service_and_its_href_is_the_result(
    masks: tuple[Server, Path], mode: str
) -> None:
    """In every mode; it is an outlet too, so that other DAGs may wait for it."""
    server, folder = masks
    out = folder / f"{mode}.tif"
    call = PestoProcessOperator(
        task_id="t", mode=mode, service=server.url, inputs={"scene": file_href(SCENE)},  # type: ignore[arg-type]  # one of three
        out={"cloud": file_href(out)},
    )  # fmt: skip
    if mode == "deferrable":
        with pytest.raises(TaskDeferred) as deferred:
            call.execute(context(out))
        event = fired(deferred.value.trigger)
        result = call.execute_complete(context(out), event)  # type: ignore[arg-type]  # JSON
    else:
        result = call.execute(context(out))
    assert result == {"cloud": file_href(out)}
    assert call.outlets == [Asset(file_href(out))]
    assert pixels_of(out).shape[0] == 1


def test_an_image_without_an_href_is_refused_before_the_call(masks: tuple[Server, Path]) -> None:
    """The error spells out what to add, and the service has not been called."""
    server, _ = masks
    call = PestoProcessOperator(task_id="t", service=server.url, inputs={"scene": "file:///no.tif"})
    with pytest.raises(PestoTaskFailed, match=r"out=\{'cloud': 's3://bucket/cloud.tif'\}"):
        call.execute(context("refused"))
    assert 'endpoint="process",status="4' not in server("GET", "/metrics").text


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        ({"scen": "s"}, OUT, r"/inputs/scen: is not an input; did you mean 'scene'\?"),
        ({}, {}, r"/out/cloud: is an image: .*out=\{'cloud': "),
        ({}, {**OUT, "mask": "file:///m.tif"}, "/out/mask: is not an output; there are cloud"),
    ],
)
def test_what_was_saved_finds_a_wrong_name_when_the_dag_is_read(
    inputs: dict[str, object], out: dict[str, str], message: str
) -> None:
    """No service is contacted. The controls: right names, templates as names, nothing saved."""
    with pytest.raises(InvalidInput, match=message):
        PestoProcessOperator(task_id="t", saved=MASK, inputs=inputs, out=out)
    PestoProcessOperator(task_id="t", saved=MASK, inputs={"scene": "s"}, out=OUT)
    PestoProcessOperator(
        task_id="t", saved=MASK, inputs={"{{ name }}": 1}, out={"{{ name }}": "{{ href }}"}
    )
    PestoProcessOperator(task_id="t", service="http://127.0.0.1:1", inputs=inputs, out=out)


def test_a_service_that_drifted_from_its_pin_is_not_called(
    masks: tuple[Server, Path], tmp_path: Path
) -> None:
    """The change that breaks is named; the control, what was really saved, passes."""
    server, folder = masks
    document = json.loads(MASK.read_text())
    document["description"]["input"]["properties"]["scene"]["x-raster"]["margin"] = 1
    wrong = tmp_path / "cloud-mask@1.0.0.json"
    wrong.write_text(json.dumps(document))
    for call in (
        PestoProcessOperator(task_id="t", service=server.url, saved=wrong, inputs={}, out=OUT),
        PestoDiscoverOperator(task_id="t", service=server.url, pin=wrong),
    ):
        with pytest.raises(AirflowFailException, match="/input/properties/scene/x-raster/margin"):
            call.execute(context("drift"))
    right = PestoDiscoverOperator(task_id="t", service=server.url, pin=MASK, save=folder / "saved")
    result = right.execute(context("drift"))
    assert (result["digest"], result["changes"]) == (document["digest"], [])
    saved = json.loads((folder / "saved" / "cloud-mask@1.0.0.json").read_text())
    assert saved["digest"] == Description.parse(saved["description"]).digest == result["digest"]


def test_a_digest_is_a_pin_too(errands: Server) -> None:
    """Any change of the description fails; without a folder the description is the result."""
    result = PestoDiscoverOperator(task_id="t", service=errands.url).execute(context("pin"))
    assert result["description"]["name"] == result["name"] == "errand"  # type: ignore[index, call-overload]  # a description
    pinned = PestoDiscoverOperator(task_id="t", service=errands.url, pin=str(result["digest"]))
    assert pinned.execute(context("pin"))["digest"] == result["digest"]
    other = PestoDiscoverOperator(task_id="t", service=errands.url, pin="sha256:0")
    with pytest.raises(PestoTaskFailed, match="pinned to sha256:0"):
        other.execute(context("pin"))


def test_a_try_after_a_try_is_the_same_job(errands: Server, tmp_path: Path) -> None:
    """Even with nothing remembered: the key alone finds it."""
    inputs = {"path": str(tmp_path / "log"), "name": "a"}
    for _ in range(2):
        call = PestoProcessOperator(task_id="t", service=errands.url, inputs=inputs, mode="durable")
        assert call.execute(context(tmp_path)) == {"name": "a"}
    assert lines_of(tmp_path / "log") == ["begin a", "end a"]


def test_a_lost_job_is_submitted_again_but_not_for_ever(errands: Server, tmp_path: Path) -> None:
    """Dismissed behind the task's back, thrice: then it is the task's retries that count."""
    inputs = {"path": str(tmp_path / "log"), "name": "a", "gate": str(tmp_path / "gate")}
    call = PestoProcessOperator(
        task_id="t", service=errands.url, inputs=inputs, mode="deferrable", lease_s=60
    )
    with pytest.raises(TaskDeferred) as deferred:
        call.execute(context(tmp_path))
    for submissions in range(1, MOST_SUBMISSIONS):
        event = _dismissed(errands, deferred.value.trigger)
        with pytest.raises(TaskDeferred) as deferred:
            call.execute_complete(context(tmp_path), event, submissions)  # type: ignore[arg-type]  # JSON
        assert deferred.value.kwargs == {"submissions": submissions + 1}
    event = _dismissed(errands, deferred.value.trigger)
    with pytest.raises(PestoTryAgain, match="lost each time"):
        call.execute_complete(context(tmp_path), event, MOST_SUBMISSIONS)  # type: ignore[arg-type]  # JSON


def _dismissed(server: Server, trigger: BaseTrigger) -> dict[str, object]:
    """The event of a trigger whose job is dismissed meanwhile."""
    assert isinstance(trigger, PestoJobTrigger)
    server("DELETE", f"/jobs/{trigger.job_id}")
    event = fired(trigger)
    assert event["fate"] == "lost"
    return event


def test_killing_a_task_cancels_its_job(errands: Server, tmp_path: Path) -> None:
    """By the worker's hand and by the triggerer's; a second time does no harm."""
    inputs = {"path": str(tmp_path / "log"), "name": "a", "gate": str(tmp_path / "gate")}
    call = PestoProcessOperator(task_id="t", service=errands.url, inputs=inputs, mode="deferrable")
    with pytest.raises(TaskDeferred) as deferred:
        call.execute(context(tmp_path))
    trigger = deferred.value.trigger
    assert isinstance(trigger, PestoJobTrigger)
    until(lambda: errands.job(trigger.job_id)["state"] == "running")
    asyncio.run(trigger.on_kill())
    assert errands.job(trigger.job_id)["state"] == "dismissed"
    asyncio.run(trigger.on_kill())
    with pytest.raises(TaskDeferred) as deferred:
        call.execute(context(tmp_path))
    again = deferred.value.trigger
    assert isinstance(again, PestoJobTrigger)
    assert again.job_id != trigger.job_id
    call.on_kill()
    assert errands.job(again.job_id)["state"] == "dismissed"


def test_a_busy_service_gives_the_slot_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the connection's patience the task ends with the service's own Retry-After."""
    with busy_service(times=9, retry_after=17) as service:
        document = {"conn_type": "pesto", "host": "127.0.0.1", "port": service.port}
        monkeypatch.setenv("AIRFLOW_CONN_B", json.dumps({**document, "extra": {"patience": 1}}))
        call = PestoProcessOperator(
            task_id="t", mode="sync", pesto_conn_id="b", inputs={"path": "/a", "name": "a"}
        )
        with pytest.raises(PestoTryAgain) as caught:
            call.execute(context("busy"))
    assert caught.value.retry_after_s == 17
    assert len(service.called) == 1


def test_a_decorated_function_makes_the_inputs(errands: Server, tmp_path: Path) -> None:
    """What it returns is data: braces in it are not templates. Anything but a dict is refused."""

    def inputs(path: str) -> object:
        return {"path": path, "name": "{{ 7 * 7 }}"} if path else ["no", "dict"]

    def decorated(path: str) -> PestoDecoratedOperator:
        return PestoDecoratedOperator(
            task_id="t", python_callable=inputs, op_kwargs={"path": path}, service=errands.url
        )

    assert decorated(str(tmp_path / "log")).execute(context(tmp_path)) == {"name": "{{ 7 * 7 }}"}
    with pytest.raises(PestoTaskFailed, match="must return a dict"):
        decorated("").execute(context(tmp_path))


def test_a_sensor_waits_for_a_service_and_gives_up_on_a_broken_one(errands: Server) -> None:
    """Ready, not there yet, and set up wrongly; in the worker and in the triggerer."""
    ready = PestoHealthSensor(task_id="t", service=errands.url, deferrable=True)
    ready.execute(context("health"))
    assert fired(_health_trigger(errands.url)) == {"health": "OK"}
    absent = PestoHealthSensor(
        task_id="t", service=f"http://127.0.0.1:{free_port()}", deferrable=True
    )
    with pytest.raises(TaskDeferred):
        absent.execute(context("health"))
    with busy_service(times=0, retry_after=1) as service:
        service.health = "FAILED"
        assert fired(_health_trigger(service.url)) == {"health": "FAILED"}
        broken = PestoHealthSensor(task_id="t", service=service.url)
        with pytest.raises(PestoTaskFailed, match="set-up failed"):
            broken.execute(context("health"))


def _health_trigger(url: str) -> PestoHealthTrigger:
    return PestoHealthTrigger(service=url, pesto_conn_id=None, poll_s=0.1)


def test_a_gpu_in_the_saved_description_chooses_the_pool(tmp_path: Path) -> None:
    """Unless the task sets another; the URL of the saved description is the service."""
    path = tmp_path / "mask.json"
    path.write_text(
        json.dumps({**json.loads(MASK.read_text()), "overlay": {"resources": {"gpu": 1}}})
    )
    with DAG("d"):
        chosen = PestoProcessOperator(task_id="a", saved=path, inputs={}, out=OUT)
        own = PestoProcessOperator(task_id="b", saved=path, inputs={}, out=OUT, pool="mine")
        none = PestoProcessOperator(task_id="c", saved=MASK, inputs={}, out=OUT)
    assert [each.pool for each in (chosen, own, none)] == ["pesto_gpu", "mine", "default_pool"]
    link = PestoServiceLink().get_link(none, ti_key=None)  # type: ignore[arg-type]  # it needs none
    assert link == json.loads(MASK.read_text())["url"] + "/docs"
