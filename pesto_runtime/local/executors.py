"""Executors of the embedded engine: threads, or spawned processes that never outlive their parent.

Processes are spawned, never forked: a fork after GDAL's threads were used hangs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.activities import TileObserver, TileRecord, process
from pesto_runtime.raster import limit_cache

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

    from pesto_runtime.contract import Chunk, ChunkResult


class ChunkExecutors(Protocol):
    """Makes executors, and passes on what their workers tell."""

    def executor(self) -> Executor:
        """A new executor; called again after one broke."""

    def run(self, chunk: Chunk) -> ChunkResult:
        """What a worker does with a chunk; can be pickled where workers are processes."""

    def told(self) -> list[TileRecord]:
        """Tiles that were done since this was last asked."""

    def stop(self) -> None:
        """Ask every worker to stop at its next tile."""


@dataclass
class Threads:
    """Workers in this process: for code that lets go of the GIL, and for services."""

    count: int
    _told: list[TileRecord] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def executor(self) -> Executor:
        """A new pool of threads."""
        return ThreadPoolExecutor(self.count, thread_name_prefix="pesto")

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in this thread."""
        return process(chunk, watch=TileObserver(self._told.append, self._stopped.is_set))

    def told(self) -> list[TileRecord]:
        """Tiles that were done since this was last asked."""
        records = self._told[:]
        del self._told[: len(records)]
        return records

    def stop(self) -> None:
        """Ask every thread to stop at its next tile."""
        self._stopped.set()


class Processes:
    """Workers in processes of their own: for code that holds the GIL, or crashes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._context = multiprocessing.get_context("spawn")
        self._records: SimpleQueue[TileRecord] = self._context.SimpleQueue()
        self._stopped = self._context.Event()

    def executor(self) -> Executor:
        """A new pool of spawned processes.

        Its queue and event are its own: a worker that was killed may hold a lock of them for ever.
        """
        self._records = self._context.SimpleQueue()
        self._stopped = self._context.Event()
        return ProcessPoolExecutor(
            self._count,
            mp_context=self._context,
            initializer=_begin,
            initargs=(self._records, self._stopped),
        )

    @property
    def run(self) -> _Run:
        """What a worker does with a chunk."""
        return _run

    def told(self) -> list[TileRecord]:
        """Tiles that were done since this was last asked."""
        records = []
        while not self._records.empty():
            records.append(self._records.get())
        return records

    def stop(self) -> None:
        """Ask every worker to stop at its next tile."""
        self._stopped.set()


class _Run(Protocol):
    def __call__(self, chunk: Chunk) -> ChunkResult: ...


_watch = TileObserver()


def _begin(records: SimpleQueue[TileRecord], stopped: Event) -> None:
    """Set a worker process up: Ctrl-C is the parent's, and its death is the worker's."""
    global _watch  # noqa: PLW0603  # one per worker process, set before its first chunk
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_cache()
    _watch = TileObserver(records.put, stopped.is_set)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(chunk: Chunk) -> ChunkResult:
    return process(chunk, watch=_watch)
