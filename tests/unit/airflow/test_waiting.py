"""Submit here, wait there: the arguments about waiting, and the sensor of a job."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from pesto_airflow import PestoJobSensor, PestoProcessOperator
from pesto_airflow.errors import PestoTaskFailed
from pesto_airflow.triggers import PestoJobTrigger
from pesto_runtime.errors import InvalidInput
from tests.contract.serving import Server, lines_of, until
from tests.unit.airflow.test_operators import context, fired

if TYPE_CHECKING:
    from pathlib import Path


def submitted(errands: Server, folder: Path, **inputs: object) -> dict[str, Any]:
    """Submit an errand that waits for a file."""
    call = PestoProcessOperator(
        task_id="t", service=errands.url, wait_for_completion=False,
        inputs={"path": str(folder / "log"), "name": "a", "gate": str(folder / "gate"), **inputs},
    )  # fmt: skip
    return call.execute(context(folder))


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_a_sensor_returns_the_outputs_of_a_job_that_another_task_submitted(
    errands: Server, tmp_path: Path, *, deferrable: bool
) -> None:
    """The submitting task ends at once, and its job has no lease that could end meanwhile."""
    told = submitted(errands, tmp_path)
    job_id = str(told["job_id"])
    assert told["service"] == errands.url
    until(lambda: errands.job(job_id)["state"] == "running")
    assert "lease_until" not in errands.job(job_id)
    sensor = PestoJobSensor(
        task_id="s", job_id=job_id, service=told["service"], deferrable=deferrable,
        poke_interval=0.1,
    )  # fmt: skip
    threading.Timer(0.5, (tmp_path / "gate").touch).start()
    if deferrable:
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context(tmp_path))
        event = fired(deferred.value.trigger)
        result: object = sensor.execute_complete(context(tmp_path), event)  # type: ignore[arg-type]  # JSON
    else:
        assert sensor.poke(context(tmp_path)) is False, "it is not over yet"
        result = sensor.execute(context(tmp_path))
    assert result == {"name": "a"}
    assert lines_of(tmp_path / "log") == ["begin a", "end a"]


def test_a_sensor_fails_with_its_job(errands: Server, tmp_path: Path) -> None:
    """A dismissed job, and an id that the service does not know."""
    job_id = str(submitted(errands, tmp_path)["job_id"])
    errands("DELETE", f"/jobs/{job_id}")
    for each in (job_id, "no-such-job"):
        sensor = PestoJobSensor(task_id="s", job_id=each, service=errands.url, poke_interval=0.1)
        with pytest.raises(PestoTaskFailed, match="job"):
            sensor.execute(context(tmp_path))


@pytest.mark.parametrize(("cancels", "state"), [(True, "dismissed"), (False, "running")])
def test_a_killed_task_cancels_its_job_unless_told_otherwise(
    errands: Server, tmp_path: Path, *, cancels: bool, state: str
) -> None:
    """By the worker and by the triggerer."""
    for way in ("worker", "triggerer"):
        folder = tmp_path / way
        folder.mkdir()
        call = PestoProcessOperator(
            task_id="t", service=errands.url, deferrable=True, cancel_on_kill=cancels,
            inputs={"path": str(folder / "log"), "name": "a", "gate": str(folder / "gate")},
        )  # fmt: skip
        with pytest.raises(TaskDeferred) as deferred:
            call.execute(context(folder))
        trigger = deferred.value.trigger
        assert isinstance(trigger, PestoJobTrigger)
        job_id = trigger.job_id
        until(lambda job_id=job_id: errands.job(job_id)["state"] == "running")  # type: ignore[misc]  # as it is now
        call.on_kill() if way == "worker" else asyncio.run(trigger.on_kill())
        assert errands.job(trigger.job_id)["state"] == state
        errands("DELETE", f"/jobs/{trigger.job_id}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "sync", "deferrable": True}, "mode='sync' and deferrable=True"),
        ({"mode": "deferrable", "deferrable": False}, "mode='deferrable' and deferrable=False"),
        ({"mode": "sync", "wait_for_completion": False}, "mode='sync' waits"),
        ({"poll_interval": 0}, "poll_interval 0 must be above 0"),
        ({"poll_interval": 31}, "at most 30, a quarter of lease_s"),
        ({"poll_interval": 3, "lease_s": 8}, "at most 2"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(
    arguments: dict[str, Any], said: str
) -> None:
    """When the DAG file is read; the control has those that do not."""
    with pytest.raises(InvalidInput, match=said):
        PestoProcessOperator(task_id="t", service="http://h", inputs={}, **arguments)
    call = PestoProcessOperator(
        task_id="t", service="http://h", inputs={}, deferrable=True, mode="deferrable",
        poll_interval=2, lease_s=8,
    )  # fmt: skip
    assert (call.mode, call.poll_interval) == ("deferrable", 2)
