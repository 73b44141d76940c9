"""Poll Conductor for tasks, run each in a thread, and report its result: the loop of one process.

One event loop polls all task types. The SDK's `TaskHandler` starts a process per type, leaves
processes behind after SIGTERM, loses a result after a minute without a server, and takes tasks that
it does not run because it is stopping. This file does not send requests: `taskqueue.py` does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pesto_conductor.binding import TaskContext
from pesto_conductor.errors import Report, report_of, returned_to_queue
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.run.records import TileObserver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from pesto_conductor.binding import TaskBinding
    from pesto_conductor.metrics import WorkerMetrics
    from pesto_conductor.taskqueue import Assignment, TaskQueue
    from pesto_runtime.run.records import TileRecord

_LOG = logging.getLogger(__name__)

_DRAIN_S = 3.0
_BUSY_POLL_S, _IDLE_POLL_S = 0.05, 0.5
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.2, 5.0

_STATUS_CHECK_S = 3.0
_LOG_INTERVAL_S = 5.0
_RENEWALS = 3
"""Renewals within the response timeout of a task: two of them may be lost."""


@dataclass
class WorkerLoop:
    """The loop of one worker process.

    Attributes:
        queue: The tasks of the server.
        metrics: Counts polls and tasks.
        concurrency: Most tasks of a type at once.
    """

    queue: TaskQueue
    metrics: WorkerMetrics
    concurrency: int
    _attempts: dict[tuple[object, ...], Attempt] = field(default_factory=dict)
    _draining: asyncio.Event = field(default_factory=asyncio.Event)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _last_task: float = field(default_factory=time.monotonic)

    async def run(self, bindings: Sequence[TaskBinding]) -> None:
        """Work until `drain` is called.

        Raises:
            InvalidInput: the server rejects a request, most often for its credentials.
        """
        self._pool = ThreadPoolExecutor(self.concurrency * len(bindings), "pesto-task")
        pollers = [asyncio.create_task(self._poll(binding)) for binding in bindings]
        try:
            await asyncio.gather(*pollers)
        finally:
            self.drain()
            for poller in pollers:
                poller.cancel()
            await self._finish_attempts()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def drain(self) -> None:
        """Take no more tasks, and stop running ones at their next tile."""
        self._draining.set()
        for attempt in self._attempts.values():
            attempt.stop()

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more tasks."""
        return self._draining.is_set()

    async def _finish_attempts(self) -> None:
        """Wait for running attempts; return the tasks that do not end in time to the queue."""
        if self._running:
            await asyncio.wait(self._running, timeout=_DRAIN_S)
        stuck = [each for each in self._attempts.values() if not each.ended.is_set()]
        for attempt in stuck:
            try:
                report = returned_to_queue("the worker stops")
                await self.queue.report(attempt.assignment, report, and_next=False)
            except PestoError as error:
                _LOG.warning("task %s: %s", attempt.assignment.identity, error)

    async def _poll(self, binding: TaskBinding) -> None:
        """Poll one task type, for as many tasks as there are free slots."""
        slots = asyncio.Semaphore(self.concurrency)
        task_type, backoff_s = binding.definition.name, 0.0
        while not self.is_draining:
            free = await _take_all(slots, self.concurrency)
            tasks: list[Assignment] = []
            try:
                tasks = await self.queue.poll(task_type, free)
                self.metrics.polled(task_type, responded=True)
                backoff_s = 0.0
            except InvalidInput:
                raise
            except PestoError as error:
                self.metrics.polled(task_type, responded=False)
                if not backoff_s:
                    _LOG.warning("polling %s: %s", task_type, error)
                backoff_s = min(max(2 * backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
            for _ in range(free - len(tasks)):
                slots.release()
            for task in tasks:
                self._begin(binding, task, slots)
            if not tasks:
                await self._pause(backoff_s or self._poll_interval_s())

    def _poll_interval_s(self) -> float:
        """Return the pause between empty polls; short after a task, which often starts others."""
        idle_s = time.monotonic() - self._last_task
        return min(max(idle_s / 20, _BUSY_POLL_S), _IDLE_POLL_S)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not longer than until the loop drains."""
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return

    def _begin(self, binding: TaskBinding, task: Assignment, slots: asyncio.Semaphore) -> None:
        running = asyncio.create_task(self._run_tasks(binding, task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        running.add_done_callback(lambda _done: slots.release())

    async def _run_tasks(self, binding: TaskBinding, first: Assignment) -> None:
        """Run a task, then each next one that the server returns for a reported result."""
        task: Assignment | None = first
        while task is not None:
            self._last_task = time.monotonic()
            attempt = Attempt(task, binding, self.queue)
            report = await self._run_attempt(attempt)
            task = None if attempt.is_unwanted else await self._deliver(attempt.assignment, report)

    async def _run_attempt(self, attempt: Attempt) -> Report:
        # A task that arrives with a result while the loop drains has cost no attempt yet.
        if self.is_draining:
            return returned_to_queue("the worker stops")
        key = _exclusive_key(attempt.assignment)
        await self._end_earlier_attempt(key)
        self._attempts[key] = attempt
        task_type, begun = attempt.assignment.type, time.monotonic()
        self.metrics.began(task_type)
        try:
            report = await attempt.run(self._pool)
        finally:
            if self._attempts.get(key) is attempt:
                del self._attempts[key]
        status = "UNWANTED" if attempt.is_unwanted else report.status
        self.metrics.ended(
            task_type, status, seconds=time.monotonic() - begun, tiles=attempt.progress.tiles
        )
        _LOG.info("%s %s %s", task_type, attempt.assignment.identity, report.reason or status)
        return report

    async def _end_earlier_attempt(self, key: tuple[object, ...]) -> None:
        """Stop an attempt at the same chunk that lost its lease, so that no tile runs twice."""
        while (earlier := self._attempts.get(key)) is not None:
            earlier.is_unwanted = True
            earlier.stop()
            await earlier.ended.wait()
            # `ended` is set inside `Attempt.run`; one turn of the loop later the entry is deleted.
            await asyncio.sleep(0)

    async def _deliver(self, task: Assignment, report: Report) -> Assignment | None:
        """Report a result until the server has accepted it; return the next task of the type.

        A result survives a restart of the server in this way.
        """
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                return await self.queue.report(task, report, and_next=not self.is_draining)
            except InvalidInput as error:  # most often, the output is too large
                _LOG.error("task %s: %s", task.identity, error)  # the message is sufficient
                if report.status == "FAILED_WITH_TERMINAL_ERROR":
                    return None
                report = Report("FAILED_WITH_TERMINAL_ERROR", reason=str(error)[:500])
            except PestoError as error:
                if not error.retryable or self.is_draining:
                    _LOG.warning("task %s: its result is lost: %s", task.identity, error)
                    return None
                await self._pause(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)


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

    def stop(self) -> None:
        """Request the end of the activity."""
        self.progress.stop()

    async def run(self, pool: Executor) -> Report:
        """Run the activity in a thread; meanwhile renew the lease and log the progress."""
        supervision = asyncio.create_task(self._supervise())
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._perform)
        finally:
            self.ended.set()
            supervision.cancel()

    def _perform(self) -> Report:
        context = TaskContext(
            self.queue.url, self.assignment.workflow, self.progress.observer, self.progress.log
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
        renewed = logged = time.monotonic()
        while not self.is_unwanted:
            await asyncio.sleep(min(_STATUS_CHECK_S, renew_s))
            now = time.monotonic()
            try:
                if now - renewed >= renew_s:
                    await self.queue.renew(self.assignment)
                    renewed = now
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


async def _take_all(slots: asyncio.Semaphore, most: int) -> int:
    """Wait for a free slot, then take all free ones; return their number."""
    await slots.acquire()
    taken = 1
    while taken < most and not slots.locked():
        await slots.acquire()
        taken += 1
    return taken


def _exclusive_key(task: Assignment) -> tuple[object, ...]:
    """Return a key that one running attempt may have: of its run and chunk, or of the task."""
    if "plan" in task.input and "start" in task.input:
        names = ("plan", "phase", "start", "stop")
        # Identical runs have the same plan; each must get a result for its own task.
        return (task.workflow, *(str(task.input.get(name)) for name in names))
    return (task.identity,)
