"""Compute the next record of a job from its record and an event. No clock, no disk, no tasks.

An event that no longer applies changes nothing: a job that is over stays as it ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from pesto_runtime.errors import Gone, JobInterrupted

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue


InterruptedPolicy: TypeAlias = Literal["again", "fail"]


@dataclass(frozen=True)
class JobOptions:
    """Where jobs are stored, for how long, and how many.

    Attributes:
        folder: Contains them; None for a temporary folder, deleted when the service ends.
        ttl_s: Seconds that results are stored after a job has ended.
        waiting: Jobs that may wait to run; the next one is refused with 503.
        interrupted: Whether jobs that ran when the service was killed run again, or fail.
        caller_jobs: Jobs of one caller that are not over; None for any number.
        caller_bytes: Bytes of requests and results of one caller's jobs; None for any number.
    """

    folder: Path | None = None
    ttl_s: float = 86_400.0
    waiting: int = 10_000
    interrupted: InterruptedPolicy = "again"
    caller_jobs: int | None = None
    caller_bytes: int | None = None


State: TypeAlias = Literal["accepted", "running", "successful", "failed", "dismissed"]

MOST_CRASHES = 3
"""Times that a job may be running when the service dies; then it probably is the cause."""


@dataclass(frozen=True)
class Result:
    """One result of a job: a file of the job, or an href that the request named.

    Attributes:
        output: Name of the output.
        part: Last part of its URL, unique in the job.
        media_type: Of the file.
        index: Index in a list of images; None for other outputs.
        href: The href that it was written to; None for a file of the job.
        is_deleted: Whether a client has deleted it.
        is_none: Whether the process returned None for it, so that it is not listed, as in PESTO.
    """

    output: str
    part: str
    media_type: str
    index: int | None = None
    href: str | None = None
    is_deleted: bool = False
    is_none: bool = False


@dataclass(frozen=True)
class Record:
    """All facts about a job; times are seconds since the epoch, of a `SteadyClock`.

    Attributes:
        digest: Of the request, to detect another request with the same key.
        crashes: How often the service died while the job ran.
        lease_s: Seconds without a request for it after which it is dismissed; None for never.
        expires: When its results are deleted; None while it is not over.
        results: Its results.
        answer_type: Media type of the response that was divided into the results.
        is_kept: Whether its files are still stored.
        caller: Name of the caller whose job it is; empty if the service does not know callers.
        choice: How an OGC request wants its results, and who is told; None for other requests.
        size: Bytes of its request, and once it is successful, of its results.
    """

    id: str
    digest: str
    created: float
    key: str | None = None
    lease_s: float | None = None
    state: State = "accepted"
    progress: float = 0.0
    crashes: int = 0
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    error: dict[str, JsonValue] | None = None
    results: tuple[Result, ...] = ()
    answer_type: str = ""
    log: tuple[str, ...] = ()
    is_kept: bool = True
    caller: str = ""
    choice: dict[str, JsonValue] | None = None
    size: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.state not in ("accepted", "running")

    @property
    def holds_key(self) -> bool:
        """Whether its key refers to it.

        Not after its files are deleted, so that the key can be used again. Not after a retryable
        error either: the client repeats the request with the same key.
        """
        if not self.is_kept or self.state == "dismissed":
            return False
        return not (self.state == "failed" and self.error and self.error.get("retryable"))


@dataclass(frozen=True)
class Started:
    """The job has started."""

    at: float


@dataclass(frozen=True)
class Progressed:
    """The algorithm has reported its progress, in percent."""

    percent: float


@dataclass(frozen=True)
class Succeeded:
    """The call has returned outputs."""

    at: float
    results: tuple[Result, ...]
    answer_type: str
    size: int = 0


@dataclass(frozen=True)
class Failed:
    """The call has raised an error; `error` is a problem document."""

    at: float
    error: dict[str, JsonValue]


@dataclass(frozen=True)
class Dismissed:
    """The job is cancelled: by a client, or because its lease has ended."""

    at: float
    why: str


@dataclass(frozen=True)
class ServiceStopped:
    """The service has ended while the job ran: in order, or by a crash."""

    at: float
    then: InterruptedPolicy
    is_crash: bool


@dataclass(frozen=True)
class Deleted:
    """A client has deleted one result."""

    part: str


@dataclass(frozen=True)
class Expired:
    """The time to live of the results has passed."""


Event: TypeAlias = (
    Started | Progressed | Succeeded | Failed | Dismissed | ServiceStopped | Deleted | Expired
)


def advance(record: Record, event: Event, ttl_s: float) -> Record:
    """Return the record after an event; the same one if the event no longer applies.

    Args:
        record: Before the event.
        event: Event to apply.
        ttl_s: Seconds that results are stored.
    """
    match event:
        case Dismissed():
            return _dismissed(record, event, ttl_s)
        case Expired():
            return _emptied(record) if record.is_over else record
        case Deleted():
            return replace(
                record, results=tuple(_after_delete(each, event) for each in record.results)
            )
        case Started():
            if record.state != "accepted":
                return record
            return replace(record, state="running", started=event.at, progress=0.0, log=())
    return _while_running(record, event, ttl_s) if record.state == "running" else record


def _while_running(
    record: Record, event: Progressed | Succeeded | Failed | ServiceStopped, ttl_s: float
) -> Record:
    match event:
        case Progressed():
            percent = min(max(event.percent, record.progress), 100.0)
            return replace(record, progress=percent)
        case Succeeded():
            ended = _ended(record, "successful", event.at, ttl_s)
            return replace(
                ended, progress=100.0, results=event.results, answer_type=event.answer_type,
                size=event.size,
            )  # fmt: skip
        case Failed():
            return replace(_ended(record, "failed", event.at, ttl_s), error=event.error)
        case ServiceStopped():
            return _interrupted(record, event, ttl_s)


def _interrupted(record: Record, event: ServiceStopped, ttl_s: float) -> Record:
    crashes = record.crashes + event.is_crash
    if event.then == "again" and crashes < MOST_CRASHES:
        return replace(record, state="accepted", progress=0.0, started=None, crashes=crashes)
    error = JobInterrupted(
        "the service ended while this job ran, and does not repeat such jobs (--interrupted fail)"
        if event.then == "fail"
        else f"the service died {crashes} times while this job ran; it does not run again"
    )
    if event.then == "again":
        error.retryable = False  # type: ignore[misc]  # a next run may kill the service again
    ended = _ended(record, "failed", event.at, ttl_s)
    return replace(ended, crashes=crashes, error=error.to_problem())


def _dismissed(record: Record, event: Dismissed, ttl_s: float) -> Record:
    if record.state == "dismissed":
        return record
    ended = record if record.is_over else _ended(record, "dismissed", event.at, ttl_s)
    error = Gone(f"job {record.id} was dismissed: {event.why}").to_problem()
    return replace(_emptied(ended), state="dismissed", error=error)


def _ended(record: Record, state: State, at: float, ttl_s: float) -> Record:
    return replace(record, state=state, finished=at, expires=at + ttl_s)


def _emptied(record: Record) -> Record:
    return replace(record, is_kept=False, results=())


def _after_delete(result: Result, event: Deleted) -> Result:
    return replace(result, is_deleted=True) if result.part == event.part else result
