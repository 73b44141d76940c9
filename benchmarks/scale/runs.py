"""Run a case for real, watch its time and its processors, and kill a worker of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil  # type: ignore[import-untyped]  # it has no types

from benchmarks.conductor import contest
from benchmarks.scale.facts import Fleet, Work
from benchmarks.scale.work import scenes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LIMIT_S = 170.0


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
    def pause_s(self) -> float:
        """Seconds of a tile."""
        return self.work.wait_s or self.work.service_s

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
        cpu_s: Processor seconds of the machine in the whole run.
        control_s: Of them, of server or scheduler.
    """

    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)
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
        url = ""
        if case.service_slots:
            target = f"{Path(__file__).with_name('work.py')}:waiting"
            many = ("--workers", str(case.service_slots), "--queue", "256")
            url = stack.enter_context(contest.service(target, *many))
        ran = server.run(case, folder, scenes, url)
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    complete = [each for each in results if each["status"] == "COMPLETE"]
    if len(complete) != case.work.scenes:
        raise RuntimeError(f"{folder}: {len(complete)} of {case.work.scenes} scenes are complete")
    return ran


class Clock:
    """Seconds since it was made, of the clock and of processors.

    Args:
        control: Processes of the server or scheduler.
    """

    def __init__(self, control: Iterable[int]) -> None:
        self._control = [psutil.Process(pid) for pid in control]
        self._begun, self._cpu, self._before = time.perf_counter(), _busy_s(), self._used_s()

    def read(self, parts: Mapping[str, float] = {}) -> Ran:
        """Return a run that began when this was made, and ended when `follow` saw it."""
        return Ran(
            time.perf_counter() - self._begun,
            parts,
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


def follow(is_over: Callable[[], bool], victim: Callable[[], int | None], kill_s: float) -> None:
    """Wait for the end of a run; kill a process so many seconds after there is one, 0: never.

    Raises:
        TimeoutError: it did not end.
    """
    begun = time.perf_counter()
    while not is_over():
        if kill_s and (pid := victim()):
            threading.Timer(kill_s, _kill, [pid]).start()
            kill_s = 0.0
        if time.perf_counter() - begun > _LIMIT_S:
            raise TimeoutError(f"the run did not end within {_LIMIT_S:g} s")
        time.sleep(0.2)


def _kill(pid: int) -> None:
    """Kill a process and those below it; all are stopped first, so that none sees an end."""
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in family:
            os.kill(each, number)
