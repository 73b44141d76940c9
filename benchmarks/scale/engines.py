"""The engines of the real runs, all of whose processes are on this machine."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it has no types

from benchmarks.conductor import contest
from benchmarks.scale.runs import Clock, Ran, follow
from benchmarks.scale.work import pipeline_of
from pesto_airflow.catalog import write_catalog
from pesto_airflow.trial.standalone import free_port
from pesto_conductor.campaign_definitions import campaign_definition
from pesto_conductor.client import Conductor, is_over
from pesto_conductor.taskdefs import task_definitions
from pesto_runtime.engines import RunRequest, SilentListener
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pydantic import JsonValue

    from benchmarks.scale.runs import Case
    from pesto_airflow.trial.rest import TaskInstanceState
    from pesto_airflow.trial.standalone import Standalone

_TILE, _OLD_S = 512, 3.0
_VERBS = {"plan": "plan_scenes", "fan-out": "process_scenes", "close": "close_scenes",
          "publish": "publish_scenes"}  # fmt: skip
_DAG = """
import json

from airflow.sdk import dag

from pesto_airflow import pesto_campaign


@dag("{dag_id}", schedule=None)
def scale():
    pesto_campaign(**json.loads({settings!r}))


scale()
"""


class _Workers:
    """Worker processes that stay from case to case, until another number is needed or one dies."""

    def __init__(self, start: Callable[[int], AbstractContextManager[int]]) -> None:
        self._start, self._stack = start, ExitStack()
        self._pids: list[int] = []
        self._slots = 0

    def take(self, case: Case) -> list[int]:
        """Return the processes of so many workers with so many slots."""
        are_alive = all(psutil.pid_exists(pid) for pid in self._pids)
        if (len(self._pids), self._slots) != (case.workers, case.slots) or not are_alive:
            self._stack.close()
            started = (
                self._stack.enter_context(self._start(case.slots)) for _ in range(case.workers)
            )
            self._pids, self._slots = list(started), case.slots
            time.sleep(1.0)
        return self._pids

    def close(self) -> None:
        """Stop them."""
        self._stack.close()


class OnConductor:
    """Campaigns on a Conductor.

    Args:
        url: Base of its REST interface.
        pid: Its process.
    """

    def __init__(self, url: str, pid: int) -> None:
        types = [f"pesto_{name}" for name in _VERBS.values()]
        self._pid, self._conductor = pid, Conductor(url)
        self._conductor.register_tasks([each.to_json() for each in task_definitions()])
        self._workers = _Workers(lambda n: contest.our_worker(url, at_once=n, types=types))
        self.close = self._workers.close

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case."""
        pipeline = pipeline_of(case.pause_s, url)
        phases = shape(pipeline, resolve_services(pipeline, base=Path.cwd()))
        made = campaign_definition(pipeline, phases, defaults={"base": str(Path.cwd())})
        inputs: dict[str, JsonValue] = {
            "scenes": [*scenes], "folder": str(folder), "tile": _TILE,
            "max_tasks": case.max_tasks, "workers": case.max_tasks,
        }  # fmt: skip
        pids = self._workers.take(case)
        clock = Clock([self._pid])
        identity = self._conductor.start(str(made["name"]), inputs, definition=made)
        follow(
            lambda: is_over(self._conductor.workflow(identity, tasks=False)),
            lambda: pids[0] if self._is_running(identity) else None,
            case.kill_s,
        )
        return clock.read(self._parts(identity))

    def _tasks(self, identity: str, part: str) -> list[dict[str, JsonValue]]:
        found = self._conductor.workflow(identity)["tasks"]
        tasks = (
            [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        )
        return [each for each in tasks if each["taskType"] == f"pesto_{_VERBS[part]}"]

    def _is_running(self, identity: str) -> bool:
        return any(each["status"] == "IN_PROGRESS" for each in self._tasks(identity, "fan-out"))

    def _parts(self, identity: str) -> dict[str, float]:
        parts = {}
        for part in _VERBS:
            tasks = self._tasks(identity, part)
            begun = min(int(str(each["scheduledTime"])) for each in tasks)
            parts[part] = (max(int(str(each["endTime"])) for each in tasks) - begun) / 1000
        return parts


class OnAirflow:
    """Campaigns on an Airflow; its slots are the workers.

    Args:
        airflow: A running one.
        dags: Folder of its DAGs.
    """

    def __init__(self, airflow: Standalone, dags: Path) -> None:
        self._airflow, self._dags = airflow, dags

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case in a DAG of its own."""
        pipeline = pipeline_of(case.pause_s, url)
        catalog, dag_id = self._dags / f"catalog_{folder.name}", f"scale_{folder.name}"
        write_catalog(resolve_services(pipeline, base=Path.cwd()).found.values(), catalog)
        settings = {
            "pipeline": pipeline.to_json(), "services": str(catalog), "scenes": scenes,
            "folder": str(folder), "tile": _TILE, "workers": case.max_tasks,
            "max_tasks": case.max_tasks, "max_active_tasks": case.workers * case.slots,
        }  # fmt: skip
        text = _DAG.format(dag_id=dag_id, settings=json.dumps(settings))
        (self._dags / f"{dag_id}.py").write_text(text)
        api = self._airflow.api
        api.await_dag(dag_id)
        clock = Clock(pid for pid in self._airflow.processes() if _is_server(pid))
        run_id = api.trigger(dag_id)

        def victim() -> int | None:
            return next((t.pid for t in tasks() if t.map_index >= 0 and t.state == "running"), None)

        def tasks() -> list[TaskInstanceState]:
            return api.tasks(dag_id, run_id)

        follow(lambda: api.state(dag_id, run_id) in ("success", "failed"), victim, case.kill_s)
        seconds = {each.task_id.rpartition(".")[2]: each.seconds or 0.0 for each in tasks()}
        names = {"plan": "plan", "close": "finish_w", "publish": "publish"}
        return clock.read({part: seconds[name] for part, name in names.items()})


def _is_server(pid: int) -> bool:
    """Whether a process of Airflow is older than any task: scheduler, API server and others."""
    return bool(time.time() - psutil.Process(pid).create_time() > _OLD_S)


class OnDask:
    """Runs of one scene after another on a scheduler with workers; Dask has no campaigns."""

    def __init__(self) -> None:
        dask, address = (
            str(Path(sys.executable).with_name("dask")),
            f"tcp://127.0.0.1:{free_port()}",
        )
        words = [dask, "scheduler", "--host", address, "--no-dashboard"]
        self._stack = ExitStack()
        self._pid = self._stack.enter_context(contest.running(words, "Scheduler at:"))
        worker = [dask, "worker", address, "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        self._workers = _Workers(
            lambda n: contest.running([*worker, "--nthreads", str(n)], "Registered to:")
        )
        self._address = address

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case."""
        from pesto_runtime.clusters.dask_engine import ADDRESS, engine

        os.environ[ADDRESS] = self._address
        pids = self._workers.take(case)

        def work() -> None:
            for number, scene in enumerate(scenes):
                request = RunRequest(
                    pipeline=pipeline_of(case.pause_s, url), base=Path.cwd(),
                    inputs={"scene": scene}, folder=folder / str(number),
                    workers=case.max_tasks, tile=_TILE, max_tasks=case.max_tasks,
                )  # fmt: skip
                engine.run(request, watcher=SilentListener())

        def victim() -> int | None:
            return pids[0] if list(folder.glob("*/.pesto/*")) else None

        clock = Clock([self._pid, os.getpid()])
        runner = threading.Thread(target=work)
        runner.start()
        follow(lambda: not runner.is_alive(), victim, case.kill_s)
        return clock.read()

    def close(self) -> None:
        """Stop scheduler and workers."""
        self._workers.close()
        self._stack.close()
