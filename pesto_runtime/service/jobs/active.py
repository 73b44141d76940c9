"""A job that is not over, in memory: how far it is, who waits for it, and what stops it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError, StoreFailed
from pesto_runtime.service.jobs.database import JobStore
from pesto_runtime.service.jobs.results import results_of, taken_apart
from pesto_runtime.service.jobs.states import (
    Event,
    Failed,
    Progressed,
    Record,
    ServiceStopped,
    Started,
    Succeeded,
    advance,
)
from pesto_runtime.service.logs import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.service.jobs.database import AsyncJobStore
    from pesto_runtime.service.jobs.files import JobFolder
    from pesto_runtime.service.jobs.results import JobRequest
    from pesto_runtime.service.jobs.states import Dismissed
    from pesto_runtime.service.runs import CallResponse, CallRunner


_LOG = logging.getLogger(__name__)
_MOST_LINES = 200
_LINE_CHARS = 2000


class ActiveJob:
    """One job on the event loop.

    Attributes:
        record: As it is kept; progress and log lines come to it when it ends.
        dismissal: Why it is to end, as soon as that is known.
        ended: Set once its end is kept.
        lease_until: When it is dismissed unless somebody asks for it; None for never.
        is_unsaved: Whether its end could not be kept yet.
    """

    def __init__(self, record: Record) -> None:
        """Take a job up; its lease begins anew."""
        self.record = record
        self.dismissal: Dismissed | None = None
        self.ended = asyncio.Event()
        self.is_unsaved = False
        self.lease_until: float | None = None
        self._log: deque[str] = deque(maxlen=_MOST_LINES)
        self._work: asyncio.Task[CallResponse] | None = None
        self._is_stopped = False
        self._watchers = 0
        self.seen()

    def seen(self) -> Record:
        """The job as it is now, for somebody who asks: that renews its lease."""
        if self.record.lease_s is not None and not self.record.is_over:
            self.lease_until = time.time() + self.record.lease_s
        return replace(self.record, log=tuple(self._log)) if self._log else self.record

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Renew the lease for as long as somebody waits."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            self.seen()

    def has_lapsed(self, now: float) -> bool:
        """Whether nobody has asked for it for too long; told once."""
        if self.lease_until is None or self._watchers or self.lease_until > now:
            return False
        self.lease_until = None
        return not self.record.is_over

    async def work(self, runs: CallRunner, order: JobRequest) -> CallResponse | None:
        """Run it; None where it was stopped.

        Raises:
            PestoError: what running it raised.
        """
        if self._is_stopped:
            return None
        self._work = asyncio.ensure_future(
            runs.run(
                order.payload,
                from_here=order.from_here,
                on_progress=self._progressed,
                on_log=self._logged,
            )
        )
        await asyncio.wait({self._work})
        return None if self._work.cancelled() else self._work.result()

    def stop(self) -> None:
        """Stop its work, now or as soon as it would begin."""
        self._is_stopped = True
        if self._work is not None:
            self._work.cancel()

    def settled(self, record: Record) -> Record:
        """Take its last record, log and all."""
        self.record = replace(record, log=tuple(self._log))
        return self.record

    def _progressed(self, done: float, total: float) -> None:
        self.record = advance(self.record, Progressed(100.0 * done / total), 0.0)

    def _logged(self, line: str) -> None:
        self._log.append(line[:_LINE_CHARS])
        with bound(job=self.record.id):
            _LOG.info("%s", line)


@dataclass(frozen=True)
class JobWork:
    """Has jobs run, and keeps how they end.

    Attributes:
        runs: What performs calls.
        records: Where jobs are recorded.
        folder: Where their files are.
        ttl_s: Seconds that results are kept.
    """

    runs: CallRunner
    records: AsyncJobStore
    folder: JobFolder
    ttl_s: float

    async def event_of(self, active: ActiveJob) -> Event:
        """Run a job; how that ended."""
        with bound(job=active.record.id):
            event = await self._event_of(active)
            _LOG.info("job ended: %s", type(event).__name__.lower())
        return event

    async def _event_of(self, active: ActiveJob) -> Event:
        try:
            return await self._run(active)
        except PestoError as error:
            return Failed(time.time(), error.to_problem())
        except Exception as error:  # noqa: BLE001  # a fault of ours fails the job, not the service
            _LOG.exception("job %s failed by a fault of this package", active.record.id)
            bug = PestoError(f"internal error: {type(error).__name__}")
            return Failed(time.time(), bug.to_problem())

    async def settle(self, active: ActiveJob, event: Event) -> bool:
        """Keep how a job ended, or that it waits again; whether it could be kept."""
        record = active.settled(advance(active.record, event, self.ttl_s))
        try:
            await self.records(JobStore.put, record)
        except StoreFailed as error:
            _LOG.error("job %s: %s", record.id, error)
            return False
        return True

    async def tidy(self, record: Record) -> None:
        """Delete the files that a job no longer needs."""
        if not record.is_kept:
            await asyncio.to_thread(self.folder.delete, record.id)
        elif record.is_over:
            await asyncio.to_thread(self.folder.delete_request, record.id)

    async def _run(self, active: ActiveJob) -> Event:
        job_id = active.record.id
        active.record = advance(active.record, Started(time.time()), self.ttl_s)
        await self.records(JobStore.put, active.record)
        request = await self.records(JobStore.request, job_id)
        order = await asyncio.to_thread(self.folder.read_request, job_id, request)
        answer = await active.work(self.runs, order)
        if answer is None:
            return ServiceStopped(time.time(), "again", is_crash=False)
        description = self.runs.facts.description
        pieces = await asyncio.to_thread(taken_apart, answer, description)
        await asyncio.to_thread(self.folder.write_results, job_id, pieces)
        return Succeeded(time.time(), results_of(pieces), answer.media_type)
