"""Real runs of a case: the activities alone, and campaigns on servers of this machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil  # type: ignore[import-untyped]  # it has no types

from benchmarks.conductor import contest
from benchmarks.scale.facts import Fleet, Work
from benchmarks.scale.work import pipeline_of, scenes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import AirflowApi, TaskInstanceState
    from pesto_airflow.trial.standalone import Standalone

TYPES = ("plan_scenes", "process_scenes", "close_scenes", "publish_scenes")
_TILE, _LIMIT_S, _OLD_S = 512, 170.0, 3.0


@dataclass(frozen=True)
class Case:
    """A real run, and what the model is told of it.

    Attributes:
        work: The work; its tiles wait, in the task or in a service.
        workers: Worker processes.
        slots: Tasks at once of each.
        max_tasks: Most tasks.
        service_slots: Worker processes of the service; 0 if the process is not one.
        kill_s: Seconds of the fan-out after which the first worker is killed; 0: never.
    """

    work: Work
    workers: int
    slots: int
    max_tasks: int
    service_slots: int = 0
    kill_s: float = 0.0

    @property
    def fleet(self) -> Fleet:
        """The machines: this one."""
        return Fleet(
            workers=self.workers, slots=self.slots, threads=8 if self.service_slots else 1,
            hosts=1, cores=os.cpu_count() or 1, is_shared=True, max_tasks=self.max_tasks,
            sized_for=self.max_tasks,
        )  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What a real run took.

    Attributes:
        seconds: From its start to its end.
        parts: `plan`, `fan-out`, `close`, `publish` -> seconds, as far as the engine tells.
        tasks: Tasks of the fan-out.
        cpu_s: Processor seconds of the machine in the whole run.
        control_s: Of them, of server or scheduler.
    """

    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    tasks: int = 0
    cpu_s: float = 0.0
    control_s: float = 0.0


class Server(Protocol):
    """An engine that runs cases."""

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case."""


def run_case(server: Server, case: Case, folder: Path) -> Ran:
    """Run a case in a new folder; its tiles must all have been computed.

    Raises:
        RuntimeError: a scene is not complete.
    """
    scenes = scenes_of(folder.parent / "scenes", case.work.scenes, case.work.columns)
    with ExitStack() as stack:
        url = stack.enter_context(_service(case.service_slots)) if case.service_slots else ""
        ran = server.run(case, folder, scenes, url)
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    complete = [each for each in results if each["status"] == "COMPLETE"]
    if len(complete) != case.work.scenes:
        raise RuntimeError(f"{folder}: {len(complete)} of {case.work.scenes} scenes are complete")
    return ran


class _Clock:
    """Seconds since it was made, of the clock and of processors.

    Args:
        control: Processes of the server or scheduler.
    """

    def __init__(self, control: Iterable[int]) -> None:
        self._control = [psutil.Process(pid) for pid in control]
        self._begun, self._cpu, self._before = time.perf_counter(), _busy_s(), self._used_s()

    def read(self) -> Ran:
        """Return a run that began when this was made, and has ended now."""
        return Ran(
            time.perf_counter() - self._begun,
            cpu_s=_busy_s() - self._cpu,
            control_s=self._used_s() - self._before,
        )

    def _used_s(self) -> float:
        times = [each.cpu_times() for each in self._control if each.is_running()]
        return float(sum(each.user + each.system for each in times))


def _busy_s() -> float:
    """Return the processor seconds of this machine since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest)


