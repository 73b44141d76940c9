"""Takes jobs, has them run, keeps what they leave, and lets go of those that nobody wants.

Lives on the event loop; SQLite has one thread of its own, files and JSON go through others.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.errors import Busy, NotFound, PestoError
from pesto_runtime.service.jobs.active import ActiveJob, JobWork
from pesto_runtime.service.jobs.database import AsyncJobStore, JobStore, same_request
from pesto_runtime.service.jobs.files import JobFolder
from pesto_runtime.service.jobs.results import put_together
from pesto_runtime.service.jobs.states import (
    Dismissed,
    Event,
    Expired,
    Record,
    ServiceStopped,
    advance,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pesto_runtime.service.jobs.results import JobRequest
    from pesto_runtime.service.jobs.states import JobOptions
    from pesto_runtime.service.runs import CallResponse, CallRunner

_LOG = logging.getLogger(__name__)
_TICK_S = 0.25
_FORGET_S = 30 * 86_400.0

T = TypeVar("T")


class JobManager:
    """The jobs of one service."""

    def __init__(self, runs: CallRunner, options: JobOptions, *, at_once: int) -> None:
        """Take what runs jobs, and how many `at_once`; nothing is opened before `open`."""
        self.options = options
        self._runs = runs
        self._at_once = at_once
        self._active: dict[str, ActiveJob] = {}
        self._waiting: dict[str, ActiveJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawned: set[asyncio.Task[object]] = set()
        self._is_paused = False
        self._ticking: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Jobs that run."""
        return len(self._tasks)

    def counts(self) -> dict[str, int]:
        """Jobs that are not over, by state."""
        return {"accepted": len(self._waiting), "running": len(self._tasks)}

    async def open(self) -> None:
        """Open the records, and take up what was left; nothing where that is done already.

        Raises:
            StoreRefused: the folder is another service's.
            StoreFailed: it cannot be opened.
        """
        if self._ticking is not None:
            return
        self.folder = await asyncio.to_thread(JobFolder, self.options.folder)
        try:
            await self._take_up()
        except BaseException:
            await asyncio.to_thread(self.folder.close)
            raise
        self._ticking = asyncio.create_task(self._tick_forever())

    def pause(self) -> None:
        """Start no more jobs; those that wait are taken up when it opens again."""
        self._is_paused = True

    async def close(self) -> None:
        """Stop; what still runs is taken up when it opens again."""
        if self._ticking is None:
            return
        self.pause()
        self._ticking.cancel()
        for active in self._active.values():
            active.stop()
        while self._tasks or self._spawned:
            await asyncio.wait(self._tasks | self._spawned)
        await self._records.close()
        await asyncio.to_thread(self.folder.close)

    async def submit(self, order: JobRequest) -> Record:
        """Accept a job, kept before this returns; or the one that its key stands for.

        Raises:
            KeyConflict: the key came before with another request.
            Busy: too many jobs wait.
            StoreFailed: it cannot be kept.
        """
        return await asyncio.shield(self._spawn(self._accept(order)))

    async def find(self, job_id: str) -> Record:
        """A job as it is now.

        Raises:
            NotFound: there is none of this id.
        """
        if job_id in self._active:
            return self._active[job_id].seen()
        record = await self._records(JobStore.find, job_id)
        if job_id in self._active:  # it was accepted meanwhile
            return self._active[job_id].seen()
        if record is None:
            raise NotFound(f"there is no job {job_id}")
        return record

    def lease_until(self, job_id: str) -> float | None:
        """When a job is dismissed unless somebody asks for it; None for never."""
        active = self._active.get(job_id)
        return active.lease_until if active is not None else None

    async def wait(self, job_id: str, seconds: float | None) -> Record:
        """A job once it is over, or after so many seconds; None for as long as it takes.

        Raises:
            NotFound: there is none of this id.
        """
        record = await self.find(job_id)
        active = self._active.get(job_id)
        if active is None:
            return record
        with active.watched():
            try:
                async with asyncio.timeout(seconds):
                    await active.ended.wait()
            except TimeoutError:
                return active.seen()
        return active.record

    async def kept(self, key: str | None = None) -> list[str]:
        """Ids of jobs that are not gone; with a key, of the one that it stands for."""
        if key is None:
            return await self._records(JobStore.kept)
        record = await self._records(JobStore.holding, key)
        return [] if record is None else [record.id]

    async def dismiss(self, job_id: str, why: str) -> Record:
        """Stop a job where it runs, and drop what it left; returns when that has happened.

        Raises:
            NotFound: there is none of this id.
        """
        await self.find(job_id)
        return await asyncio.shield(self._spawn(self._dismiss(job_id, why)))

    async def change(self, job_id: str, event: Event) -> Record:
        """Let something happen to a job that is over.

        Raises:
            NotFound: there is none of this id.
        """
        changed = await self._records(JobStore.change, job_id, event, self.options.ttl_s)
        if changed is None:
            raise NotFound(f"there is no job {job_id}")
        if not changed.is_kept:
            await asyncio.to_thread(self.folder.delete, job_id)
        return changed

    async def answer(self, record: Record) -> CallResponse:
        """The answer that a job was, put together again.

        Raises:
            StoreFailed: its files cannot be read.
        """

        def read() -> CallResponse:
            pieces = self.folder.read_results(record.id, record.results)
            return put_together(pieces, record.answer_type)

        return await asyncio.to_thread(read)

    async def _accept(self, order: JobRequest) -> Record:
        digest = await asyncio.to_thread(order.digest)
        if order.key is not None:
            known = await self._records(JobStore.holding, order.key)
            if known is not None:
                return await self.find(same_request(known, digest).id)
        if len(self._waiting) >= self.options.waiting:
            raise Busy(f"{len(self._waiting)} jobs wait; no room for more now", retry_after_s=5)
        job_id = uuid.uuid4().hex
        record = Record(job_id, digest, time.time(), order.key, order.lease_s)
        try:
            request = await asyncio.to_thread(self.folder.write_request, job_id, order)
            taken = await self._records(JobStore.add, record, request)
        except BaseException:
            await asyncio.to_thread(self.folder.delete, job_id)
            raise
        if taken.id != job_id:  # the same key came at the same time
            await asyncio.to_thread(self.folder.delete, job_id)
            return await self.find(taken.id)
        self._enqueue(record)
        self._pump()
        return record

    async def _dismiss(self, job_id: str, why: str) -> Record:
        event = Dismissed(time.time(), why)
        active = self._active.get(job_id)
        if active is not None:
            active.dismissal = event
            if self._waiting.pop(job_id, None) is not None:
                await self._settle(active, event)
            active.stop()
            await active.ended.wait()
            if not active.record.is_kept:
                return active.record
        return await self.change(job_id, event)

    async def _take_up(self) -> None:
        process = self._runs.facts.description.name
        self._records = await AsyncJobStore.open(self.folder.database, process=process)
        self._work = JobWork(self._runs, self._records, self.folder, self.options.ttl_s)
        left = ServiceStopped(time.time(), self.options.interrupted, is_crash=True)
        for record in await self._records(JobStore.unfinished):
            taken = advance(record, left, self.options.ttl_s)
            if taken != record:
                await self._records(JobStore.put, taken)
            if not taken.is_over:
                self._enqueue(taken)
        kept = await self._records(JobStore.kept)
        await asyncio.to_thread(self.folder.sweep, kept)
        await self._records(JobStore.forget, time.time() - _FORGET_S)

    def _enqueue(self, record: Record) -> None:
        active = ActiveJob(record)
        self._active[record.id] = self._waiting[record.id] = active

    def _pump(self) -> None:
        """Start what waits, first come first, while there is room."""
        if self._is_paused or self._runs.state != "OK":
            return
        while self._waiting and self.running < self._at_once:
            active = self._waiting.pop(next(iter(self._waiting)))
            task = asyncio.create_task(self._perform(active))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pump()

    async def _perform(self, active: ActiveJob) -> None:
        event = await self._work.event_of(active)
        await self._settle(active, active.dismissal or event)

    async def _settle(self, active: ActiveJob, event: Event) -> None:
        active.is_unsaved = not await self._work.settle(active, event)
        if not active.is_unsaved:
            del self._active[active.record.id]
        active.ended.set()
        await self._work.tidy(active.record)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self._tick(time.time())
            except PestoError as error:  # a disk that is full now may not be so later
                _LOG.error("%s", error)

    async def _tick(self, now: float) -> None:
        self._pump()
        for active in [each for each in self._active.values() if each.is_unsaved]:
            await self._records(JobStore.put, active.record)
            del self._active[active.record.id]
        lapsed = [each.record for each in self._active.values() if each.has_lapsed(now)]
        for record in lapsed:
            why = f"nobody has asked for it for {record.lease_s:g} s, its lease"
            self._spawn(self._dismiss(record.id, why))
        for record in await self._records(JobStore.expired, now):
            await self.change(record.id, Expired())

    def _spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Begin what is done to its end, whoever stops waiting for it."""
        task = asyncio.create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task
