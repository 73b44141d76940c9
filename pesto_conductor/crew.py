"""The runners of one worker process: they poll, hand tasks to attempts, and report what came of it.

One event loop for all task types, instead of the SDK's process for each: its TaskHandler leaves
orphans behind SIGTERM, loses a result after a minute without a server, and takes tasks that it
will not run while it stops.
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

from pesto_conductor.errors import Report, given_back, report_of
from pesto_conductor.verbs import TaskContext
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.run.records import TileObserver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from pesto_conductor.metrics import WorkerMetrics
    from pesto_conductor.taskqueue import Assignment, TaskQueue
    from pesto_conductor.verbs import TaskBinding
    from pesto_runtime.run.records import TileRecord


class ProgressTracker:
    """Of one attempt at a task; between the thread that works and the loop that looks after it."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._tiles: Counter[str] = Counter()
        self._told = 0
        self._said: SimpleQueue[str] = SimpleQueue()
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        self.watch = TileObserver(self._count, self._stopped.is_set)

    def stop(self) -> None:
        """Ask the work to end: at its next tile, or while it waits for a service."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._stopped.is_set()

    @property
    def tiles(self) -> Counter[str]:
        """State -> tiles of it so far."""
        with self._guard:
            return Counter(self._tiles)

    def say(self, line: str) -> None:
        """Keep a line for the task's log."""
        self._said.put(line)

    def lines(self) -> list[str]:
        """What was said since this was last asked."""
        found = []
        while True:
            try:
                found.append(self._said.get_nowait())
            except Empty:
                return found

    def progress(self) -> str | None:
        """How far it is; None where nothing was done since this was last asked."""
        tiles, seconds = self.tiles, time.monotonic() - self._begun
        if tiles.total() == self._told:
            return None
        self._told = tiles.total()
        counts = [f"{tiles['done']} tiles computed", f"{tiles['reused']} reused"]
        if tiles["hole"]:
            counts.append(f"{tiles['hole']} failed")
        return f"{', '.join(counts)} in {seconds:.1f} s"

    def _count(self, record: TileRecord) -> None:
        with self._guard:
            self._tiles[record.state] += 1


_LOG = logging.getLogger(__name__)
_LOOK_S = 3.0
_TELL_S = 5.0
_RENEWALS = 3
"""Renewals within the response timeout of a task: two may be lost."""


@dataclass
class Attempt:
    """An attempt, while it goes.

    Attributes:
        assignment: The task.
        binding: What serves it.
        queue: Where it came from.
        is_unwanted: Whether the server says that nobody waits for it.
        ended: Set when the verb has returned.
    """

    assignment: Assignment
    binding: TaskBinding
    queue: TaskQueue
    is_unwanted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lookout: ProgressTracker = field(default_factory=ProgressTracker)

    def stop(self) -> None:
        """Ask the verb to end."""
        self.lookout.stop()

    async def run(self, pool: Executor) -> Report:
        """Perform it to its end, whatever that is."""
        caring = asyncio.create_task(self._care())
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._perform)
        finally:
            self.ended.set()
            caring.cancel()

    def _perform(self) -> Report:
        task = self.assignment
        errand = TaskContext(self.queue.url, task.workflow, self.lookout.watch, self.lookout.say)
        try:
            output = self.binding.run(task.input, errand)
        except Exception as error:  # noqa: BLE001  # the author's code may raise anything
            report = report_of(error)
        else:
            report = Report("COMPLETED", output)
        told = self.lookout.progress()
        lines = (*self.lookout.lines(), *([told] if told else ()), *report.lines)
        return Report(report.status, report.output, report.reason, report.again_after_s, lines)

    async def _care(self) -> None:
        timeout_s = self.assignment.response_timeout_s
        renew_s = timeout_s / (_RENEWALS + 1) if timeout_s else float("inf")
        renewed = told = time.monotonic()
        while not self.is_unwanted:
            await asyncio.sleep(min(_LOOK_S, renew_s))
            now = time.monotonic()
            try:
                if now - renewed >= renew_s:
                    await self.queue.renew(self.assignment)
                    renewed = now
                if now - told >= _TELL_S:
                    await self._tell()
                    told = now
                await self._look()
            except PestoError as error:  # the server is away: the work goes on without it
                _LOG.debug("task %s: %s", self.assignment.identity, error)

    async def _tell(self) -> None:
        told = self.lookout.progress()
        for line in (*self.lookout.lines(), *([told] if told else ())):
            await self.queue.log(self.assignment, line)

    async def _look(self) -> None:
        if not await self.queue.is_wanted(self.assignment):
            self.is_unwanted = True
            _LOG.info("task %s is no longer wanted: stopping", self.assignment.identity)
            self.stop()


_DRAIN_S = 3.0
_BUSY_POLL_S, _IDLE_POLL_S = 0.05, 0.5
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.2, 5.0