@contextmanager
def _service(workers: int) -> Iterator[str]:
    import subprocess
    import sys

    import httpx

    from pesto_airflow.trial.standalone import free_port

    port, target = free_port(), f"{Path(__file__).with_name('work.py')}:waiting"
    pesto = Path(sys.executable).with_name("pesto")
    words = [str(pesto), "serve", target, "--port", str(port), "--workers", str(workers),
             "--queue", "256", "--local-files"]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}/api/v1"
        try:
            for _ in range(600):
                try:
                    httpx.get(f"{url}/describe", trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


class OnConductor:
    """Campaigns on a Conductor whose workers are processes of this machine.

    Args:
        url: Base of its REST interface.
        pid: Its process.
    """

    def __init__(self, url: str, pid: int) -> None:
        from pesto_conductor.client import Conductor
        from pesto_conductor.taskdefs import task_definitions

        self._url, self._pid = url, pid
        self._conductor = Conductor(url)
        self._conductor.register_tasks([each.to_json() for each in task_definitions()])

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case on new workers."""
        from pesto_conductor.campaign_definitions import campaign_definition
        from pesto_conductor.client import is_over
        from pesto_runtime.run.planning import shape
        from pesto_runtime.run.services import resolve_services

        pipeline = pipeline_of(case.work.wait_s or case.work.service_s, url)
        services = resolve_services(pipeline, base=Path.cwd())
        made = campaign_definition(
            pipeline, shape(pipeline, services), defaults={"base": str(Path.cwd())}
        )
        inputs: dict[str, JsonValue] = {
            "scenes": [*scenes], "folder": str(folder), "tile": _TILE,
            "max_tasks": case.max_tasks, "workers": case.max_tasks,
        }  # fmt: skip
        types = [f"pesto_{name}" for name in TYPES]
        killed = _Killer(case.kill_s)
        with ExitStack() as stack:
            pids = [
                stack.enter_context(contest.our_worker(self._url, at_once=case.slots, types=types))
                for _ in range(case.workers)
            ]
            time.sleep(1.0)
            clock, begun = _Clock([self._pid]), time.perf_counter()
            identity = self._conductor.start(str(made["name"]), inputs, definition=made)
            while not is_over(self._conductor.workflow(identity, tasks=False)):
                if case.kill_s and not killed.is_armed and self._has_begun(identity):
                    killed.arm(pids[0])
                if time.perf_counter() - begun > _LIMIT_S:
                    raise RuntimeError(f"{folder} did not end within {_LIMIT_S} s")
                time.sleep(0.2)
            taken = clock.read()
        workflow = self._conductor.workflow(identity)
        if workflow["status"] != "COMPLETED":
            raise RuntimeError(str(workflow.get("reasonForIncompletion")))
        parts, count = _parts_of(workflow)
        return replace(taken, parts=parts, tasks=count)

    def _has_begun(self, identity: str) -> bool:
        found = self._conductor.workflow(identity)["tasks"]
        return isinstance(found, list) and any(
            isinstance(each, dict)
            and each["taskType"] == "pesto_process_scenes"
            and each["status"] == "IN_PROGRESS"
            for each in found
        )


class _Killer:
    """Kills a worker and its child some seconds after it is armed."""

    def __init__(self, after_s: float) -> None:
        self.after_s, self.is_armed = after_s, False

    def arm(self, pid: int) -> None:
        self.is_armed = True
        pids = [child.pid for child in psutil.Process(pid).children(recursive=True)]
        threading.Timer(self.after_s, _kill_all, [[pid, *pids]]).start()


def _kill_all(pids: list[int]) -> None:
    """Stop all first, so that none sees the other's end."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def _parts_of(workflow: Mapping[str, JsonValue]) -> tuple[dict[str, float], int]:
    found = workflow["tasks"]
    tasks = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def seconds(kind: str, since: str = "startTime") -> float:
        chosen = [each for each in tasks if each["taskType"] == f"pesto_{kind}_scenes"]
        return (
            max(int(str(e["endTime"])) for e in chosen) - min(int(str(e[since])) for e in chosen)
        ) / 1000

    parts = {"plan": seconds("plan"), "fan-out": seconds("process", "scheduledTime"),
             "close": seconds("close"), "publish": seconds("publish")}  # fmt: skip
    return parts, sum(each["taskType"] == "pesto_process_scenes" for each in tasks)


class OnAirflow:
    """Campaigns on an Airflow whose tasks are processes of this machine.

    Args:
        airflow: A running one.
        dags: Folder of its DAGs.
    """

    def __init__(self, airflow: Standalone, dags: Path) -> None:
        self._airflow, self._dags = airflow, dags

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case in a DAG of its own; its workers are slots."""
        from pesto_airflow.catalog import write_catalog
        from pesto_runtime.run.services import resolve_services

        pipeline = pipeline_of(case.work.wait_s or case.work.service_s, url)
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
        servers = [pid for pid in self._airflow.processes() if _is_control(pid)]
        clock, killed = _Clock(servers), _Killer(case.kill_s)
        run_id, begun = api.trigger(dag_id), time.perf_counter()
        while (state := api.state(dag_id, run_id)) not in ("success", "failed"):
            if case.kill_s and not killed.is_armed:
                running = [t.pid for t in _mapped(api, dag_id, run_id) if t.state == "running"]
                if running and running[0]:
                    killed.arm(running[0])
            if time.perf_counter() - begun > _LIMIT_S:
                raise RuntimeError(f"{folder} did not end within {_LIMIT_S} s")
            time.sleep(0.25)
        taken = clock.read()
        tasks = api.tasks(dag_id, run_id)
        if state != "success":
            raise RuntimeError(f"{dag_id} is {state}")
        parts = {
            name: sum(each.seconds or 0 for each in tasks if each.task_id.endswith(f".{task}"))
            for name, task in (("plan", "plan"), ("close", "finish_w"), ("publish", "publish"))
        }
        return replace(taken, parts=parts, tasks=len(_mapped(api, dag_id, run_id)))


_DAG = """
import json

from airflow.sdk import dag

from pesto_airflow import pesto_campaign


@dag("{dag_id}", schedule=None)
def scale():
    pesto_campaign(**json.loads({settings!r}))


scale()
"""


def _mapped(api: AirflowApi, dag_id: str, run_id: str) -> list[TaskInstanceState]:
    return [each for each in api.tasks(dag_id, run_id) if each.map_index >= 0]


def _is_control(pid: int) -> bool:
    """Whether a process of Airflow is older than the tasks: scheduler, API server and others."""
    return bool(time.time() - psutil.Process(pid).create_time() > _OLD_S)


class OnDask:
    """Runs of one scene after another on a scheduler of this process; it has no campaigns."""

    def run(self, case: Case, folder: Path, scenes: list[str], url: str) -> Ran:
        """Run a case on new workers."""
        import subprocess
        import sys

        from pesto_airflow.trial.standalone import free_port
        from pesto_runtime.clusters.dask_engine import ADDRESS, engine
        from pesto_runtime.engines import RunRequest, SilentListener

        dask, port = Path(sys.executable).with_name("dask"), free_port()
        address = f"tcp://127.0.0.1:{port}"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        killed = _Killer(case.kill_s)
        with ExitStack() as stack:
            processes = [
                stack.enter_context(_running([str(dask), *words], silent))
                for words in (
                    ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
                    *(
                        ["worker", address, "--nthreads", str(case.slots), "--no-nanny",
                         "--no-dashboard", "--memory-limit", "0"]
                        for _ in range(case.workers)
                    ),
                )
            ]  # fmt: skip
            _await_workers(address, case.workers)
            os.environ[ADDRESS] = address
            clock = _Clock([processes[0], os.getpid()])
            for number, scene in enumerate(scenes):
                request = RunRequest(
                    pipeline=pipeline_of(case.work.wait_s or case.work.service_s, url),
                    base=Path.cwd(), inputs={"scene": scene}, folder=folder / str(number),
                    workers=case.max_tasks, tile=_TILE, max_tasks=case.max_tasks,
                )  # fmt: skip
                if case.kill_s:
                    threading.Thread(
                        target=_arm_at_first, args=(killed, processes[1], folder / str(number))
                    ).start()
                engine.run(request, watcher=SilentListener())
            return clock.read()


def _arm_at_first(killer: _Killer, pid: int, folder: Path) -> None:
    while not list(folder.glob(".pesto/plans/*")):
        time.sleep(0.02)
    killer.arm(pid)


def _await_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=60) as client:
        client.wait_for_workers(count, timeout=60)


@contextmanager
def _running(words: list[str], output: Mapping[str, int]) -> Iterator[int]:
    import subprocess

    with subprocess.Popen(words, start_new_session=True, **output) as process:  # type: ignore[call-overload]
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
