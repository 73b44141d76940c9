"""Accept jobs, run them in order, store their results, and delete expired and cancelled ones.

It runs on the event loop; SQLite has a thread of its own, files and JSON use other threads. How one
job runs is in `active`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.errors import Busy, NotFound, PestoError
from pesto_runtime.service.jobs.active import ActiveJob, JobWork, SteadyClock
from pesto_runtime.service.jobs.database import AsyncJobStore, JobStore, same_request
from pesto_runtime.service.jobs.files import JobFolder
from pesto_runtime.service.jobs.quota import JobQuota
from pesto_runtime.service.jobs.results import join_response
from pesto_runtime.service.jobs.states import (
    Dismissed,
    Event,
    Expired,
    Record,
    ServiceStopped,
    advance,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pesto_runtime.service.jobs.results import JobRequest
    from pesto_runtime.service.jobs.states import JobOptions
    from pesto_runtime.service.runner import CallResponse, CallRunner

_LOG = logging.getLogger(__name__)
_TICK_S = 0.25
_FORGET_S = 30 * 86_400.0

T = TypeVar("T")


class JobManager:
    """The jobs of one service.

    Attributes:
        on_end: Called on the event loop with each job that has ended.
    """

    def __init__(
        self,
        runs: CallRunner,
        options: JobOptions,
        *,
        most_running: int,
        quota: JobQuota | None = None,
    ) -> None:
        """Prepare; `open` opens the folder, and at most `most_running` jobs run at a time.

        Args:
            runs: Performs their calls.
            options: Where and how long they are stored.
            most_running: Number of jobs that run at once.
            quota: Of each caller, shared with other processes of the service; None for its own.
        """
        self.options = options
        self._runs = runs
        self._most_running = most_running
        # A time server or an administrator may change the system's clock: leases of running jobs
        # and the time to live of results do not end because of that.
        self._clock = SteadyClock()
        self._quota = quota or JobQuota(options)
        self._quota.add(self._usage)
        self._active: dict[str, ActiveJob] = {}
        self._waiting: dict[str, ActiveJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawned: set[asyncio.Task[object]] = set()
        self._is_paused = False
        self.on_end: Callable[[Record], None] = lambda _record: None
        self._ticking: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Number of jobs that run."""
        return len(self._tasks)

    def counts(self) -> dict[str, int]:
        """Return the number of jobs that are not over, by state."""
        return {"accepted": len(self._waiting), "running": len(self._tasks)}

    async def open(self) -> None:
        """Open the folder, and continue with the jobs in it; do nothing if it is open.

        Raises:
            StoreRefused: another service uses the folder.
            StoreFailed: it cannot be opened.
        """
        if self._ticking is not None:
            return
        self.folder = await asyncio.to_thread(JobFolder, self.options.folder)
        try:
            await self._recover()
        except BaseException:
            await asyncio.to_thread(self.folder.close)
            raise
        self._ticking = asyncio.create_task(self._tick_forever())

    def pause(self) -> None:
        """Start no more jobs; those that wait run after the next `open`."""
        self._is_paused = True

    async def close(self) -> None:
        """Stop; jobs that still run start again after the next `open`."""
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

    async def submit(self, request: JobRequest) -> Record:
        """Accept a job, or return the job of its key; it is stored before this returns.

        Raises:
            KeyConflict: the key was used with another request.
            Busy: too many jobs wait; `OverQuota` if the caller has too many.
            StoreFailed: it cannot be stored.
        """
        return await asyncio.shield(self._spawn(self._accept(request)))

    async def find(self, job_id: str) -> Record:
        """Return a job as it is now, and renew its lease.

        Raises:
            NotFound: there is no job of this id.
        """
        if job_id in self._active:
            return self._active[job_id].requested()
        record = await self._records(JobStore.find, job_id)
        if job_id in self._active:  # it was accepted during the await
            return self._active[job_id].requested()
        if record is None:
            raise NotFound(f"there is no job {job_id}")
        return record

    def lease_until(self, job_id: str) -> float | None:
        """Return when a job is dismissed without a request for it; None for never."""
        active = self._active.get(job_id)
        return active.lease_until if active is not None else None

    async def wait(self, job_id: str, seconds: float | None) -> Record:
        """Return a job once it is over, or after so many seconds; None waits for its end.

        Raises:
            NotFound: there is no job of this id.
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
                return active.requested()
        return active.record

    async def owner_of(self, job_id: str) -> str | None:
        """Return the caller whose job this is, without renewing it; None if there is none."""
        if job_id in self._active:
            return self._active[job_id].record.caller
        record = await self._records(JobStore.find, job_id)
        return None if record is None else record.caller

    async def ids(self, caller: str = "", key: str | None = None) -> list[str]:
        """Return the ids of a caller's jobs that have files; with a key, that of its job."""
        if key is None:
            return await self._records(JobStore.ids, caller)
        record = await self._records(JobStore.find_by_key, key, caller)
        return [] if record is None else [record.id]

    async def newest(self, caller: str, most: int) -> list[Record]:
        """Return the last jobs of a caller that have files, without renewing their leases."""
        found = []
        for job_id in (await self._records(JobStore.ids, caller))[-most:]:
            active = self._active.get(job_id)
            record = active.record if active else await self._records(JobStore.find, job_id)
            found += [] if record is None else [record]
        return found

    async def dismiss(self, job_id: str, why: str) -> Record:
        """Stop a job, and delete its files; return when that is done.

        Raises:
            NotFound: there is no job of this id.
        """
        await self.find(job_id)
        return await asyncio.shield(self._spawn(self._dismiss(job_id, why)))

    async def change(self, job_id: str, event: Event) -> Record:
        """Apply an event to a job that is over.

        Raises:
            NotFound: there is no job of this id.
        """
        changed = await self._records(JobStore.change, job_id, event, self.options.ttl_s)
        if changed is None:
            raise NotFound(f"there is no job {job_id}")
        if not changed.is_kept:
            await asyncio.to_thread(self.folder.delete, job_id)
        return changed

    async def response(self, record: Record) -> CallResponse:
        """Return the response of the call that was a job, joined from its results.

        Raises:
            StoreFailed: its files cannot be read.
        """

        def read() -> CallResponse:
            pieces = self.folder.read_results(record.id, record.results)
            return join_response(pieces, record.answer_type)

        return await asyncio.to_thread(read)

    async def _accept(self, request: JobRequest) -> Record:
        digest = await asyncio.to_thread(request.digest)
        if request.key is not None:
            known = await self._records(JobStore.find_by_key, request.key, request.caller)
            if known is not None:
                return await self.find(same_request(known, digest).id)
        if len(self._waiting) >= self.options.waiting:
            raise Busy(f"{len(self._waiting)} jobs wait; no room for more now", retry_after_s=5)
        with self._quota.reserved(request.caller, len(request.payload.body)):
            await self._quota.require(request.caller)
            return await self._stored(request, digest)

    async def _usage(self, caller: str) -> tuple[int, int]:
        """Return the jobs of a caller that are not over, and the bytes that its jobs store."""
        stored = await self._records(JobStore.bytes_of, caller)
        return sum(each.record.caller == caller for each in self._active.values()), stored

    async def _stored(self, request: JobRequest, digest: str) -> Record:
        job_id = uuid.uuid4().hex
        record = Record(
            job_id,
            digest,
            self._clock.now(),
            request.key,
            request.lease_s,
            caller=request.caller,
            choice=request.choice,
            size=len(request.payload.body),
        )
        try:
            rest = await asyncio.to_thread(self.folder.write_request, job_id, request)
            added = await self._records(JobStore.add, record, rest)
        except BaseException:
            await asyncio.to_thread(self.folder.delete, job_id)
            raise
        # Two requests with one key may both pass the check above, at the awaits between. The
        # store, which has one thread, decides which of them becomes the job.
        if added.id != job_id:
            await asyncio.to_thread(self.folder.delete, job_id)
            return await self.find(added.id)
        self._enqueue(record)
        self._start_waiting()
        return record

    async def _dismiss(self, job_id: str, why: str) -> Record:
        event = Dismissed(self._clock.now(), why)
        active = self._active.get(job_id)
        if active is not None:
            active.dismissal = event
            if self._waiting.pop(job_id, None) is not None:
                await self._end(active, event)
            active.stop()
            await active.ended.wait()
            if not active.record.is_kept:
                return active.record
        return await self.change(job_id, event)

    async def _recover(self) -> None:
        process = self._runs.facts.description.name
        self._records = await AsyncJobStore.open(self.folder.database, process=process)
        self._work = JobWork(
            self._runs, self._records, self.folder, self.options.ttl_s, self._clock
        )
        crash = ServiceStopped(self._clock.now(), self.options.interrupted, is_crash=True)
        for record in await self._records(JobStore.unfinished):
            recovered = advance(record, crash, self.options.ttl_s)
            if recovered != record:
                await self._records(JobStore.put, recovered)
            if not recovered.is_over:
                self._enqueue(recovered)
        await asyncio.to_thread(self.folder.sweep, await self._records(JobStore.ids))
        await self._records(JobStore.delete_expired, self._clock.now() - _FORGET_S)

    def _enqueue(self, record: Record) -> None:
        active = ActiveJob(record, self._clock)
        self._active[record.id] = self._waiting[record.id] = active

    def _start_waiting(self) -> None:
        """Start waiting jobs in the order of their creation, while there is room."""
        if self._is_paused or self._runs.state != "OK":
            return
        while self._waiting and self.running < self._most_running:
            active = self._waiting.pop(next(iter(self._waiting)))
            task = asyncio.create_task(self._perform(active))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_waiting()

    async def _perform(self, active: ActiveJob) -> None:
        event = await self._work.run(active)
        await self._end(active, active.dismissal or event)

    async def _end(self, active: ActiveJob, event: Event) -> None:
        active.is_unsaved = not await self._work.store_end(active, event)
        if not active.is_unsaved:
            del self._active[active.record.id]
        active.ended.set()
        self.on_end(active.record)
        await self._work.delete_unneeded_files(active.record)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self._tick(self._clock.now())
            except PestoError as error:  # the disk may be full; the next tick tries again
                _LOG.error("%s", error)

    async def _tick(self, now: float) -> None:
        self._start_waiting()
        for active in [each for each in self._active.values() if each.is_unsaved]:
            await self._records(JobStore.put, active.record)
            del self._active[active.record.id]
        lapsed = [each.record for each in self._active.values() if each.has_lapsed(now)]
        for record in lapsed:
            why = f"no request for it within its lease of {record.lease_s:g} s"
            self._spawn(self._dismiss(record.id, why))
        for record in await self._records(JobStore.expired, now):
            await self.change(record.id, Expired())

    def _spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Start a task that is not cancelled when its caller is, and keep a reference to it."""
        # The event loop has weak references only: a task without another one may disappear,
        # https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
        task = asyncio.create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task
