"""The measurements, each against its peer on the same server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np

from benchmarks.conductor.work import NOOP_TASK, Work, definition, flat
from pesto_conductor.client import Conductor, is_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

_LIMIT_S = 600
_PESTO = (sys.executable, "-c", "from pesto_runtime.cli import main; main()")


@dataclass(frozen=True)
class Ran:
    """A workflow that came to its end.

    Attributes:
        seconds: From the start request to the end, as we saw it.
        fan_out_s: From the first task of its fan-out to the last, as the server saw it.
        size: Bytes of the answer to GET.
        tasks: In the fan-out.
    """

    seconds: float
    fan_out_s: float
    size: int
    tasks: int


def run(conductor: Conductor, made: Document, inputs: Document, *, task_type: str) -> Ran:
    """Run a workflow."""
    begun = time.perf_counter()
    identity = conductor.start(str(made["name"]), inputs, definition=made)
    while not is_over(conductor.workflow(identity, tasks=False)):
        if time.perf_counter() - begun > _LIMIT_S:
            raise TimeoutError(f"{made['name']} did not end within {_LIMIT_S} s")
        time.sleep(0.2)  # each look takes the server 6 ms
    seconds = time.perf_counter() - begun
    workflow = conductor.workflow(identity)
    if workflow["status"] != "COMPLETED":
        raise RuntimeError(str(workflow.get("reasonForIncompletion")))
    found = workflow["tasks"]
    tasks = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    chosen = [each for each in tasks if each["taskType"] == task_type]
    scheduled = min(int(str(each["scheduledTime"])) for each in chosen)
    ended = max(int(str(each["endTime"])) for each in chosen)
    size = len(json.dumps(workflow, separators=(",", ":")))
    return Ran(seconds, (ended - scheduled) / 1000, size, len(chosen))


def chunks(
    conductor: Conductor,
    work: Work,
    folder: Path,
    *,
    is_resume: bool = False,
    **inputs: JsonValue,
) -> Ran:
    """Run the pipeline in a new folder, or again in one where nothing remains to compute.

    Raises:
        RuntimeError: the run did not compute every tile.
    """
    given: Document = {
        "scene": str(work.scene), "folder": str(folder), "tile": work.tile, "keep": True, **inputs,
    }  # fmt: skip
    ran = run(conductor, definition(), given, task_type="pesto_process")
    if is_resume:  # its result.json is that of the first run
        return ran
    computed = json.loads((folder / "result.json").read_text())["tiles"]["computed"]
    if computed != work.tiles:
        raise RuntimeError(f"{folder}: {computed} of {work.tiles} tiles were computed")
    return ran


def noops(conductor: Conductor, count: int) -> Ran:
    """Run a flat fork of tasks that do nothing."""
    return run(conductor, flat(count), {}, task_type=NOOP_TASK)


@contextmanager
def our_worker(url: str, *, at_once: int, types: Sequence[str] = ()) -> Iterator[int]:
    """A worker of ours; answers its pid."""
    options = [word for each in types for word in ("--task", each)]
    words = [*_PESTO, "conductor", "worker", "--url", url, "--concurrency", str(at_once), *options]
    with running(words, "working on") as pid:
        yield pid


@contextmanager
def bare_worker(url: str) -> Iterator[int]:
    """The SDK's; answers its pid."""
    words = [sys.executable, "-m", "benchmarks.conductor.noop", url, NOOP_TASK]
    with running(words, "working") as pid:
        yield pid


@contextmanager
def service(target: str, *options: str) -> Iterator[str]:
    """A service of ours; answers its URL."""
    words = [*_PESTO, "serve", target, "--port", "18737", "--local-files", *options]
    with running(words, "http://"):
        yield "http://127.0.0.1:18737/api/v1"


def bare_calls(url: str, *, count: int, at_once: int, side: int) -> float:
    """Seconds of so many calls of a service by httpx alone, pixels as .npy."""
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, np.zeros((1, side, side), np.uint8))
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    with httpx.Client(trust_env=False, timeout=60) as client:

        def call(_number: int) -> None:
            client.post(
                f"{url}/process", content=buffer.getvalue(), headers=headers
            ).raise_for_status()

        call(0)
        begun = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(call, range(count)))
        return time.perf_counter() - begun


def memory(pid: int) -> int:
    """Bytes of a process and those below it: shared pages count once (PSS)."""
    return sum(_pss(each) for each in _family(pid))


def _family(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        path = Path(f"/proc/{each}/task/{each}/children")
        found += [int(child) for child in path.read_text().split()]
    return found


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


@contextmanager
def running(words: Sequence[str], ready: str) -> Iterator[int]:
    """Run a command, once its output has the word `ready`; answers its pid, and stops it."""
    log = Path(f"/tmp/benchmark-{os.getpid()}-{time.monotonic_ns()}.log")  # noqa: S108
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=output) as process:
        try:
            while ready not in log.read_text():
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(6)
            except subprocess.TimeoutExpired:
                process.kill()
            log.unlink()
