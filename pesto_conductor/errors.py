"""Convert the result of an attempt at a task, or its error, to a report for Conductor.

| error | status of the task | then |
|---|---|---|
| `Busy` | returned to the queue for the time that the service requests | no attempt is lost |
| retryable: `Unreachable`, `JobInterrupted`, … | FAILED | retried, each pause twice the last |
| `Interrupted`, as the worker stops | returned to the queue | another worker takes it at once |
| its worker process died | returned to the queue; FAILED at last | a worker takes it at once |
| any other `PestoError` | FAILED_WITH_TERMINAL_ERROR | waits for a retry of the workflow |
| anything else | FAILED | a defect, or a machine in trouble: retried |

Nothing is sent from here: `taskqueue.py` sends reports.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pesto_runtime.errors import Busy, Interrupted, PestoError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

_BUSY_S = 5
_MOST_DEATHS = 3
DEATHS = "workerDeaths"
"""Output of a task that was returned to its queue after the death of its worker process."""
_REASON_CHARS = 500
"""Conductor truncates longer reasons; the log of the task has the whole text."""


@dataclass(frozen=True)
class Report:
    """The end of one attempt at a task.

    Attributes:
        status: Of the task; `IN_PROGRESS` returns it to the queue.
        output: Of a completed task.
        reason: Of a task that is not completed.
        again_after_s: Seconds until a task that is returned to the queue may be taken again.
        lines: For the task's log.
    """

    status: Literal["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "IN_PROGRESS"]
    output: Mapping[str, JsonValue] = field(default_factory=dict)
    reason: str = ""
    again_after_s: int = 0
    lines: tuple[str, ...] = ()

    def after_lines(self, lines: Iterable[str]) -> Report:
        """Return the report with other lines of the log before its own."""
        return replace(self, lines=(*lines, *self.lines))


def report_of(error: Exception) -> Report:
    """Return the report of an attempt that raised an error."""
    if isinstance(error, Interrupted):
        return returned_to_queue("the worker stops; complete blocks are stored")
    if not isinstance(error, PestoError):
        reason = f"{type(error).__name__}: {error}"
        lines = tuple(traceback.format_exception(error))
        return Report("FAILED", reason=_truncated(reason), lines=lines)
    if isinstance(error, Busy):
        return returned_to_queue(str(error), after_s=int(error.retry_after_s or _BUSY_S))
    status: Literal["FAILED", "FAILED_WITH_TERMINAL_ERROR"] = (
        "FAILED" if error.retryable else "FAILED_WITH_TERMINAL_ERROR"
    )
    text = str(error)
    return Report(status, reason=_truncated(text), lines=(text,))


def died_with(deaths: int) -> Report:
    """Return the report of a task with which so many worker processes have died.

    It returns to the queue without the loss of an attempt; a task of which several processes have
    died probably kills them, and has failed.
    """
    why = f"the worker process died; {deaths} of them had this task"
    if deaths >= _MOST_DEATHS:
        return Report("FAILED", reason=why, output={DEATHS: 0}, lines=(why,))
    return replace(returned_to_queue(why), output={DEATHS: deaths})


def returned_to_queue(why: str, *, after_s: int = 0) -> Report:
    """Return the report that puts a task back into its queue; no attempt is lost."""
    return Report("IN_PROGRESS", again_after_s=after_s, lines=(f"returned to the queue: {why}",))


def _truncated(text: str) -> str:
    return text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 3] + "..."
