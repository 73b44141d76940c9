"""Run one job, and store how it ended: progress, log lines, lease and cancellation meanwhile.

`manager` decides when a job runs; `states` computes its records.
"""

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
from pesto_runtime.service.jobs.results import results_of, split_response
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
    from pesto_runtime.service.runner import CallResponse, CallRunner


_LOG = logging.getLogger(__name__)
_MOST_LINES = 200
_LINE_CHARS = 2000


class SteadyClock:
    """Seconds since the epoch, which no change of the system's clock affects while it is used."""

    def __init__(self) -> None:
        """Start with the system's time of now."""
        self._start = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._start + time.monotonic()


class ActiveJob:
    """A job that is not over, on the event loop.

    Attributes:
        record: As stored; progress and log lines are added when it ends.
        dismissal: Set when the job is to be cancelled.
        ended: Set once its end is stored.
        lease_until: When it is dismissed without a request for it; None for never.
        is_unsaved: Whether its end could not be stored yet.
    """

    def __init__(self, record: Record, clock: SteadyClock) -> None:
        """Begin with a record; its lease starts now."""
        self.record = record
        self._clock = clock
        self.dismissal: Dismissed | None = None
        self.ended = asyncio.Event()
        self.is_unsaved = False
        self.lease_until: float | None = None
        self._log: deque[str] = deque(maxlen=_MOST_LINES)
        self._call: asyncio.Task[CallResponse] | None = None
        self._is_stopped = False
        self._watchers = 0
        self.requested()

    def requested(self) -> Record:
        """Return the job as it is now to a client, and renew its lease."""
        if self.record.lease_s is not None and not self.record.is_over:
            self.lease_until = self._clock.now() + self.record.lease_s
        return replace(self.record, log=tuple(self._log)) if self._log else self.record

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Renew the lease while a client waits."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            self.requested()

    def has_lapsed(self, now: float) -> bool:
        """Return whether the lease has ended; True only once."""
        if self.lease_until is None or self._watchers or self.lease_until > now:
            return False
        self.lease_until = None
        return not self.record.is_over

    async def run(self, runs: CallRunner, request: JobRequest) -> CallResponse | None:
        """Run the call; return None if it was stopped.

        Raises:
            PestoError: the request, the algorithm or its outputs are wrong.
        """
        if self._is_stopped:
            return None
        self._call = asyncio.ensure_future(
            runs.run(
                request.payload,
                on_progress=self._progressed,
                on_log=self._logged,
            )
        )
        await asyncio.wait({self._call})
        return None if self._call.cancelled() else self._call.result()

    def stop(self) -> None:
        """Stop the call, now or before it starts."""
        self._is_stopped = True
        if self._call is not None:
            self._call.cancel()

    def set_last_record(self, record: Record) -> Record:
        """Set the last record, with the log lines added; return it."""
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
    """Runs jobs, and stores how they end.

    Attributes:
        runs: Performs calls.
        records: Stores the records of jobs.
        folder: Stores their files.
        ttl_s: Seconds that results are stored.
        clock: The time of events.
    """

    runs: CallRunner
    records: AsyncJobStore
    folder: JobFolder
    ttl_s: float
    clock: SteadyClock

    async def run(self, active: ActiveJob) -> Event:
        """Run a job; return the event that ends it."""
        with bound(job=active.record.id):
            event = await self._event_of(active)
            _LOG.info("job ended: %s", type(event).__name__.lower())
        return event

    async def _event_of(self, active: ActiveJob) -> Event:
        try:
            return await self._run(active)
        except PestoError as error:
            return Failed(self.clock.now(), error.to_problem())
        except Exception as error:  # noqa: BLE001  # a bug fails the job, not the service
            _LOG.exception("job %s failed: internal error", active.record.id)
            bug = PestoError(f"internal error: {type(error).__name__}")
            return Failed(self.clock.now(), bug.to_problem())

    async def store_end(self, active: ActiveJob, event: Event) -> bool:
        """Store the end of a job, or that it waits again; return whether that was possible."""
        record = active.set_last_record(advance(active.record, event, self.ttl_s))
        try:
            await self.records(JobStore.put, record)
        except StoreFailed as error:
            _LOG.error("job %s: %s", record.id, error)
            return False
        return True

    async def delete_unneeded_files(self, record: Record) -> None:
        """Delete the files that a job does not need any more."""
        if not record.is_kept:
            await asyncio.to_thread(self.folder.delete, record.id)
        elif record.is_over:
            await asyncio.to_thread(self.folder.delete_request, record.id)

    async def _run(self, active: ActiveJob) -> Event:
        job_id = active.record.id
        active.record = advance(active.record, Started(self.clock.now()), self.ttl_s)
        await self.records(JobStore.put, active.record)
        request = await self.records(JobStore.request, job_id)
        job_request = await asyncio.to_thread(self.folder.read_request, job_id, request)
        response = await active.run(self.runs, job_request)
        if response is None:
            return ServiceStopped(self.clock.now(), "again", is_crash=False)
        description = self.runs.facts.description
        pieces = await asyncio.to_thread(split_response, response, description)
        await asyncio.to_thread(self.folder.write_results, job_id, pieces)
        size = sum(len(each.data) for each in pieces)
        return Succeeded(self.clock.now(), results_of(pieces), response.media_type, size)
