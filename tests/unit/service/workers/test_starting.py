"""Workers that are killed while they start, and workers that load other code than the first."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import AlgorithmFailed, ProcessChanged, Unreachable
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.runner import Payload, no_log, no_progress
from pesto_runtime.service.workers import pool
from pesto_runtime.service.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SOURCE = """
import os, signal, pathlib, pesto_runtime
def prepare():
    starts = pathlib.Path(__file__).with_name("starts")
    with starts.open("a") as file:
        file.write("x")
    here = starts.stat().st_size
    if {kills}:
        {end}
@pesto_runtime.process(version="1", setup=prepare)
def plus(number: float) -> float:
    return number + {added}
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between starts."""
    monkeypatch.setattr(pool, "_FIRST_PAUSE_S", 0.01)


def target(folder: Path, *, kills: str = "False", end: str = KILL, added: int = 1) -> str:
    """Write a process whose starts of these numbers (`here`, from 1) end like this."""
    (folder / "plus.py").write_text(SOURCE.format(kills=kills, end=end, added=added))
    return f"{folder}/plus.py:plus"


def starts(folder: Path) -> int:
    """Return how many workers have begun their set-up."""
    return (folder / "starts").stat().st_size


@asynccontextmanager
async def served(name: str, *, count: int = 1) -> AsyncIterator[WorkerPool]:
    """Serve with this many workers, whatever comes of it."""
    workers = WorkerPool(name, gate=Gate(local_files=True), limits=Limits(workers=count))
    await workers.load()
    workers.start(lambda: None)
    try:
        async with asyncio.timeout(60):
            yield workers
    finally:
        await workers.close()


async def until(workers: WorkerPool, *states: str) -> None:
    """Wait for one of these states."""
    while workers.state not in states:  # noqa: ASYNC110  # nothing reports it
        await asyncio.sleep(0.01)


async def kill(workers: WorkerPool) -> None:
    """Kill a worker, and wait until that is noticed."""
    killed = workers.process_ids[0]
    os.kill(killed, signal.SIGKILL)
    while killed in workers.process_ids:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.001)


async def ask(workers: WorkerPool) -> float:
    """Call with 1."""
    payload = Payload(b'{"number": 1}', "application/json", {}, "")
    answer = await workers.run(payload, on_progress=no_progress, on_log=no_log)
    return float(next(iter(json.loads(answer.whole()).values())))


def test_a_first_worker_killed_in_its_set_up_is_started_again(tmp_path: Path) -> None:
    """Five times in a row; the sixth start serves."""

    async def scene() -> float:
        async with served(target(tmp_path, kills="here <= 5")) as workers:
            await until(workers, "OK", "FAILED")
            return await ask(workers)

    assert asyncio.run(scene()) == 2
    assert starts(tmp_path) == 6


def test_calls_wait_while_workers_are_killed_in_their_set_up(tmp_path: Path) -> None:
    """The only worker dies idle, and so do its next four: twelve calls wait, none fails."""

    async def scene() -> list[float]:
        async with served(target(tmp_path, kills="1 < here <= 5")) as workers:
            await until(workers, "OK")
            await kill(workers)
            return await asyncio.gather(*(ask(workers) for _ in range(12)))

    assert asyncio.run(scene()) == [2] * 12
    assert starts(tmp_path) == 6


def test_too_many_kills_fail_the_calls_with_a_retryable_error(tmp_path: Path) -> None:
    """After six in a row the reason is reported; a worker that starts later serves again."""

    async def scene() -> None:
        async with served(target(tmp_path, kills="1 < here <= 9")) as workers:
            await until(workers, "OK")
            await kill(workers)
            with pytest.raises(Unreachable, match=r"6 in a row.*SIGKILL") as caught:
                await ask(workers)
            assert caught.value.retryable
            assert workers.state == "FAILED"
            with pytest.raises(Unreachable, match="SIGKILL"):
                workers.require()
            await until(workers, "OK")
            assert await ask(workers) == 2

    asyncio.run(scene())
    assert starts(tmp_path) == 10


def test_a_set_up_that_raises_is_reported_at_once(tmp_path: Path) -> None:
    """The control: an exception of the author is not started again."""

    async def scene() -> None:
        end = "raise OSError('no model')"
        async with served(target(tmp_path, kills="True", end=end)) as workers:
            await until(workers, "OK", "FAILED")
            with pytest.raises(AlgorithmFailed, match="no model") as caught:
                await ask(workers)
            assert not caught.value.retryable

    asyncio.run(scene())
    assert starts(tmp_path) == 1


def test_a_worker_that_loads_other_code_is_not_used(tmp_path: Path) -> None:
    """Both builds are named; with the old file back, the service serves again."""

    async def scene() -> None:
        name = target(tmp_path, added=1)
        async with served(name) as workers:
            await until(workers, "OK")
            old = workers.facts.build
            assert await ask(workers) == 2
            target(tmp_path, added=7)
            await kill(workers)
            await until(workers, "FAILED")
            with pytest.raises(ProcessChanged, match="restart the service"):
                workers.require()
            with pytest.raises(ProcessChanged, match="restart the service") as caught:
                await ask(workers)
            detail = caught.value.detail
            assert old in detail
            assert detail.count("sha256:") == 2
            assert not caught.value.retryable
            target(tmp_path, added=1)
            await until(workers, "OK")
            assert await ask(workers) == 2

    asyncio.run(scene())


def test_a_worker_with_the_old_code_serves_on(tmp_path: Path) -> None:
    """Of two workers, one is lost after the edit: all calls get the code that was served."""

    async def scene() -> list[float]:
        async with served(target(tmp_path, added=1), count=2) as workers:
            await until(workers, "OK")
            while len(workers.process_ids) < 2 or starts(tmp_path) < 2:  # noqa: ASYNC110  # both
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            target(tmp_path, added=7)
            await kill(workers)
            found = []
            for _ in range(10):
                found.append(await ask(workers))
                await asyncio.sleep(0.2)
            return found

    assert asyncio.run(scene()) == [2] * 10


def test_a_worker_after_an_edit_that_changes_nothing_serves(tmp_path: Path) -> None:
    """The control: the same content in a new file is the same build."""

    async def scene() -> float:
        async with served(target(tmp_path)) as workers:
            await until(workers, "OK")
            (tmp_path / "plus.py").unlink()
            target(tmp_path)
            await kill(workers)
            return await ask(workers)

    assert asyncio.run(scene()) == 2
