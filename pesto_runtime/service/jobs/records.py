"""Records of jobs for the event loop: SQLite blocks, so one thread owns it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from pesto_runtime.service.jobs.store import JobStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")


class AsyncJobStore:
    """A store and its thread; what is asked is done one after the other."""

    def __init__(self, thread: ThreadPoolExecutor, store: JobStore) -> None:
        """Take both; see `open`."""
        self._thread = thread
        self._store = store

    @classmethod
    async def open(cls, path: Path, *, process: str) -> Self:
        """Open the store on a thread of its own; raises as `JobStore` does."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="pesto-jobs")
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(thread, lambda: JobStore(path, process=process))
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(thread, store)

    async def close(self) -> None:
        """Close the store, once all is written."""
        await self(JobStore.close)
        self._thread.shutdown()

    async def __call__(
        self, work: Callable[Concatenate[JobStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do something with the store; raises as it does."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(self._store, *args, **kwargs))
