"""One worker process and its handle: races between an answer, a deadline and a caller that goes."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import AlgorithmFailed
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.runner import KEPT_BYTES, no_log, no_progress
from pesto_runtime.service.workers.handle import WorkerHandle, WorkerSettings
from pesto_runtime.service.workers.lifecycle import CallNotStarted
from pesto_runtime.service.workers.pool import WorkerPool
from tests.unit.service.workers.test_workers import HAZARDS, SET_UP, payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pesto_runtime.service.runner import CallResponse
    from pesto_runtime.service.workers.lifecycle import WorkerState

pytestmark = pytest.mark.integration


@asynccontextmanager
async def worker(losses: list[WorkerHandle], target: str = "hazard") -> AsyncIterator[WorkerHandle]:
    """A worker that is ready."""
    settings = WorkerSettings(
        HAZARDS + target, (), Gate(local_files=True), Limits(refuse_unknown=False)
    )
    handle = WorkerHandle(settings, losses.append)
    try:
        await handle.ready(no_log)
        yield handle
    finally:
        handle.kill()
        await handle.exited()


async def call(handle: WorkerHandle, **inputs: object) -> CallResponse:
    """Have a call performed whose deadline is the start of the loop: it is late at any time."""
    return await handle.call(
        payload(**inputs), deadline=0.0, on_progress=no_progress, on_log=no_log
    )


async def long_call(
    handle: WorkerHandle, path: Path, padding: str = ""
) -> asyncio.Future[CallResponse]:
    """A call of a minute, which has begun."""
    inputs = {"how": "late", "path": str(path), "seconds": 60, "padding": padding}
    found = asyncio.ensure_future(call(handle, **inputs))
    while not path.with_suffix(".began").exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.01)
    return found


async def becomes(handle: WorkerHandle, state: WorkerState) -> None:
    """Wait until a worker has this state."""
    while handle.state != state:  # noqa: ASYNC110  # another process gets there
        await asyncio.sleep(0.01)


def hold_up_until_readable(handle: WorkerHandle) -> None:
    """Let nothing else run in the loop until the answer lies in the socket."""
    assert select.select([handle._socket], [], [], 30)[0]


async def started(pool: WorkerPool) -> None:
    """Wait until a pool is ready."""
    while pool.state != "OK":  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.01)


def test_a_late_call_is_stopped(tmp_path: Path) -> None:
    """Its caller gets the error, its worker is gone, and the pool would hear of it, once."""
    losses: list[WorkerHandle] = []

    async def scene() -> None:
        async with worker(losses) as handle:
            running = await long_call(handle, tmp_path / "a")
            assert (handle.state, handle.has_call) == ("called", True)
            handle.pass_time(asyncio.get_running_loop().time())
            assert (handle.state, handle.is_alive) == ("lost", False)
            with pytest.raises(TimeoutError):
                await running
            await handle.exited()
            assert losses == [handle]

    asyncio.run(scene())


def test_an_answer_that_came_before_the_time_was_looked_at_is_in_time() -> None:
    """It lies in the socket when the loop, which was held up, gets to its timer."""
    losses: list[WorkerHandle] = []

    async def scene() -> None:
        async with worker(losses) as handle:
            running = asyncio.ensure_future(call(handle, how="tell"))
            await asyncio.sleep(0)
            assert handle.has_call
            hold_up_until_readable(handle)
            handle.pass_time(asyncio.get_running_loop().time())
            assert handle.state == "idle"
            assert json.loads((await running).whole()) == {"worker": handle.process_id}
            assert losses == []

    asyncio.run(scene())


@pytest.mark.parametrize("is_read_first", [True, False])
def test_a_caller_that_goes_when_its_answer_has_come_costs_no_worker(is_read_first: bool) -> None:
    """The answer is dropped, whichever is noticed first; the next call gets its own."""
    losses: list[WorkerHandle] = []

    async def scene() -> None:
        async with worker(losses, "echo") as handle:
            leaving = asyncio.ensure_future(call(handle, text="a"))
            await asyncio.sleep(0)
            hold_up_until_readable(handle)
            if not is_read_first:
                leaving.cancel()
            handle.pass_time(asyncio.get_running_loop().time())
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert handle.state == "idle"
            assert json.loads((await call(handle, text="b")).whole()) == {"text": "b"}
            assert losses == []

    asyncio.run(scene())


def test_a_small_answer_after_a_large_one_is_its_own() -> None:
    """The large one comes as a spool, the small one in its frame."""

    async def scene() -> None:
        async with worker([], "echo") as handle:
            for text in ("a" * (KEPT_BYTES + 1), "b"):
                answer = await call(handle, text=text)
                assert json.loads(answer.whole()) == {"text": text}
                assert (answer.spool is None) == (text == "b")

    asyncio.run(scene())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_large_body_is_released_while_its_call_runs(tmp_path: Path) -> None:
    """One too large to be kept is free as soon as the worker has read it."""

    def spools() -> list[str]:
        descriptors = Path("/proc/self/fd").iterdir()
        return [each.name for each in descriptors if "pesto-spool" in str(each.resolve())]

    async def scene() -> None:
        async with worker([]) as handle:
            before = spools()
            running = await long_call(handle, tmp_path / "a", padding="a" * KEPT_BYTES)
            async with asyncio.timeout(20):
                while spools() != before:  # noqa: ASYNC110  # its frame may still be on its way
                    await asyncio.sleep(0.01)
            assert handle.has_call
            running.cancel()

    asyncio.run(scene())


def test_a_caller_that_goes_before_has_its_worker_killed(tmp_path: Path) -> None:
    """Control: while the call runs, nothing else ends it. It would start no other call."""
    losses: list[WorkerHandle] = []

    async def scene() -> None:
        async with worker(losses) as handle:
            leaving = await long_call(handle, tmp_path / "a")
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert (handle.state, losses) == ("lost", [handle])
            with pytest.raises(CallNotStarted):
                await call(handle, how="tell")

    asyncio.run(scene())


def test_a_call_for_a_worker_that_is_gone_was_not_started() -> None:
    """It is assigned after the death, before or after the exit code is known."""
    losses: list[WorkerHandle] = []

    async def scene() -> None:
        async with worker(losses) as handle:
            os.kill(handle.process_id, signal.SIGKILL)
            await becomes(handle, "lost")
            for _ in range(2):
                with pytest.raises(CallNotStarted, match="before it began"):
                    await call(handle, how="tell")
            assert losses == [handle]

    asyncio.run(scene())


def test_a_worker_that_is_killed_with_a_call_says_how_it_ended(tmp_path: Path) -> None:
    """The pool closes: the caller is not left waiting, and no loss is reported."""
    losses: list[WorkerHandle] = []

    async def scene() -> None:
        async with worker(losses) as handle:
            running = await long_call(handle, tmp_path / "a")
            handle.kill()
            with pytest.raises(AlgorithmFailed, match="SIGKILL"):
                await running
            assert losses == []

    asyncio.run(scene())


def test_a_worker_that_dies_before_the_service_starts_is_replaced(tmp_path: Path) -> None:
    """It was set up early, while nobody waited for it; the service is announced once."""
    (tmp_path / "ready.py").write_text(SET_UP.format(then=""))
    announced: list[str] = []

    async def scene() -> None:
        pool = WorkerPool(
            f"{tmp_path}/ready.py:ready", gate=Gate(local_files=True), limits=Limits(workers=1)
        )
        try:
            await pool.load()
            (first,) = pool._all
            await becomes(first, "idle")
            os.kill(first.process_id, signal.SIGKILL)
            await becomes(first, "lost")
            await asyncio.sleep(0.1)
            pool.start(lambda: announced.append(pool.state))
            await started(pool)
            request = payload(number=1)
            calls = (pool.run(request, on_progress=no_progress, on_log=no_log) for _ in range(2))
            await asyncio.gather(*calls)  # one after the other: the new worker is there once
            assert first.process_id not in pool.process_ids
        finally:
            await pool.close()

    asyncio.run(scene())
    assert announced == ["OK"]
