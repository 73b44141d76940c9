"""Poll Conductor for tasks, run each in a thread, and report its result: the loop of one process.

One event loop polls all task types. The SDK's `TaskHandler` starts a process per type, leaves
processes behind after SIGTERM, loses a result after a minute without a server, and takes tasks that
it does not run because it is stopping. This file does not send requests: `taskqueue.py` does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_conductor.attempts import Attempt, exclusive_key
from pesto_conductor.errors import Report, died_with, returned_to_queue
from pesto_conductor.polling import PollSettings
from pesto_conductor.wakeups import Wakeups
from pesto_runtime.errors import InvalidInput, PestoError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pesto_conductor.binding import TaskBinding
    from pesto_conductor.journal import Journal
    from pesto_conductor.metrics import WorkerMetrics
    from pesto_conductor.taskqueue import Assignment, TaskQueue

    NewBindings = Callable[[], Awaitable[Sequence[TaskBinding]]]

_LOG = logging.getLogger(__name__)

_DRAIN_S = 3.0
_POLLS_END_S = 5.5
_POLL_CHECK_S = 0.5
_BUSY_POLL_S, _IDLE_POLL_S = 0.05, 0.5
_SHORT_POLL_S = 0.1
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.2, 5.0
_LATE_S = 2.0
"""A poll without a task that returns so late has waited for a thread of the server."""
_SHORT_POLLS_S = 60.0
_NEW_TYPES_S = 15.0
_RESTS_AFTER_S = 30.0
_LONGEST_REST_S = 5.0
_IDLE_POLLS_PER_S = 1.8
"""Polls of all types together, while there has been no task for `_RESTS_AFTER_S`."""


@dataclass
class WorkerLoop:
    """The loop of one worker process.

    Attributes:
        queue: The tasks of the server.
        metrics: Counts polls and tasks.
        concurrency: Most tasks at once, over all types.
        domain: Task domain to poll in, unless the environment has another one for a type.
        journal: Receives the tasks in hand; None for no such file.
        new_bindings: Returns bindings of task types that have been registered since.
    """

    queue: TaskQueue
    metrics: WorkerMetrics
    concurrency: int
    domain: str | None = None
    journal: Journal | None = None
    new_bindings: NewBindings | None = None
    _attempts: dict[tuple[object, ...], Attempt] = field(default_factory=dict)
    _draining: asyncio.Event = field(default_factory=asyncio.Event)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _pollers: set[asyncio.Task[None]] = field(default_factory=set)
    _last_task: float = field(default_factory=time.monotonic)
    _rest_ends: asyncio.Event = field(default_factory=asyncio.Event)
    _polls_short_until: float = 0.0
    _polls_end: float = float("inf")

    async def run(self, bindings: Sequence[TaskBinding]) -> None:
        """Work until `drain` is called.

        Raises:
            InvalidInput: the server rejects a request, most often for its credentials.
        """
        self._pool = ThreadPoolExecutor(self.concurrency, "pesto-task")
        self._wakeups = Wakeups(self.queue)
        beside = [asyncio.create_task(self._wakeups.run())]
        if self.new_bindings is not None:
            beside.append(asyncio.create_task(self._look_for_types(self.new_bindings)))
        try:
            await self._return_predecessors()
            self._poll_all(bindings)
            while self._pollers and time.monotonic() < self._polls_end:
                done, _ = await asyncio.wait(
                    self._pollers, return_when=asyncio.FIRST_COMPLETED, timeout=_POLL_CHECK_S
                )
                for poller in done:
                    self._pollers.discard(poller)
                    poller.result()
        finally:
            self.drain()
            for task in (*self._pollers, *beside):
                task.cancel()
            await self._finish_attempts()
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _return_predecessors(self) -> None:
        """Return the tasks that a process before this one had in hand when it died."""
        left = self.journal.take_over(self.queue.worker) if self.journal else None
        if left is None:
            return
        await self._return_after_death(left.tasks.values())
        for workflow in dict.fromkeys(left.workflows):
            # Also those that the server has assigned by a response that was never read.
            with suppress(PestoError):
                found = await self.queue.assigned(workflow, left.worker)
                await self._return_after_death(e for e in found if e.identity not in left.tasks)

    async def _return_after_death(self, tasks: Iterable[Assignment]) -> None:
        for task in tasks:
            try:
                await self.queue.report(task, died_with(task.deaths + 1), and_next=False)
                _LOG.info("%s %s returned: its process died", task.type, task.identity)
            except PestoError as error:  # its lease will end
                _LOG.warning("task %s: %s", task.identity, error)

    def _poll_all(self, bindings: Iterable[TaskBinding]) -> None:
        for binding in bindings:
            settings = PollSettings.of(
                binding.definition.name, concurrency=self.concurrency, domain=self.domain
            )
            if not settings.is_paused:
                self._pollers.add(asyncio.create_task(self._poll(binding, settings)))

    async def _look_for_types(self, new_bindings: NewBindings) -> None:
        while not self.is_draining:
            await self._pause(_NEW_TYPES_S)
            try:
                found = await new_bindings()
            except PestoError as error:
                _LOG.debug("new task types: %s", error)
                continue
            if found:
                _LOG.info("new task types: %s", ", ".join(each.definition.name for each in found))
                self._poll_all(found)

    def drain(self) -> None:
        """Take no more tasks, and stop running ones at their next tile.

        Open polls are awaited: a task that is assigned to a closed one is lost for its lease.
        """
        if not self.is_draining:
            self._polls_end = time.monotonic() + _POLLS_END_S
        self._draining.set()
        self._rest_ends.set()
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

    async def _poll(self, binding: TaskBinding, settings: PollSettings) -> None:
        """Poll one task type, for as many tasks as there are free slots."""
        slots = asyncio.Semaphore(settings.most)
        backoff_s, has_more = 0.0, False
        while not self.is_draining:
            free = await _take_all(slots, settings.most)
            # One task may wait for a thread, so that no type waits for ever behind another one.
            idle = self.concurrency - len(self._running)
            if idle <= 0 and free < settings.most:
                _release(slots, free)
                await self._pause(_SHORT_POLL_S)
                continue
            wait_s = _SHORT_POLL_S if has_more else self._wait_s(settings)
            # For more than one task the server waits until it has as many, or the time is over.
            count = 1 if wait_s > _SHORT_POLL_S else min(free, max(idle, 1))
            tasks = await self._take(
                binding.definition.name, count, wait_s, settings.domain, warns=not backoff_s
            )
            _release(slots, free - len(tasks or ()))
            for task in tasks or ():
                self._begin(binding, task, slots)
            has_more, failed = bool(tasks), tasks is None
            backoff_s = _longer(backoff_s) if failed else 0.0
            if failed or (not tasks and not self._may_rest(settings, wait_s)):
                await self._pause(backoff_s or self._poll_interval_s(settings, wait_s))
            elif not tasks:
                await self._rest(wait_s)

    async def _take(
        self, task_type: str, count: int, wait_s: float, domain: str | None, *, warns: bool
    ) -> list[Assignment] | None:
        """Take tasks of a type; return None if the server does not respond."""
        begun = time.monotonic()
        try:
            tasks = await self.queue.poll(task_type, count, wait_s=wait_s, domain=domain)
        except PestoError as error:
            # Later, it may be a server of tokens that does not respond: /health tells the platform.
            if isinstance(error, InvalidInput) and not self.metrics.has_polled:
                raise
            self.metrics.polled(task_type, responded=False)
            if warns:
                _LOG.warning("polling %s: %s", task_type, error)
            return None
        self.metrics.polled(task_type, responded=True)
        if time.monotonic() - begun > wait_s + _LATE_S:
            self._polls_short_until = time.monotonic() + _SHORT_POLLS_S
        return tasks

    def _wait_s(self, settings: PollSettings) -> float:
        """Return the time of a long poll; short if the server has no thread for long ones."""
        is_short = time.monotonic() < self._polls_short_until
        return min(settings.wait_s, _SHORT_POLL_S) if is_short else settings.wait_s

    def _poll_interval_s(self, settings: PollSettings, wait_s: float) -> float:
        """Return the pause between empty polls; short after a task, which often starts others."""
        if settings.interval_s is not None:
            return settings.interval_s
        if wait_s > _SHORT_POLL_S:
            return 0.0
        if settings.wait_s > _SHORT_POLL_S and time.monotonic() < self._polls_short_until:
            return settings.wait_s
        idle_s = time.monotonic() - self._last_task
        return min(max(idle_s / 20, _BUSY_POLL_S), _IDLE_POLL_S)

    def _may_rest(self, settings: PollSettings, wait_s: float) -> bool:
        is_idle = time.monotonic() - self._last_task > _RESTS_AFTER_S
        return is_idle and settings.interval_s is None and wait_s > _SHORT_POLL_S

    async def _rest(self, wait_s: float) -> None:
        """Pause between long polls until the worker has a task of any type.

        Up to 18 types then have less than two polls per second together; more types have more.
        """
        rest_s = min(len(self._pollers) / _IDLE_POLLS_PER_S - wait_s, _LONGEST_REST_S)
        if rest_s > 0:
            self._rest_ends.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rest_ends.wait(), rest_s)

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
            self._rest_ends.set()
            attempt, taken = Attempt(task, binding, self.queue), task
            if self.journal is not None:
                self.journal.began(taken)
            report = await self._run_attempt(attempt)
            task = None if attempt.is_unwanted else await self._deliver(attempt, report)
            if self.journal is not None:
                self.journal.ended(taken)
            others = (each.assignment.workflow for each in self._attempts.values())
            if report.status == "COMPLETED" and taken.workflow not in others:
                self._wakeups.reported(taken.workflow)
            elif report.status.startswith("FAILED"):
                # A decision between a failure and its retry can end the workflow (Conductor 3.32).
                self._wakeups.forget(taken.workflow)

    async def _run_attempt(self, attempt: Attempt) -> Report:
        # A task that arrives with a result while the loop drains has cost no attempt yet.
        if self.is_draining:
            return returned_to_queue("the worker stops")
        key = exclusive_key(attempt.assignment)
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

    async def _deliver(self, attempt: Attempt, report: Report) -> Assignment | None:
        """Report a result until the server has accepted it; return the next task of the type.

        A result survives a restart of the server in this way. The result of an attempt that has a
        successor is dropped: if the server was killed before it ended the earlier attempt, it would
        go on from that result with the output of the later one, which is still empty.
        """
        task, backoff_s = attempt.assignment, _FIRST_BACKOFF_S
        while True:
            try:
                if attempt.may_be_superseded and await self.queue.is_superseded(task):
                    _LOG.warning(
                        "task %s: its lease ended, and the server has begun another attempt: "
                        "the result of this one is dropped", task.identity,
                    )  # fmt: skip
                    return None
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


async def _take_all(slots: asyncio.Semaphore, most: int) -> int:
    """Wait for a free slot, then take all free ones; return their number."""
    await slots.acquire()
    taken = 1
    while taken < most and not slots.locked():
        await slots.acquire()
        taken += 1
    return taken


def _longer(backoff_s: float) -> float:
    return min(max(2 * backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)


def _release(slots: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        slots.release()
