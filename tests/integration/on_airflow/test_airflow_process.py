"""Single calls as tasks of a real Airflow: whoever is killed, a service does each of them once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pesto_airflow.trial.standalone import free_port
from tests.contract.serving import ERRANDS, Server, lines_of, served
from tests.support.airflow_standalone import until
from tests.support.busy import busy_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import TaskInstanceState
    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(240)]

MODES = ("sync", "durable", "deferrable")
CALL = """
from datetime import timedelta
from airflow.sdk import DAG
from pesto_airflow import PestoProcessOperator

with DAG("errand_{mode}", schedule=None, params={{}}, render_template_as_native_obj=True):
    PestoProcessOperator(
        task_id="call", mode="{mode}", service="{{{{ params.service }}}}",
        inputs="{{{{ params.inputs }}}}", retries=2, retry_delay=timedelta(seconds=1),
    )
"""
MAPPED = """
from airflow.sdk import DAG
from pesto_airflow import PestoProcessOperator

with DAG("mapped_errands", schedule=None, params={}):
    PestoProcessOperator.partial(
        task_id="call", service="{{ params.service }}", map_index_template="{{ task.label }}"
    ).expand(inputs=[{"path": "{{ params.path }}", "name": name} for name in ("first", "second")])
"""
PATIENT = """
from airflow.sdk import DAG
from pesto_airflow import PestoProcessOperator

with DAG("patient", schedule=None, params={}):
    PestoProcessOperator(
        task_id="call", mode="sync", pesto_conn_id="busy", inputs={"path": "/a", "name": "a"},
        retries=3,
    )
"""


@pytest.fixture(scope="module")
def calls(airflow: Airflow) -> Airflow:
    """Airflow with a DAG of one call for each mode; they call an errand that tells a file."""
    for mode in MODES:
        airflow.add(f"errand_{mode}", CALL.format(mode=mode))
    return airflow


class Errand:
    """A run of a DAG of one call, and what is known of it from outside."""

    def __init__(self, airflow: Airflow, mode: str, service: str, **inputs: JsonValue) -> None:
        self.airflow = airflow
        self.dag_id = f"errand_{mode}"
        conf: dict[str, JsonValue] = {"service": service, "inputs": inputs}
        self.run_id = airflow.api.trigger(self.dag_id, conf)

    @property
    def task(self) -> TaskInstanceState:
        """The call, as Airflow has it."""
        return self.airflow.task(self.dag_id, self.run_id, "call")

    @property
    def told(self) -> dict[str, JsonValue]:
        """What it left as XCom."""
        return self.airflow.api.xcoms(self.dag_id, self.run_id, self.task)

    def require(self, state: str, *, timeout_s: float = 90) -> None:
        """Wait for its end, which must be this one."""
        ended = self.airflow.api.await_end(self.dag_id, self.run_id, timeout_s=timeout_s)
        assert ended == state, self.airflow.api.log(self.dag_id, self.run_id, self.task)


@contextmanager
def errands(folder: Path, *, port: int = 0) -> Iterator[Server]:
    """A service of errands, which keeps its jobs in a folder."""
    options = ("--workers", "2", "--jobs", str(folder / "jobs"), "--port", str(port))
    with served(ERRANDS + "errand", *options) as server:
        yield server


@pytest.mark.parametrize("mode", MODES)
def test_a_call_answers_json_and_leads_to_its_service(
    calls: Airflow, tmp_path: Path, mode: str
) -> None:
    """The outputs are the task's result, each call ran once, and a button leads to the service."""
    path = tmp_path / "told"
    with errands(tmp_path) as server:
        run = Errand(calls, mode, server.url, path=str(path), name="a")
        run.require("success")
        told = run.told
    assert told["return_value"] == {"name": "a"}
    assert told["_link_PestoServiceLink"] == server.url.removesuffix("/api/v1") + "/docs"
    assert lines_of(path) == ["begin a", "end a"]


@pytest.mark.parametrize(("mode", "begun"), [("durable", 1), ("sync", 2)])
def test_a_killed_worker_finds_its_job_again(
    calls: Airflow, tmp_path: Path, mode: str, begun: int
) -> None:
    """Kill -9 of the task: durable submits once. The control, sync, has nothing to find.

    The service stops a call whose caller is gone, so the first of two does not end.
    """
    path, gate = tmp_path / "told", tmp_path / "gate"
    with errands(tmp_path) as server:
        run = Errand(calls, mode, server.url, path=str(path), name="a", gate=str(gate))
        until(lambda: lines_of(path) == ["begin a"])
        until(lambda: run.task.pid is not None)
        os.kill(run.task.pid or 0, signal.SIGKILL)
        until(lambda: run.task.tries == 2 and run.task.state == "running", timeout_s=90)
        until(lambda: len(lines_of(path)) == begun)
        gate.touch()
        run.require("success")
        assert run.told["return_value"] == {"name": "a"}
    assert Counter(lines_of(path)) == {"begin a": begun, "end a": 1}


