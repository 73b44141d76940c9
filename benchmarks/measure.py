"""Run one contestant in a process of its own: seconds, memory, and who else used the machine."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contestants.child import TIMING, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SAMPLE_S = 0.05
_LIMIT_S = 900
_ROOT = Path(__file__).parents[1]


class ContestantFailed(Exception):
    """A contestant ended with an error; tells the end of what it said."""


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        seconds: Of the work, imports excluded.
        whole_seconds: From starting the process to its end, imports included.
        cpu_seconds: Of the process and its children.
        others: Share of all cores that was busy with something else, 0 to 1.
        peak_bytes: Highest sum of PSS over the process tree; None where it was not sampled.
        after_seconds: Of `seconds`, what came after the product was there.
    """

    seconds: float
    whole_seconds: float
    cpu_seconds: float
    others: float
    peak_bytes: int | None
    after_seconds: float = 0.0


def measure(
    module: str,
    task: Task,
    *,
    python: Path = Path(sys.executable),
    environment: Mapping[str, str] | None = None,
    with_memory: bool = False,
) -> Measured:
    """Run a contestant once.

    Args:
        module: Of its program.
        task: What it is to do.
        python: Interpreter.
        environment: Variables to set beside this process's own.
        with_memory: Whether to sample memory, which slows what has much of it.

    Raises:
        ContestantFailed: it ended with an error, or took over 15 minutes.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(asdict(task)))
        file.flush()
        command = [str(python), "-m", module, file.name]
        with _clock() as clock:
            peak = _run(command, environment or {}, with_memory=with_memory)
    timing = json.loads(Path(task.out, TIMING).read_text())
    return Measured(
        seconds=timing["seconds"],
        whole_seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        others=clock.others,
        peak_bytes=peak,
        after_seconds=timing["after"],
    )


def busy_share(seconds: float) -> float:
    """Share of all cores that is busy now, measured over some seconds."""
    with _clock() as clock:
        time.sleep(seconds)
    return clock.others


def _run(
    command: Sequence[str], environment: Mapping[str, str], *, with_memory: bool
) -> int | None:
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            command, cwd=_ROOT, env={**os.environ, **environment}, stdout=said, stderr=said
        )
        peak = _Peak(child.pid) if with_memory else None
        try:
            child.wait(_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.wait()
            raise ContestantFailed(f"{command[2]} took over {_LIMIT_S} s") from error
        finally:
            found = peak.stop() if peak else None
        if child.returncode:
            said.seek(0)
            end = said.read().strip()[-600:]
            raise ContestantFailed(f"{command[2]} ended with {child.returncode}: {end}")
    return found


class _Peak:
    """Samples the sum of PSS over a process tree until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._highest = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The highest sum that was seen, bytes."""
        self._stopped.set()
        self._thread.join()
        return self._highest

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            self._highest = max(self._highest, sum(map(_pss, _tree(self._pid))))


def _tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):  # it ended while it was looked at
                continue
            children[parent].append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _pss(pid: int) -> int:
    """Proportional set size, bytes: shared pages, /dev/shm among them, count once in all."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


@dataclass
class _Clock:
    """Wall time and CPU time of children between two moments, and of everybody else."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    others: float = 0.0
    begun: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def stop(self) -> None:
        """Take the second moment."""
        wall, own, busy = (b - a for a, b in zip(self.begun, _now(), strict=True))
        self.seconds, self.cpu_seconds = wall, own
        self.others = max(busy - own, 0.0) / (wall * (os.cpu_count() or 1))


@contextmanager
def _clock() -> Iterator[_Clock]:
    clock = _Clock(begun=_now())
    yield clock
    clock.stop()


def _now() -> tuple[float, float, float]:
    """Wall seconds; CPU seconds of this process and its children; of the machine, stolen too."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(each.ru_utime + each.ru_stime for each in used)
    numbers = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), own, busy
