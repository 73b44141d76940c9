"""What Conductor is told of an error: the one table of the workers.

| error | task | then |
|---|---|---|
| Busy | back in the queue for as long as the service asked | no attempt is lost |
| retryable: Unreachable, JobInterrupted, … | FAILED | retried, the pause doubling |
| Interrupted, as the worker stops | back in the queue | another worker takes it at once |
| any other PestoError | FAILED_WITH_TERMINAL_ERROR | until somebody retries the workflow |
| anything else | FAILED | a defect, or a machine in trouble: retried |
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pesto_runtime.errors import Busy, Interrupted, PestoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

_BUSY_S = 5
_REASON_CHARS = 500
"""Conductor cuts reasons there; the log of the task has the whole of it."""


@dataclass(frozen=True)
class Report:
    """What is told of one attempt at a task.

    Attributes:
        status: Of the task; `IN_PROGRESS` gives it back to the queue.
        output: Of a task that is complete.
        reason: Why it is not.
        again_after_s: When a task that was given back may be taken again.
        lines: For the task's log.
    """

    status: Literal["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "IN_PROGRESS"]
    output: Mapping[str, JsonValue] = field(default_factory=dict)
    reason: str = ""
    again_after_s: int = 0
    lines: tuple[str, ...] = ()


def report_of(error: Exception) -> Report:
    """What is told of an attempt that raised."""
    if isinstance(error, Interrupted):
        return given_back("the worker stops; what it finished is kept")
    if not isinstance(error, PestoError):
        reason = f"{type(error).__name__}: {error}"
        return Report("FAILED", reason=_cut(reason), lines=tuple(traceback.format_exception(error)))
    if isinstance(error, Busy):
        return given_back(str(error), after_s=int(error.retry_after_s or _BUSY_S))
    status: Literal["FAILED", "FAILED_WITH_TERMINAL_ERROR"] = (
        "FAILED" if error.retryable else "FAILED_WITH_TERMINAL_ERROR"
    )
    text = str(error)
    return Report(status, reason=_cut(text), lines=(text,))


def given_back(why: str, *, after_s: int = 0) -> Report:
    """Put a task back into its queue; no attempt is lost."""
    return Report("IN_PROGRESS", again_after_s=after_s, lines=(f"given back: {why}",))


def _cut(text: str) -> str:
    return text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 3] + "..."
