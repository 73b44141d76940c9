"""Wait in the triggerer for a job to end, or for a service to be ready, without a worker slot.

The paths of both trigger classes are stored in Airflow's database: they must not change.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from pesto_airflow.hooks import PestoHook
from pesto_airflow.shared_clients import shared_client
from pesto_runtime.errors import NotFound, PestoError, error_from_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic import JsonValue

    from pesto_runtime.client.async_client import AsyncClient
    from pesto_runtime.contract import Job


FIRST_WAIT_S = 0.25
GROWTH = 1.5
MOST_LOSSES = 30
"""Failed requests in a row: 2 to 3 minutes, longer than a service's restart or a lease."""

Fate: TypeAlias = Literal["successful", "failed", "lost"]


class PestoJobTrigger(BaseTrigger):
    """Wait for a job's end; each request renews its lease. On kill, cancel the job.

    Its arguments are ids and the name of a connection, never credentials: Airflow stores them in
    its database.
    """

    def __init__(
        self,
        job_id: str,
        *,
        service: str | None,
        pesto_conn_id: str | None,
        poll_s: float,
        cancel_on_kill: bool = True,
    ) -> None:
        """Select a job.

        Args:
            job_id: Id that the service returned.
            service: As of `PestoHook`.
            pesto_conn_id: As of `PestoHook`.
            poll_s: Longest time between two requests, seconds.
            cancel_on_kill: Whether the job is cancelled when the task is marked failed.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.job_id = job_id
        self.cancel_on_kill = cancel_on_kill
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, object]]:
        """Return the class path and arguments with which another triggerer creates it again."""
        return (
            "pesto_airflow.triggers.PestoJobTrigger",
            {
                "job_id": self.job_id,
                "service": self.service,
                "pesto_conn_id": self.pesto_conn_id,
                "poll_s": self.poll_s,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, with the job's id and its `JobEnd` as JSON."""
        poller = JobPoller(longest_wait_s=self.poll_s)
        async with shared_client(self._hook) as shared:
            while True:
                async with shared.turn(self.poll_s) as client:
                    step = poller.next_step(await self._status(client))
                if isinstance(step, JobEnd):
                    yield _event({"job_id": self.job_id, **step.to_json()})
                    return
                await asyncio.sleep(shared.pause_s(step, self.poll_s))

    async def on_kill(self) -> None:
        """Cancel the job, because a user marked the task failed, or cleared it."""
        if not self.cancel_on_kill:
            return
        # Airflow calls this only while a triggerer runs the trigger; else the lease ends the job.
        async with shared_client(self._hook) as shared, shared.turn(self.poll_s) as client:
            try:
                await client.cancel(self.job_id)
            except NotFound:
                self.log.info("job %s does not exist any more", self.job_id)
            except PestoError as error:
                self.log.warning("job %s continues until its lease ends: %s", self.job_id, error)

    @property
    def _hook(self) -> PestoHook:
        return PestoHook(self.pesto_conn_id, service=self.service)

    async def _status(self, client: AsyncClient) -> Job | PestoError:
        try:
            return await client.status(self.job_id)
        except PestoError as error:
            self.log.info("job %s: %s", self.job_id, error)
            return error


class PestoHealthTrigger(BaseTrigger):
    """Wait until a service is ready, or its set-up has failed."""

    def __init__(self, *, service: str | None, pesto_conn_id: str | None, poll_s: float) -> None:
        """Select a service as `PestoHook` does; `poll_s` is the time between two requests."""
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, object]]:
        """Return the class path and arguments with which another triggerer creates it again."""
        return (
            "pesto_airflow.triggers.PestoHealthTrigger",
            {
                "service": self.service,
                "pesto_conn_id": self.pesto_conn_id,
                "poll_s": self.poll_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, with `{"health": …}`: `OK`, or `FAILED` if waiting cannot help."""
        hook = PestoHook(self.pesto_conn_id, service=self.service)
        async with shared_client(hook) as shared:
            while True:
                async with shared.turn(self.poll_s) as client:
                    health = await _health(client)
                if health in ("OK", "FAILED"):
                    yield _event({"health": health})
                    return
                await asyncio.sleep(self.poll_s)


@dataclass(frozen=True)
class JobEnd:
    """The end of a job, as the process that waited for it received it.

    Attributes:
        fate: `lost` if the service has deleted or dismissed the job: submit it again.
        problem: The reason as a problem document.
    """

    fate: Fate
    problem: dict[str, JsonValue] | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON of a trigger's event."""
        return {"fate": self.fate, "problem": self.problem}

    @classmethod
    def parse(cls, document: dict[str, JsonValue]) -> JobEnd:
        """Read the JSON of a trigger's event."""
        problem = document.get("problem")
        fate = cast("Fate", document["fate"])
        return cls(fate, problem if isinstance(problem, dict) else None)

    def require_success(self) -> None:
        """Do nothing if the job succeeded.

        Raises:
            PestoError: the error of the job.
        """
        if self.fate != "successful":
            problem = self.problem or {"detail": f"the job was {self.fate}"}
            status = problem.get("status")
            raise error_from_problem(problem, status=status if isinstance(status, int) else 500)


class JobPoller:
    """Decide after each request for a job's state when to request it again; does no I/O."""

    def __init__(self, *, longest_wait_s: float) -> None:
        """Start with short waits, which grow up to `longest_wait_s`, far below the lease."""
        self._wait_s = FIRST_WAIT_S
        self._longest_wait_s = longest_wait_s
        self._losses = 0

    def next_step(self, response: Job | PestoError) -> float | JobEnd:
        """Return the seconds until the next request, or the job's end.

        Args:
            response: The job's state, or the error of the request.
        """
        if isinstance(response, PestoError):
            return self._after_error(response)
        self._losses = 0
        return _end_of(response) if response.is_over else self._next_wait()

    def _after_error(self, error: PestoError) -> float | JobEnd:
        if isinstance(error, NotFound):
            return JobEnd("lost", error.to_problem())
        self._losses += 1
        if not error.retryable or self._losses > MOST_LOSSES:
            return JobEnd("failed", error.to_problem())
        return max(self._next_wait(), error.retry_after_s or 0.0)

    def _next_wait(self) -> float:
        wait_s = min(self._wait_s, self._longest_wait_s)
        self._wait_s = wait_s * GROWTH
        return wait_s


def _end_of(job: Job) -> JobEnd:
    if job.state == "successful":
        return JobEnd("successful")
    return JobEnd("lost" if job.state == "dismissed" else "failed", job.error)


async def _health(client: AsyncClient) -> str:
    try:
        return await client.health()
    except PestoError as error:
        if not error.retryable:
            raise
        return "UNREACHABLE"


def _event(payload: dict[str, JsonValue]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's
