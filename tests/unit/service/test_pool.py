"""The bounded queue: what is refused, what is dropped, what it says of waiting."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pesto_runtime.errors import Busy, Unreachable
from pesto_runtime.service.pool import WorkPool


async def forever() -> None:
    """A caller that stays."""
    await asyncio.Event().wait()


async def at_once() -> None:
    """A caller that has gone."""


def test_a_full_pool_refuses_and_says_when_to_come_back() -> None:
    """One runs, one waits, the third is refused; a place that is given back is free again."""
    pool = WorkPool(workers=1, queue=1)
    with pool.place(), pool.place():
        with pytest.raises(Busy, match="1 calls run and 1 wait") as caught:
            pool.place()
        assert caught.value.retry_after_s is not None
        assert 0 < caught.value.retry_after_s <= 60
    with pool.place():
        assert pool.admitted == 1
    assert pool.admitted == 0
    pool.close()


def test_a_place_is_given_back_after_an_error() -> None:
    """Failing calls never fill the queue."""
    pool = WorkPool(workers=1, queue=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), pool.place():
            _ = 1 / 0
    assert pool.admitted == 0
    pool.close()


def test_work_whose_caller_went_is_dropped_while_it_waits() -> None:
    """The one that runs goes on, the one that waits never begins; its control runs."""
    began: list[str] = []
    release = threading.Event()

    def first() -> None:
        began.append("first")
        release.wait(10)

    async def scene() -> None:
        pool = WorkPool(workers=1, queue=2)
        stays = asyncio.ensure_future(forever())
        running = asyncio.ensure_future(pool.run(first, stays))
        control = asyncio.ensure_future(pool.run(lambda: began.append("control"), stays))
        await asyncio.sleep(0)  # both are handed in
        gone = asyncio.ensure_future(at_once())
        with pytest.raises(Unreachable):
            await pool.run(lambda: began.append("dropped"), gone)
        release.set()
        await asyncio.gather(running, control)
        stays.cancel()
        pool.close()

    asyncio.run(scene())
    assert began == ["first", "control"]


def test_work_that_runs_is_awaited_even_when_its_caller_went() -> None:
    """A thread cannot be stopped, so its place stays taken until it ends."""

    async def scene() -> int:
        pool = WorkPool(workers=1, queue=0)
        started = threading.Event()

        def work() -> int:
            started.set()
            return 7

        gone = asyncio.ensure_future(asyncio.to_thread(started.wait, 10))
        try:
            return await pool.run(work, gone)  # type: ignore[arg-type]  # a task is a task
        finally:
            pool.close()

    assert asyncio.run(scene()) == 7
