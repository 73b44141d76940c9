"""A bounded queue in front of a few threads; what does not fit is refused at once.

A thread cannot be stopped: work whose caller has gone is dropped only while it still waits.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.errors import Busy, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")

_FIRST_GUESS_S = 1.0
_WEIGHT = 0.3
_LONGEST_RETRY_S = 60.0


class WorkPool:
    """Threads, and how many calls hold a place with them."""

    def __init__(self, workers: int, queue: int) -> None:
        """Make room for `workers` running calls and `queue` waiting ones."""
        self.workers = workers
        self.capacity = workers + queue
        self.admitted = 0
        self._seconds = _FIRST_GUESS_S
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pesto-work")

    def place(self) -> Place:
        """Take a place, to be used as a context manager; call it on the event loop.

        Raises:
            Busy: none is free; says when one may be.
        """
        if self.admitted >= self.capacity:
            wait_s = min(self._seconds * self.capacity / self.workers, _LONGEST_RETRY_S)
            raise Busy(
                f"{self.workers} calls run and {self.capacity - self.workers} wait; no room for "
                "more now",
                retry_after_s=wait_s,
            )
        return Place(self)

    def close(self) -> None:
        """Drop the calls that wait; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T], gone: asyncio.Task[None]) -> T:
        """Run blocking work in a thread, until it is done or its caller has gone.

        Raises:
            Unreachable: the caller went before the work began.
        """
        future = self._threads.submit(self._timed, work)
        waiting = asyncio.wrap_future(future)
        either: set[asyncio.Future[object]] = {waiting, gone}  # type: ignore[arg-type]  # futures are covariant in all but name
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and future.cancel():
            raise Unreachable("the caller went away before its turn came")
        return await waiting

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return work()
        finally:
            self._seconds += _WEIGHT * (time.monotonic() - began - self._seconds)


class Place:
    """One call's place in the pool, held from before its body is read until its answer is made."""

    def __init__(self, pool: WorkPool) -> None:
        """Hold nothing yet; `with` does."""
        self._pool = pool

    def __enter__(self) -> None:
        self._pool.admitted += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.admitted -= 1
