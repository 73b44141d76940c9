"""What becomes of a job: a record and an event make the next record. No clock, no disk, no tasks.

An event that no longer applies changes nothing: a job that is over stays as it ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from pesto_runtime.errors import Gone, JobInterrupted

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue


Again: TypeAlias = Literal["again", "fail"]


@dataclass(frozen=True)
class JobOptions:
    """Where jobs are kept, for how long, and how many.

    Attributes:
        folder: Where they are kept; None for a folder that goes when the service ends.
        ttl_s: Seconds that results are kept after a job has ended.
        waiting: Jobs that may wait to run; the next one is answered 503.
        interrupted: What becomes of jobs that ran when the service was killed.
    """

    folder: Path | None = None
    ttl_s: float = 86_400.0
    waiting: int = 10_000
    interrupted: Again = "again"


State: TypeAlias = Literal["accepted", "running", "successful", "failed", "dismissed"]

MOST_CRASHES = 3
"""Times that a job may be running when the service dies; then it is what kills it."""


@dataclass(frozen=True)
class Result:
    """One thing that a job left: a file of its own, or an href written elsewhere.

    Attributes:
        output: Name of the output.
        part: Last part of its address, unlike all others of the job.
        media_type: Of the file.
        index: Place in a list of images; None for an output that is one thing.
        href: Where it was written, as the request asked; None for a file of the job.
        is_deleted: Whether its owner has deleted it.
    """

    output: str
    part: str
    media_type: str
    index: int | None = None
    href: str | None = None
    is_deleted: bool = False


@dataclass(frozen=True)
class Record:
    """All that is known of a job; times are seconds since the epoch.

    Attributes:
        digest: Of the request, to tell it from another one with the same key.
        crashes: How often the service died while it ran.
        lease_s: Seconds without anybody asking after which it is dismissed; None for never.
        expires: When its results go; None while it is not over.
        results: What it left.
        answer_type: Media type of the answer that the results were made of.
        is_kept: Whether its files are still there.
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

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state not in ("accepted", "running")

    @property
    def holds_key(self) -> bool:
        """Whether its key stands for it: not once it is gone, nor where asking again may help."""
        if not self.is_kept or self.state == "dismissed":
            return False
        return not (self.state == "failed" and self.error and self.error.get("retryable"))


@dataclass(frozen=True)
class Started:
    """It began to run."""

    at: float


@dataclass(frozen=True)
class Progressed:
    """The algorithm said how far it is, in percent."""

    percent: float


@dataclass(frozen=True)
class Succeeded:
    """It answered."""

    at: float
    results: tuple[Result, ...]
    answer_type: str


@dataclass(frozen=True)
class Failed:
    """It, or its request, was at fault; the error is a problem document."""

    at: float
    error: dict[str, JsonValue]


@dataclass(frozen=True)
class Dismissed:
    """Nobody wants it any more."""

    at: float
    why: str


@dataclass(frozen=True)
class ServiceStopped:
    """The service ended while it ran: by itself, or killed."""

    at: float
    then: Again
    is_crash: bool


@dataclass(frozen=True)
class Deleted:
    """Its owner deleted one of its results."""

    part: str


@dataclass(frozen=True)
class Expired:
    """Its results have been kept for long enough."""


Event: TypeAlias = (
    Started | Progressed | Succeeded | Failed | Dismissed | ServiceStopped | Deleted | Expired
)


def advance(record: Record, event: Event, ttl_s: float) -> Record:
    """The record after an event; the same one where the event no longer applies.

    Args:
        record: Before.
        event: What happened.
        ttl_s: Seconds that results are kept.
    """
    match event:
        case Dismissed():
            return _dismissed(record, event, ttl_s)
        case Expired():
            return _emptied(record) if record.is_over else record
        case Deleted():
            return replace(record, results=tuple(_without(each, event) for each in record.results))
        case Started():
            if record.state != "accepted":
                return record
            return replace(record, state="running", started=event.at, progress=0.0, log=())
    return _ran(record, event, ttl_s) if record.state == "running" else record


def _ran(
    record: Record, event: Progressed | Succeeded | Failed | ServiceStopped, ttl_s: float
) -> Record:
    match event:
        case Progressed():
            percent = min(max(event.percent, record.progress), 100.0)
            return replace(record, progress=percent)
        case Succeeded():
            done = _over(record, "successful", event.at, ttl_s)
            return replace(
                done, progress=100.0, results=event.results, answer_type=event.answer_type
            )
        case Failed():
            return replace(_over(record, "failed", event.at, ttl_s), error=event.error)
        case ServiceStopped():
            return _interrupted(record, event, ttl_s)


def _interrupted(record: Record, event: ServiceStopped, ttl_s: float) -> Record:
    crashes = record.crashes + event.is_crash
    if event.then == "again" and crashes < MOST_CRASHES:
        return replace(record, state="accepted", progress=0.0, started=None, crashes=crashes)
    error = JobInterrupted(
        "the service ended while this job ran, and does not run such jobs again"
        if event.then == "fail"
        else f"the service died {crashes} times while this job ran; it is not run again"
    )
    if event.then == "again":
        error.retryable = False  # type: ignore[misc]  # this one kills whoever runs it
    ended = _over(record, "failed", event.at, ttl_s)
    return replace(ended, crashes=crashes, error=error.to_problem())


def _dismissed(record: Record, event: Dismissed, ttl_s: float) -> Record:
    if record.state == "dismissed":
        return record
    ended = record if record.is_over else _over(record, "dismissed", event.at, ttl_s)
    error = Gone(f"job {record.id} was dismissed: {event.why}").to_problem()
    return replace(_emptied(ended), state="dismissed", error=error)


def _over(record: Record, state: State, at: float, ttl_s: float) -> Record:
    return replace(record, state=state, finished=at, expires=at + ttl_s)


def _emptied(record: Record) -> Record:
    return replace(record, is_kept=False, results=())


def _without(result: Result, event: Deleted) -> Result:
    return replace(result, is_deleted=True) if result.part == event.part else result