@dataclass
class WorkerLoop:
    """Everybody who works in one process.

    Attributes:
        queue: Where tasks come from.
        metrics: Where they are counted.
        concurrency: Most tasks of a type at once.
    """

    queue: TaskQueue
    metrics: WorkerMetrics
    concurrency: int
    _hands: dict[tuple[object, ...], Attempt] = field(default_factory=dict)
    _draining: asyncio.Event = field(default_factory=asyncio.Event)
    _works: set[asyncio.Task[None]] = field(default_factory=set)
    _last_task: float = field(default_factory=time.monotonic)

    async def run(self, bindings: Sequence[TaskBinding]) -> None:
        """Work until `drain`.

        Raises:
            InvalidInput: the server refuses us.
        """
        self._pool = ThreadPoolExecutor(self.concurrency * len(bindings), "pesto-task")
        runners = [asyncio.create_task(self._poll(binding)) for binding in bindings]
        try:
            await asyncio.gather(*runners)
        finally:
            self.drain()
            for runner in runners:
                runner.cancel()
            await self._drained()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def drain(self) -> None:
        """Take no more tasks, and stop those in hand at their next tile."""
        self._draining.set()
        for attempt in self._hands.values():
            attempt.stop()

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more tasks."""
        return self._draining.is_set()

    async def _drained(self) -> None:
        """Wait for what is in hand; give back what does not end in time."""
        if self._works:
            await asyncio.wait(self._works, timeout=_DRAIN_S)
        stuck = [each for each in self._hands.values() if not each.ended.is_set()]
        for attempt in stuck:
            try:
                report = given_back("the worker stops")
                await self.queue.report(attempt.assignment, report, and_next=False)
            except PestoError as error:
                _LOG.warning("task %s: %s", attempt.assignment.identity, error)

    async def _poll(self, binding: TaskBinding) -> None:
        """Poll one task type."""
        slots = asyncio.Semaphore(self.concurrency)
        task_type, backoff_s = binding.definition.name, 0.0
        while not self.is_draining:
            free = await _take_all(slots, self.concurrency)
            tasks: list[Assignment] = []
            try:
                tasks = await self.queue.poll(task_type, free)
                self.metrics.polled(task_type, answered=True)
                backoff_s = 0.0
            except InvalidInput:
                raise
            except PestoError as error:
                self.metrics.polled(task_type, answered=False)
                if not backoff_s:
                    _LOG.warning("polling %s: %s", task_type, error)
                backoff_s = min(max(2 * backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
            for _ in range(free - len(tasks)):
                slots.release()
            for task in tasks:
                self._begin(binding, task, slots)
            if not tasks:
                await self._rest(backoff_s or self._pace())

    def _pace(self) -> float:
        """Pause between empty polls: short while tasks come, as one task begets the next."""
        idle_s = time.monotonic() - self._last_task
        return min(max(idle_s / 20, _BUSY_POLL_S), _IDLE_POLL_S)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return

    def _begin(self, binding: TaskBinding, task: Assignment, slots: asyncio.Semaphore) -> None:
        work = asyncio.create_task(self._work(binding, task))
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        work.add_done_callback(lambda _work: slots.release())

    async def _work(self, binding: TaskBinding, first: Assignment) -> None:
        """Perform a task, and the ones that the server answers its result with."""
        task: Assignment | None = first
        while task is not None:
            self._last_task = time.monotonic()
            attempt = Attempt(task, binding, self.queue)
            report = await self._performed(attempt)
            task = None if attempt.is_unwanted else await self._told(attempt.assignment, report)

    async def _performed(self, attempt: Attempt) -> Report:
        if self.is_draining:
            return given_back("the worker stops")
        key = _key(attempt.assignment)
        await self._let_go(key)
        self._hands[key] = attempt
        task_type, begun = attempt.assignment.type, time.monotonic()
        self.metrics.began(task_type)
        try:
            report = await attempt.run(self._pool)
        finally:
            if self._hands.get(key) is attempt:
                del self._hands[key]
        status = "UNWANTED" if attempt.is_unwanted else report.status
        self.metrics.ended(
            task_type, status, seconds=time.monotonic() - begun, tiles=attempt.lookout.tiles
        )
        _LOG.info("%s %s %s", task_type, attempt.assignment.identity, report.reason or status)
        return report

    async def _let_go(self, key: tuple[object, ...]) -> None:
        """End an earlier attempt at the same chunk, whose lease was lost: no tile is made twice."""
        while (earlier := self._hands.get(key)) is not None:
            earlier.is_unwanted = True
            earlier.stop()
            await earlier.ended.wait()
            await asyncio.sleep(0)

    async def _told(self, task: Assignment, report: Report) -> Assignment | None:
        """Report until the server has heard it: a result is not lost to a restart."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                return await self.queue.report(task, report, and_next=not self.is_draining)
            except InvalidInput as error:  # too large, most often
                _LOG.error("task %s: %s", task.identity, error)  # no trace needed
                if report.status == "FAILED_WITH_TERMINAL_ERROR":
                    return None
                report = Report("FAILED_WITH_TERMINAL_ERROR", reason=str(error)[:500])
            except PestoError as error:
                if not error.retryable or self.is_draining:
                    _LOG.warning("task %s: its result is lost: %s", task.identity, error)
                    return None
                await self._rest(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)


async def _take_all(slots: asyncio.Semaphore, most: int) -> int:
    """Wait for a free slot, and take all that are."""
    await slots.acquire()
    taken = 1
    while taken < most and not slots.locked():
        await slots.acquire()
        taken += 1
    return taken


def _key(task: Assignment) -> tuple[object, ...]:
    """What no two attempts may have in hand at once: a chunk; any other task, only itself."""
    if "plan" in task.input and "start" in task.input:
        names = ("plan", "phase", "start", "stop")
        return tuple(str(task.input.get(name)) for name in names)
    return (task.identity,)
