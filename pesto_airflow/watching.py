"""What to make of each look at a job, and when to look again. No I/O, no clock, no Airflow.

The worker and the triggerer look in their own ways; both are told the same by this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from pesto_runtime.errors import NotFound, PestoError, error_from_problem

if TYPE_CHECKING:
    from pydantic import JsonValue

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
