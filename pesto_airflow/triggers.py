"""What waits in the triggerer, so that no worker has to: for a job, for a service to be ready."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from pesto_airflow.hooks import PestoHook
from pesto_runtime.errors import NotFound, PestoError, error_from_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic import JsonValue

    from pesto_runtime.client.async_client import AsyncClient
    from pesto_runtime.contract import Job


FIRST_LOOK_S = 0.25
GROWTH = 1.5
MOST_LOSSES = 30
"""Looks in a row without an answer: 2 to 3 minutes, longer than a service's restart or a lease."""

Fate: TypeAlias = Literal["successful", "failed", "lost"]


@dataclass(frozen=True)
class Ended:
    """How a job ended, for those who waited.

    Attributes:
        fate: `lost` where the service knows it no more, or has dismissed it: submit it again.
        problem: Why, as a problem document.
    """

    fate: Fate
    problem: dict[str, JsonValue] | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """What a trigger's event carries."""
        return {"fate": self.fate, "problem": self.problem}

    @classmethod
    def parse(cls, document: dict[str, JsonValue]) -> Ended:
        """Read a trigger's event."""
        problem = document.get("problem")
        fate = cast("Fate", document["fate"])
        return cls(fate, problem if isinstance(problem, dict) else None)

    def require_success(self) -> None:
        """Do nothing where the job succeeded.

        Raises:
            PestoError: what it failed with.
        """
        if self.fate != "successful":
            problem = self.problem or {"detail": f"the job was {self.fate}"}
            status = problem.get("status")
            raise error_from_problem(problem, status=status if isinstance(status, int) else 500)


class JobPoller:
    """A watch over one job: told what each look brought, it answers what to do next."""

    def __init__(self, *, longest_look_s: float) -> None:
        """Begin with short looks; `longest_look_s` is how long they grow, well below a lease."""
        self._look_s = FIRST_LOOK_S
        self._longest_look_s = longest_look_s
        self._losses = 0

    def told(self, news: Job | PestoError) -> float | Ended:
        """Seconds until the next look, or how the job ended.

        Args:
            news: The job as it is, or why it could not be asked for.
        """
        if isinstance(news, PestoError):
            return self._without_answer(news)
        self._losses = 0
        return _ended(news) if news.is_over else self._next_look()

    def _without_answer(self, error: PestoError) -> float | Ended:
        if isinstance(error, NotFound):
            return Ended("lost", error.to_problem())
        self._losses += 1
        if not error.retryable or self._losses > MOST_LOSSES:
            return Ended("failed", error.to_problem())
        return max(self._next_look(), error.retry_after_s or 0.0)

    def _next_look(self) -> float:
        look_s = min(self._look_s, self._longest_look_s)
        self._look_s = look_s * GROWTH
        return look_s


def _ended(job: Job) -> Ended:
    if job.state == "successful":
        return Ended("successful")
    return Ended("lost" if job.state == "dismissed" else "failed", job.error)


class PestoJobTrigger(BaseTrigger):
    """Waits for a job's end; each look renews its lease. Marking the task failed cancels the job.

    It holds ids and a connection's name, never credentials: Airflow keeps it in its database.
    """

    def __init__(
        self, job_id: str, *, service: str | None, pesto_conn_id: str | None, poll_s: float
    ) -> None:
        """Name a job.

        Args:
            job_id: As the service calls it.
            service: As of `PestoHook`.
            pesto_conn_id: As of `PestoHook`.
            poll_s: Longest time between two looks, seconds.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.job_id = job_id
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, object]]:
        """How it is made again, by another triggerer."""
        return (
            "pesto_airflow.triggers.PestoJobTrigger",
            {
                "job_id": self.job_id,
                "service": self.service,
                "pesto_conn_id": self.pesto_conn_id,
                "poll_s": self.poll_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, with an `Ended`."""
        watch = JobPoller(longest_look_s=self.poll_s)
        async with await self._hook.aclient() as client:
            while True:
                verdict = watch.told(await self._look(client))
                if isinstance(verdict, Ended):
                    yield _event({"job_id": self.job_id, **verdict.to_json()})
                    return
                await asyncio.sleep(verdict)

    async def on_kill(self) -> None:
        """Cancel the job: somebody marked the task failed, or cleared it."""
        async with await self._hook.aclient() as client:
            try:
                await client.cancel(self.job_id)
            except NotFound:
                self.log.info("job %s is gone already", self.job_id)
            except PestoError as error:
                self.log.warning("job %s goes on until its lease ends: %s", self.job_id, error)

    @property
    def _hook(self) -> PestoHook:
        return PestoHook(self.pesto_conn_id, service=self.service)

    async def _look(self, client: AsyncClient) -> Job | PestoError:
        try:
            return await client.status(self.job_id)
        except PestoError as error:
            self.log.info("job %s: %s", self.job_id, error)
            return error


class PestoHealthTrigger(BaseTrigger):
    """Waits for a service to be ready."""

    def __init__(self, *, service: str | None, pesto_conn_id: str | None, poll_s: float) -> None:
        """Name a service, as `PestoHook` does, and the seconds between two looks."""
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, object]]:
        """How it is made again, by another triggerer."""
        return (
            "pesto_airflow.triggers.PestoHealthTrigger",
            {
                "service": self.service,
                "pesto_conn_id": self.pesto_conn_id,
                "poll_s": self.poll_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, with `{"health": …}`: `OK`, or `FAILED` where waiting cannot help."""
        hook = PestoHook(self.pesto_conn_id, service=self.service)
        async with await hook.aclient() as client:
            while True:
                health = await _health(client)
                if health in ("OK", "FAILED"):
                    yield _event({"health": health})
                    return
                await asyncio.sleep(self.poll_s)


async def _health(client: AsyncClient) -> str:
    try:
        return await client.health()
    except PestoError as error:
        if not error.retryable:
            raise
        return "UNREACHABLE"


def _event(told: dict[str, JsonValue]) -> TriggerEvent:
    return TriggerEvent(told)  # type: ignore[no-untyped-call]  # Airflow's
