"""One real Airflow for all tests of a session, over a copy of `dags/` to which tests add theirs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from pesto_airflow.trial.rest import AirflowApi
from pesto_airflow.trial.standalone import Standalone, running_standalone
from pesto_runtime.errors import NotFound
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import TaskInstanceState


class InspectedApi(AirflowApi):
    """The REST API of an Airflow, with the requests that only tests send."""

    def runs(self, dag_id: str) -> list[str]:
        """Return the ids of a DAG's runs."""
        path = f"/dags/{quote(dag_id)}/dagRuns"
        return [str(each["dag_run_id"]) for each in self._pages(path, "dag_runs")]

    def note(self, dag_id: str, run_id: str) -> JsonValue:
        """Return the note of a run."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        return self._request("GET", path)["note"]

    def emit_asset_event(self, name: str, extra: Mapping[str, JsonValue]) -> None:
        """Create an event of an Asset, which starts the DAGs that wait for it.

        Raises:
            NotFound: no DAG uses the Asset.
        """
        known = self._pages(f"/assets?name_pattern={quote(name)}", "assets")
        ids = [each["id"] for each in known if each["name"] == name]
        if not ids:
            raise NotFound(f"{self.url} has no Asset {name!r}")
        self._request("POST", "/assets/events", {"asset_id": ids[0], "extra": dict(extra)})

    def clear_failed(self, dag_id: str, run_id: str) -> list[tuple[str, int]]:
        """Clear the failed tasks of a run; return (task, map index) of each."""
        return self._clear(dag_id, run_id, only_failed=True)

    def clear_with_downstream(self, dag_id: str, run_id: str, task: TaskInstanceState) -> None:
        """Clear a task and all tasks after it."""
        ids: JsonValue = [[task.task_id, task.map_index]]
        self._clear(dag_id, run_id, only_failed=False, task_ids=ids, include_downstream=True)

    def _clear(self, dag_id: str, run_id: str, **options: JsonValue) -> list[tuple[str, int]]:
        body: dict[str, JsonValue] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "reset_dag_runs": True,
            **options,
        }
        cleared = self._request("POST", f"/dags/{quote(dag_id)}/clearTaskInstances", body)
        tasks = cleared["task_instances"]
        assert isinstance(tasks, list)
        return [
            (str(each["task_id"]), int(str(each["map_index"])))
            for each in tasks
            if isinstance(each, dict)
        ]

    def log(self, dag_id: str, run_id: str, task: TaskInstanceState) -> str:
        """Return the log of a task's last try, as text."""
        return "\n".join(map(_log_line, self.log_entries(dag_id, run_id, task)))

    def connect(self, conn_id: str, *, is_new: bool = True, **fields: JsonValue) -> None:
        """Create a connection, or replace the fields of one."""
        body: dict[str, JsonValue] = {"connection_id": conn_id, **fields}
        if is_new:
            self._request("POST", "/connections", body)
        else:
            self._request("PATCH", f"/connections/{quote(conn_id)}", body)

    def instances(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, JsonValue]]:
        """Return all fields of a task of a run, of each of its mapped ones."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances"
        return [each for each in self._pages(path, "task_instances") if each["task_id"] == task_id]

    def create(self, kind: str, **fields: JsonValue) -> None:
        """Create an object: one of `pools`, `backfills`."""
        self._request("POST", f"/{kind}", fields)

    def update(self, path: str, **fields: JsonValue) -> None:
        """Change an object: `pools/NAME`, `dags/ID`."""
        self._request("PATCH", f"/{path}", fields)

    def shown(self, dag_id: str, run_id: str, task: TaskInstanceState) -> str:
        """Return all that Airflow shows of a task: fields, rendered templates, XComs, log."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task.task_id)}"
        fields = self._request("GET", path + (f"/{task.map_index}" if task.map_index >= 0 else ""))
        log = self.log_entries(dag_id, run_id, task)
        return json.dumps([fields, self.xcoms(dag_id, run_id, task), *log])

    def xcoms(self, dag_id: str, run_id: str, task: TaskInstanceState) -> dict[str, JsonValue]:
        """Return the XComs of a task, by key."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task.task_id)}"
        path, index = f"{path}/xcomEntries", f"map_index={task.map_index}"
        keys = [str(each["key"]) for each in self._pages(f"{path}?{index}", "xcom_entries")]
        return {key: self._request("GET", f"{path}/{quote(key)}?{index}")["value"] for key in keys}


def _log_line(entry: Mapping[str, JsonValue]) -> str:
    rest = {key: value for key, value in entry.items() if key not in ("timestamp", "event")}
    return f"{entry.get('timestamp', '')} {entry.get('event', '')} {rest}"


class Airflow:
    """A running Airflow, and the actions of tests on it.

    Attributes:
        standalone: Its processes.
        api: Its REST API.
        dags: Its folder of DAG files: those of the repository, and those that tests write.
    """

    def __init__(self, standalone: Standalone, dags: Path) -> None:
        self.standalone = standalone
        self.api = InspectedApi(standalone.url)
        self.dags = dags

    def add(self, dag_id: str, source: str) -> str:
        """Add a DAG's file, wait until Airflow has read it, and return the DAG's id."""
        (self.dags / f"{dag_id}.py").write_text(source)
        self.api.await_dag(dag_id)
        return dag_id

    def run(
        self, dag_id: str, conf: Mapping[str, JsonValue] | None = None, *, timeout_s: float = 240
    ) -> tuple[str, str]:
        """Run a DAG to its end; return the run's id and state."""
        run_id = self.api.trigger(dag_id, conf)
        return run_id, self.api.await_end(dag_id, run_id, timeout_s=timeout_s)

    def task(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1
    ) -> TaskInstanceState:
        """Return one task of a run."""
        tasks = self.api.tasks(dag_id, run_id)
        return next(t for t in tasks if (t.task_id, t.map_index) == (task_id, map_index))

    def logs(self, dag_id: str, run_id: str) -> str:
        """Return the logs of every failed task, to show if a run fails and should not."""
        tasks = [t for t in self.api.tasks(dag_id, run_id) if t.state == "failed"]
        return "\n\n".join(self.api.log(dag_id, run_id, task) for task in tasks)

    def kill(self, component: str) -> None:
        """SIGKILL a part: `scheduler`, `triggerer`."""
        for pid in self._parts(component):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self._parts(component))

    def restart(self, component: str) -> None:
        """Start a part again that was killed."""
        self.standalone.begin(component)
        until(self.api.is_healthy, timeout_s=120)

    def _parts(self, component: str) -> list[int]:
        running = self.standalone.processes()
        return [pid for pid, words in running.items() if words.endswith(f"airflow {component}")]


@contextmanager
def shared_airflow(folder: Path, env: Mapping[str, str]) -> Iterator[Airflow]:
    """Start one in a folder laid out as the repository: `dags/` copied, what it names linked.

    Args:
        folder: Where it lives.
        env: Additional environment variables of its processes.
    """
    dags = folder / "dags"
    shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("workflows", "examples"):
        (folder / name).symlink_to(ROOT / name)
    # It looks for work five times a second by default, which is most of what it does here.
    # The provider of OpenLineage is loaded by each task, and takes seconds.
    calm = {
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        **env,
    }
    with running_standalone(folder / "home", dags, env=calm) as standalone:
        airflow = Airflow(standalone, dags)
        with closing(airflow.api):
            yield airflow


def until(claim: Callable[[], object], *, timeout_s: float = 90) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, f"not true after {timeout_s} s"
        time.sleep(0.1)
