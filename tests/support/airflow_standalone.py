"""One real Airflow for all tests of a session, over a copy of `dags/` to which tests add theirs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pesto_airflow.trial.standalone import Standalone, running_standalone
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import TaskInstanceState


class Airflow:
    """A running Airflow, and what tests do to it.

    Attributes:
        standalone: Its processes.
        api: Its REST API.
        dags: Its folder of DAG files: those of the repository, and what tests write.
    """

    def __init__(self, standalone: Standalone, dags: Path) -> None:
        self.standalone = standalone
        self.api = standalone.api
        self.dags = dags

    def add(self, dag_id: str, source: str) -> str:
        """Add a DAG's file, and wait until Airflow has read it; answers the DAG's id."""
        (self.dags / f"{dag_id}.py").write_text(source)
        self.api.await_dag(dag_id)
        return dag_id

    def run(
        self, dag_id: str, conf: Mapping[str, JsonValue] | None = None, *, timeout_s: float = 90
    ) -> tuple[str, str]:
        """Run a DAG to its end; answers the run's id and state."""
        run_id = self.api.trigger(dag_id, conf)
        return run_id, self.api.await_end(dag_id, run_id, timeout_s=timeout_s)

    def task(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1
    ) -> TaskInstanceState:
        """One task of a run."""
        tasks = self.api.tasks(dag_id, run_id)
        return next(t for t in tasks if (t.task_id, t.map_index) == (task_id, map_index))

    def logs(self, dag_id: str, run_id: str) -> str:
        """The logs of every task that failed: what to show when a run is red and should not be."""
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
        until(self.api.is_healthy, timeout_s=60)

    def _parts(self, component: str) -> list[int]:
        running = self.standalone.processes()
        return [pid for pid, words in running.items() if words.endswith(f"airflow {component}")]


@contextmanager
def shared_airflow(folder: Path) -> Iterator[Airflow]:
    """Start one in a folder laid out as the repository: `dags/` copied, what it names linked."""
    dags = folder / "dags"
    shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("workflows", "examples"):
        (folder / name).symlink_to(ROOT / name)
    with running_standalone(folder / "home", dags) as standalone:
        yield Airflow(standalone, dags)


def until(claim: Callable[[], object], *, timeout_s: float = 30) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, f"not true after {timeout_s} s"
        time.sleep(0.1)
