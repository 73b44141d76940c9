"""One attempt at a task: its thread, its lease, its progress, and how it is stopped.

Tasks are taken and results reported by `worker_loop.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pesto_conductor.binding import TaskContext
from pesto_conductor.errors import Report, report_of, returned_to_queue
from pesto_runtime.errors import PestoError
from pesto_runtime.run.records import TileObserver

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from pesto_conductor.binding import TaskBinding
    from pesto_conductor.taskqueue import Assignment, TaskQueue
    from pesto_runtime.run.records import TileRecord

_LOG = logging.getLogger(__name__)
_STATUS_CHECK_S = 3.0
_LOG_INTERVAL_S = 5.0
_RENEWALS = 3
"""Renewals within the response timeout of a task: two of them may be lost."""
_THREAD_WAIT_S = 5.0
"""Time that a task waits for a thread before it is returned, so that another worker can take it."""


def exclusive_key(task: Assignment) -> tuple[object, ...]:
    """Return a key that one running attempt may have: of its run and chunk, or of the task."""
    if "plan" in task.input and "start" in task.input:
        names = ("plan", "phase", "start", "stop")
        # Identical runs have the same plan; each must get a result for its own task.
        return (task.workflow, *(str(task.input.get(name)) for name in names))
    return (task.identity,)


class ProgressTracker:
    """Counts the tiles of one attempt, stores lines for its log, and can stop it.

    The thread that runs the activity writes to it, the event loop reads it.

    Attributes:
        observer: Counts the tiles; given to the activity.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._tiles: Counter[str] = Counter()
        self._reported = 0
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        self.observer = TileObserver(self._count, self._stopped.is_set)

    def stop(self) -> None:
        """Request the end of the activity: at its next tile, or while it waits for a service."""
        self._stopped.set()

    @property
    def tiles(self) -> Counter[str]:
        """State -> number of tiles so far."""
        with self._guard:
            return Counter(self._tiles)

    def log(self, line: str) -> None:
        """Store a line for the task's log."""
        self._lines.put(line)

    def new_lines(self) -> list[str]:
        """Return the lines since the last call; the last one is the progress, if it changed."""
        found = []
        while True:
            try:
                found.append(self._lines.get_nowait())
            except Empty:
                break
        progress = self.new_progress()
        return found if progress is None else [*found, progress]

    def new_progress(self) -> str | None:
        """Return the progress as text; None if it has not changed since the last call."""
        tiles, seconds = self.tiles, time.monotonic() - self._begun
        if tiles.total() == self._reported:
            return None
        self._reported = tiles.total()
        counts = [f"{tiles['done']} tiles computed", f"{tiles['reused']} reused"]
        if tiles["hole"]:
            counts.append(f"{tiles['hole']} failed")
        return f"{', '.join(counts)} in {seconds:.1f} s"

    def _count(self, record: TileRecord) -> None:
        with self._guard:
            self._tiles[record.state] += 1


@dataclass
class Attempt:
    """One attempt at a task.

    Attributes:
        assignment: The task.
        binding: Its activity.
        queue: The queue that the task came from.
        is_unwanted: Whether the server does not wait for the result any more.
        ended: Set when the activity has returned.
        progress: Counts the tiles, and stops the activity.
    """

    assignment: Assignment
    binding: TaskBinding
    queue: TaskQueue
    is_unwanted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    progress: ProgressTracker = field(default_factory=ProgressTracker)
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _renewed: float = field(default_factory=time.monotonic)
    _longest_gap_s: float = 0.0

    @property
    def may_be_superseded(self) -> bool:
        """Whether the server may have begun another attempt: the lease was not extended in time."""
        lease_s = self.assignment.response_timeout_s
        gap_s = max(self._longest_gap_s, time.monotonic() - self._renewed)
        return self.assignment.deaths > 0 or bool(lease_s and gap_s > lease_s / 2)

    def stop(self) -> None:
        """Request the end of the activity."""
        self.progress.stop()

    async def run(self, pool: Executor) -> Report:
        """Run the activity in a thread; meanwhile renew the lease and log the progress."""
        supervision = asyncio.create_task(self._supervise())
        try:
            work = pool.submit(self._perform)
            ended = asyncio.wrap_future(work)
            await asyncio.wait((ended,), timeout=_THREAD_WAIT_S)
            if work.cancel():  # no thread has begun it
                return returned_to_queue("all threads of the worker are busy")
            return await ended
        finally:
            self.ended.set()
            # A server that extends the lease writes the whole task: a renewal that it completes
            # after the result would make the task run again (Conductor 3.32).
            async with self._renewing:
                supervision.cancel()

    def _perform(self) -> Report:
        context = TaskContext(
            self.queue.url,
            self.assignment.workflow,
            self.progress.observer,
            self.progress.log,
            attempt=self.assignment.attempt,
            domain=self.assignment.domain,
            worker=self.queue.worker,
        )
        try:
            output = self.binding.run(self.assignment.input, context)
        except Exception as error:  # noqa: BLE001  # the author's code may raise anything
            report = report_of(error)
        else:
            report = Report("COMPLETED", output)
        return report.after_lines(self.progress.new_lines())

    async def _supervise(self) -> None:
        """Renew the lease, log the progress, and stop the activity if the task is not wanted."""
        timeout_s = self.assignment.response_timeout_s
        renew_s = timeout_s / (_RENEWALS + 1) if timeout_s else float("inf")
        logged = time.monotonic()
        while not self.is_unwanted:
            await asyncio.sleep(min(_STATUS_CHECK_S, renew_s))
            now = time.monotonic()
            try:
                if now - self._renewed >= renew_s:
                    async with self._renewing:
                        await self.queue.renew(self.assignment)
                    # A server also extends a lease that has ended meanwhile.
                    self._longest_gap_s = max(self._longest_gap_s, now - self._renewed)
                    self._renewed = now
                if now - logged >= _LOG_INTERVAL_S:
                    await self._send_lines()
                    logged = now
                await self._stop_if_unwanted()
            except PestoError as error:  # the server is away: the activity continues without it
                _LOG.debug("task %s: %s", self.assignment.identity, error)

    async def _send_lines(self) -> None:
        for line in self.progress.new_lines():
            await self.queue.log(self.assignment, line)

    async def _stop_if_unwanted(self) -> None:
        # Conductor sends no notice of a cancelled task; its state must be requested.
        if not await self.queue.is_wanted(self.assignment):
            self.is_unwanted = True
            _LOG.info("task %s is no longer wanted: stopping", self.assignment.identity)
            self.stop()
