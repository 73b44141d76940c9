"""How a service keeps its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

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
