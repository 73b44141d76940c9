"""Calls in threads: what is dropped, what is awaited, what is heard."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.hrefs import Gate
from pesto_runtime.processor import load_processor
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.runner import Payload, no_log, no_progress
from pesto_runtime.service.threads import ThreadRunner

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.service.runner import CallResponse

TOLD = """
import pesto_runtime, time
from pathlib import Path
@pesto_runtime.process(version="1")
def mark(path: str, seconds: float = 0.0) -> float:
    Path(path).write_text("began")
    time.sleep(seconds)
    pesto_runtime.progress(1, 4)
    pesto_runtime.log("two" + chr(10) + "lines")
    return seconds
"""


@pytest.fixture
def threads(tmp_path: Path) -> ThreadRunner:
    """One thread, and a process that leaves a mark."""
    (tmp_path / "told.py").write_text(TOLD)
    processor = load_processor(f"{tmp_path}/told.py:mark")
    return ThreadRunner(processor, gate=Gate(local_files=True), limits=Limits(workers=1))


def call(threads: ThreadRunner, mark: Path, seconds: float = 0.0) -> asyncio.Task[CallResponse]:
    """Begin a call."""
    body = json.dumps({"path": str(mark), "seconds": seconds}).encode()
    payload = Payload(body, "application/json", {}, "")
    return asyncio.ensure_future(threads.run(payload, on_progress=no_progress, on_log=no_log))


async def ready(threads: ThreadRunner) -> None:
    """Wait for the set-up."""
    done = threading.Event()
    threads.start(done.set)
    assert await asyncio.to_thread(done.wait, 10)


async def appeared(mark: Path) -> None:
    """Wait until a call has begun."""
    await asyncio.to_thread(_appeared, mark)


def _appeared(mark: Path) -> None:
    while not mark.exists():
        time.sleep(0.005)


def test_a_cancelled_call_is_dropped_while_it_waits(threads: ThreadRunner, tmp_path: Path) -> None:
    """The one that runs goes on, the one that waits never begins; its control does."""

    async def scene() -> None:
        await ready(threads)
        running = call(threads, tmp_path / "running", 0.3)
        await appeared(tmp_path / "running")
        waiting = call(threads, tmp_path / "waiting")
        control = call(threads, tmp_path / "control")
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.gather(running, control)
        await threads.close()

    asyncio.run(scene())
    assert not (tmp_path / "waiting").exists()
    assert (tmp_path / "control").exists()


def test_a_cancelled_call_that_runs_keeps_its_place(threads: ThreadRunner, tmp_path: Path) -> None:
    """A thread cannot be stopped, so the cancellation takes as long as the call."""

    async def scene() -> None:
        await ready(threads)
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = call(threads, tmp_path / "running", 0.3)
        await appeared(tmp_path / "running")
        running.cancel()
        await asyncio.sleep(0.05)
        assert threads.busy == 1
        with pytest.raises(asyncio.CancelledError):
            await running
        assert loop.time() - began >= 0.3
        assert threads.busy == 0
        await threads.close()

    asyncio.run(scene())


def test_what_an_algorithm_tells_is_heard(threads: ThreadRunner, tmp_path: Path) -> None:
    """Progress and lines arrive on the event loop."""
    progress: list[tuple[float, float]] = []
    lines: list[str] = []

    async def scene() -> None:
        await ready(threads)
        body = json.dumps({"path": str(tmp_path / "mark")}).encode()
        payload = Payload(body, "application/json", {}, "")
        await threads.run(
            payload,
            on_progress=lambda done, total: progress.append((done, total)),
            on_log=lines.append,
        )
        await threads.close()

    asyncio.run(scene())
    assert progress == [(1.0, 4.0)]
    assert lines == ["two", "lines"]
