"""Write the JSON documents of jobs: PESTO's status, and one with the fields of OGC and our own.

The endpoints that send them are in `api`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from pesto_runtime.contract import Job
from pesto_runtime.errors import Gone, JobInterrupted, NotReady, PestoError, error_from_problem
from pesto_runtime.service.http import PREFIX
from pesto_runtime.service.jobs.results import output_hrefs

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.service.jobs.states import Record

_SHOWN_LINES = 20
_PESTO_STATES = {"accepted": "RUNNING", "running": "RUNNING", "successful": "DONE"}


@dataclass(frozen=True)
class Links:
    """URLs of jobs, below the address that the caller used."""

    base: str

    @classmethod
    def below(cls, base_url: str) -> Links:
        """Return the links below the address of a server."""
        return cls(f"{base_url.rstrip('/')}{PREFIX}/jobs")

    def job(self, job_id: str) -> str:
        """Return the URL of a job."""
        return f"{self.base}/{job_id}"

    def status(self, job_id: str) -> str:
        """Return the URL of its status in PESTO's form."""
        return f"{self.base}/{job_id}/status"

    def results(self, record: Record) -> dict[str, str | list[str]]:
        """Return the URLs of its results, by output name."""
        return output_hrefs(record.results, self.parts(record))

    def parts(self, record: Record) -> dict[str, str]:
        """Return the URL of each of its results, by the last part of the URL."""
        below = f"{self.base}/{record.id}/results"
        return {each.part: f"{below}/{quote(each.part, safe='')}" for each in record.results}


def job_of(record: Record, links: Links, *, process: str, lease_until: float | None) -> Job:
    """Return the full document of a job."""
    results = links.results(record).items()
    error = record.error or {}
    last = record.log[-1] if record.log else None
    return Job(
        id=record.id,
        key=record.key,
        state=record.state,
        progress=record.progress,
        error=record.error,
        lease_until=_moment(lease_until),
        outputs={name: each if isinstance(each, str) else tuple(each) for name, each in results},
        created=_moment(record.created),
        started=_moment(record.started),
        finished=_moment(record.finished),
        expires=_moment(record.expires),
        log=record.log[-_SHOWN_LINES:],
        job_id=record.id,
        process_id=process,
        status=record.state,
        message=str(error["detail"]) if "detail" in error else last,
    )


def pesto_status(record: Record, links: Links) -> dict[str, JsonValue]:
    """Return the status of a job in PESTO's form, and its error if it failed."""
    document: dict[str, JsonValue] = {
        "status": _PESTO_STATES.get(record.state, "FAILED"),
        "progress": int(record.progress),
    }
    if record.state == "successful":
        document["link"] = f"{links.job(record.id)}/results"
    if record.error is not None:
        document["error"] = record.error
    return document


def require_results(record: Record) -> None:
    """Do nothing if a job has results.

    Raises:
        NotReady: it is not over.
        Gone: it was dismissed, or its results have expired.
        PestoError: the error of the job, if it failed.
    """
    if not record.is_over:
        raise NotReady(
            f"job {record.id} is {record.state}, and has no results yet", retry_after_s=1
        )
    if record.state == "failed":
        raise error_of(record)
    if not record.is_kept:
        why = str(record.error["detail"]) if record.error else f"results of job {record.id} expired"
        raise Gone(why)


def error_of(record: Record) -> PestoError:
    """Return the error that a job ended with."""
    if record.error is None:
        return JobInterrupted(f"the service stops; job {record.id} is {record.state}")
    status = record.error.get("status")
    return error_from_problem(record.error, status=status if isinstance(status, int) else 500)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
