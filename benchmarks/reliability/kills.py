"""SIGKILL runs at random moments until each is complete: same bytes, nothing left over.

What is killed: the command, a worker process of it, a service or a worker process of a service.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.reliability.scenario import PESTO, Scenario, scenario, undisturbed
from pesto_runtime.client.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SHM = Path("/dev/shm")  # noqa: S108  # it is looked at, not written
_MOST_STARTS = 40
_KILLS_OF_A_START = 3
_EARLY_S = (0.2, 2.5)
_LATE = 0.5
"""Share of the runs that are killed after their last tile."""


@dataclass
class Tally:
    """The outcome of a campaign.

    Attributes:
        kills: What was killed -> how often.
        late: Kills after the last tile.
        runs: Complete runs.
        complaints: What was wrong.
    """

    kills: Counter[str] = field(default_factory=Counter)
    late: int = 0
    runs: int = 0
    complaints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} x {name}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({told}), {self.late} after the last tile, "
            f"{self.runs} complete runs, {len(self.complaints)} complaints"
        )


def campaign(count: int, *, seed: int, tell: Callable[[str], None]) -> Tally:
    """Kill `count` times in turn: threads, processes, services.

    Args:
        count: Number of kills.
        seed: Of the moments.
        tell: Receives a line for each complete run.
    """
    dice, tally = random.Random(seed), Tally()  # noqa: S311  # moments, not secrets
    shared = {path.name for path in _SHM.iterdir()}
    with ExitStack() as stack:
        threads = stack.enter_context(scenario("--workers", "2"))
        children = stack.enter_context(scenario("--workers", "2", "--executor", "processes"))
        remote = stack.enter_context(scenario("--workers", "2"))
        places = [(each, undisturbed(each)) for each in (threads, children, remote)]
        number = 0
        while tally.kills.total() < count:
            place, expected = places[number % len(places)]
            out = place.root / f"out{number}"
            number += 1
            with _services(place) if place is remote else _nothing() as services:
                given = Scenario(place.root, place.options, services.options)
                _run_with_kills(given, out, dice, tally, services)
            complaint = given.complaint(out, expected)
            if complaint:
                tally.complaints.append(f"{out.name}: {complaint}")
            tally.runs += 1
            tell(f"{tally}{': ' + complaint if complaint else ''}")
    left = {path.name for path in _SHM.iterdir()} - shared
    if left:
        tally.complaints.append(f"shared memory: {sorted(left)}")
    return tally


def _run_with_kills(
    given: Scenario, out: Path, dice: random.Random, tally: Tally, services: _Services
) -> None:
    """Start a run again and again, killing something in each, until a start completes it."""
    is_late = dice.random() < _LATE
    for _ in range(_MOST_STARTS):
        services.await_all()
        process = given.start(out)
        for _ in range(_KILLS_OF_A_START):
            moment = _late(out, process, dice) if is_late else dice.uniform(*_EARLY_S)
            with suppress(subprocess.TimeoutExpired):
                process.wait(moment)
                break
            victim, name = _victim(process, dice, services)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                tally.kills[name] += 1
                tally.late += is_late
            if victim == process.pid:
                break
            services.revive()
        told = process.communicate()[1]
        if process.returncode == 0:
            return
        if process.returncode != -signal.SIGKILL:
            tally.complaints.append(f"{out.name}: exit code {process.returncode}: {told[-500:]}")
    last = given.start(out)  # kills may come faster than any progress: this one is left alone
    told = last.communicate()[1]
    if last.returncode:
        tally.complaints.append(f"{out.name}: exit code {last.returncode}: {told[-500:]}")


def _late(out: Path, process: subprocess.Popen[str], dice: random.Random) -> float:
    """Wait until the last tile is done, and return how long to wait after that, seconds."""
    begun, deadline = time.time(), time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        published = [*out.glob("*"), *(out / ".pesto").glob("*.*")]
        if any(_written_at(path) > begun for path in published if path.name != "owner.json"):
            break
        time.sleep(0.002)
    return dice.choice((0.0, dice.uniform(0, 0.1), dice.uniform(0, 1), dice.uniform(0, 12)))


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime if path.is_file() else 0.0
    except FileNotFoundError:
        return 0.0


def _victim(
    process: subprocess.Popen[str], dice: random.Random, services: _Services
) -> tuple[int, str]:
    """Choose the command, one of its processes, a service, or one of its processes."""
    found = [(process.pid, "command")]
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        found += [(child.pid, "worker process") for child in children]
    found += services.victims()
    return dice.choice(found)


class _Services:
    """The services of a run: none."""

    options: tuple[str, ...] = ()

    def victims(self) -> list[tuple[int, str]]:
        """Return the processes that may be killed."""
        return []

    def revive(self) -> None:
        """Start again what was killed."""

    def await_all(self) -> None:
        """Wait until all of them answer: planning does not wait for a service."""


class _RunningServices(_Services):
    """A service for each process of the pipeline."""

    def __init__(self, place: Scenario) -> None:
        self._place = place
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for number, name in enumerate(("grow", "mean", "above")):
            self._ports = {**getattr(self, "_ports", {}), name: 28310 + number}
            self._start(name)
        self.options = tuple(f"{n}=http://127.0.0.1:{p}" for n, p in self._ports.items())

    def _start(self, name: str) -> None:
        target = Path(__file__).with_name("processes.py")
        self._running[name] = subprocess.Popen(
            [*PESTO, "serve", f"{target}:{name}", "--port", str(self._ports[name]),
             "--workers", "2", "--allow", str(self._place.root)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(self._place.root / "tmp")},
        )  # fmt: skip

    def victims(self) -> list[tuple[int, str]]:
        """Return the services and their worker processes."""
        found = []
        for each in self._running.values():
            found.append((each.pid, "service"))
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(each.pid).children(recursive=True)
                found += [(child.pid, "worker process of a service") for child in children]
        return found

    def revive(self) -> None:
        """Start a service again that was killed; a run waits for it, a new start would not."""
        time.sleep(0.2)
        for name, each in list(self._running.items()):
            if each.poll() is not None:
                self._start(name)

    def await_all(self) -> None:
        """Wait until all of them answer: planning does not wait for a service."""
        self.revive()
        for port in self._ports.values():
            with Client(f"http://127.0.0.1:{port}", retries=1000) as client:
                client.describe()

    def close(self) -> None:
        """End all services."""
        for each in self._running.values():
            each.terminate()
        for each in self._running.values():
            each.wait()


@contextmanager
def _services(place: Scenario) -> Iterator[_Services]:
    services = _RunningServices(place)
    try:
        yield services
    finally:
        services.close()


@contextmanager
def _nothing() -> Iterator[_Services]:
    yield _Services()


def summary(tally: Tally) -> str:
    """Return the figures of a campaign in one line."""
    return str(tally)
