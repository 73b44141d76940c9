"""One job's work, from what was asked to what is kept of it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError, StoreFailed
from pesto_runtime.service.jobs.results import results_of, taken_apart
from pesto_runtime.service.jobs.states import (
    Event,
    Failed,
    Record,
    ServiceStopped,
    Started,
    Succeeded,
    advance,
)
from pesto_runtime.service.jobs.store import JobStore
from pesto_runtime.service.logs import bound

if TYPE_CHECKING:
    from pesto_runtime.service.jobs.active import ActiveJob
    from pesto_runtime.service.jobs.folder import JobFolder
    from pesto_runtime.service.jobs.records import AsyncJobStore
    from pesto_runtime.service.runs import CallRunner

_LOG = logging.getLogger(__name__)


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