@pytest.mark.parametrize(("mode", "state"), [("durable", "running"), ("deferrable", "deferred")])
def test_marking_a_task_failed_cancels_its_job(
    calls: Airflow, tmp_path: Path, mode: str, state: str
) -> None:
    """Within 10 s the service has dismissed it, the work has stopped, and does not begin anew."""
    path, gate = tmp_path / "told", tmp_path / "gate"
    with errands(tmp_path) as server:
        run = Errand(calls, mode, server.url, path=str(path), name="a", gate=str(gate))
        until(lambda: run.task.state == state and lines_of(path) == ["begin a"])
        (job_id,) = server("GET", "/jobs").json()
        looks = _looks(server)
        until(lambda: _looks(server) > looks)  # worker or triggerer waits for it
        calls.api.mark(run.dag_id, run.run_id, "failed", task="call")
        until(lambda: server.job(job_id)["state"] == "dismissed", timeout_s=60)
        gate.touch()
        time.sleep(6)  # longer than between two looks of a worker that was told to stop
    assert lines_of(path) == ["begin a"]


def test_a_job_that_nobody_waits_for_ends_with_its_lease(calls: Airflow, tmp_path: Path) -> None:
    """Marked failed while there is no triggerer to cancel it: the service does, after 5 s."""
    path, gate = tmp_path / "told", tmp_path / "gate"
    orphan = CALL.format(mode="deferrable").replace("retries=2", "retries=0, lease_s=5")
    calls.add("errand_orphan", orphan.replace("errand_deferrable", "errand_orphan"))
    with errands(tmp_path) as server:
        run = Errand(calls, "orphan", server.url, path=str(path), name="a", gate=str(gate))
        until(lambda: run.task.state == "deferred" and lines_of(path) == ["begin a"])
        calls.kill("triggerer")
        calls.api.mark(run.dag_id, run.run_id, "failed", task="call")
        time.sleep(6)  # asking the service for the job would renew its lease
        (state,) = [server.job(each)["state"] for each in server("GET", "/jobs").json()] or ["gone"]
        calls.restart("triggerer")
    assert state in ("gone", "dismissed")
    assert lines_of(path) == ["begin a"]


def test_a_triggerer_and_a_service_may_die(calls: Airflow, tmp_path: Path) -> None:
    """Both killed in the middle, and started again: one job, done once."""
    path, gate, port = tmp_path / "told", tmp_path / "gate", free_port()
    with errands(tmp_path, port=port) as server:
        run = Errand(calls, "deferrable", server.url, path=str(path), name="a", gate=str(gate))
        until(lambda: run.task.state == "deferred" and lines_of(path) == ["begin a"])
        calls.kill("triggerer")
        server.process.kill()
        server.process.wait()
    with errands(tmp_path, port=port) as server:
        calls.restart("triggerer")
        gate.touch()
        run.require("success", timeout_s=150)
        assert run.told["return_value"] == {"name": "a"}
        assert len(server("GET", "/jobs").json()) == 1
    assert Counter(lines_of(path)) == {"begin a": 2, "end a": 1}  # the service's own second run


def test_a_wrong_call_is_not_retried(calls: Airflow, tmp_path: Path) -> None:
    """422: failed at the first of three tries, and the log names the field."""
    with errands(tmp_path) as server:
        run = Errand(calls, "durable", server.url, path=str(tmp_path / "told"))
        run.require("failed")
        assert run.task.tries == 1
        assert "/name" in calls.api.log(run.dag_id, run.run_id, run.task)


def test_clearing_a_call_computes_it_anew(calls: Airflow, tmp_path: Path) -> None:
    """A retry finds the job that is there; somebody who clears the task wants another."""
    path = tmp_path / "told"
    with errands(tmp_path) as server:
        run = Errand(calls, "durable", server.url, path=str(path), name="a")
        run.require("success")
        body: dict[str, JsonValue] = {
            "dry_run": False, "only_failed": False, "dag_run_id": run.run_id,
        }  # fmt: skip
        calls.api._request("POST", f"/dags/{run.dag_id}/clearTaskInstances", body)
        until(lambda: run.task.tries == 2)
        run.require("success")
    assert lines_of(path) == ["begin a", "end a"] * 2


def test_mapped_calls_are_named(calls: Airflow, tmp_path: Path) -> None:
    """Each of a mapped call is a task of its own, with inputs rendered and a name in the grid."""
    path = tmp_path / "told"
    calls.add("mapped_errands", MAPPED)
    with errands(tmp_path) as server:
        conf: dict[str, JsonValue] = {"service": server.url, "path": str(path)}
        run_id, state = calls.run("mapped_errands", conf)
        assert state == "success", calls.logs("mapped_errands", run_id)
        names = {task.name for task in calls.api.tasks("mapped_errands", run_id)}
    assert names == {"path=told, name=first", "path=told, name=second"}
    assert Counter(lines_of(path))["end first"] == 1


def test_a_busy_service_is_left_alone_for_as_long_as_it_asks(calls: Airflow) -> None:
    """503 with Retry-After: the task gives its slot back and is tried after 4 s, twice.

    Airflow's own delay would be 300 s: that the run ends in time is the control.
    """
    with busy_service(times=2, retry_after=4) as busy:
        connection: dict[str, JsonValue] = {
            "connection_id": "busy", "conn_type": "pesto", "host": "127.0.0.1",
            "port": busy.port, "extra": json.dumps({"patience": 0}),
        }  # fmt: skip
        calls.api._request("POST", "/connections", connection)
        calls.add("patient", PATIENT)
        run_id, state = calls.run("patient")
        assert state == "success", calls.logs("patient", run_id)
        first, second, third = busy.called
    assert 4 <= second - first < 30
    assert 4 <= third - second < 30
    assert calls.task("patient", run_id, "call").tries == 3


def _looks(server: Server) -> float:
    """How often the service was asked for jobs; asking this does not count."""
    lines = server("GET", "/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith('pesto_requests_total{endpoint="jobs"') and 'status="200"' in line
    )
