"""Find JOINs that no server evaluates any more although all their tasks are done.

A server takes a JOIN from its queue to evaluate it; if that server is lost, the others leave the
JOIN to it for up to an hour. Other clients may complete the task: `pesto conductor wake` does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

_LATE_S = 60.0
"""A JOIN that has waited long is evaluated every 30 s."""
_MS = 1000.0


@dataclass(frozen=True)
class WedgedJoin:
    """A JOIN whose tasks are all completed.

    Attributes:
        workflow: Id of its workflow.
        task: Its id.
        reference: Its task reference.
        waited_s: Seconds since the last of its tasks has ended.
        output: Reference of each task -> its output: the output of the JOIN.
    """

    workflow: str
    task: str
    reference: str
    waited_s: float
    output: Document

    @property
    def message(self) -> str:
        """A line with the way out."""
        return (
            f"JOIN {self.reference} still waits {self.waited_s:.0f} s after the last of its "
            f"{len(self.output)} tasks: the server that evaluated it is lost; "
            f"`pesto conductor wake {self.workflow}` completes it"
        )


def wedged_joins(
    workflow: Mapping[str, JsonValue], *, after_s: float = _LATE_S
) -> list[WedgedJoin]:
    """Return the JOINs of a running workflow that should have been completed `after_s` ago.

    Args:
        workflow: A workflow with its tasks.
        after_s: Seconds since the end of the last task of a JOIN.
    """
    tasks = workflow.get("tasks")
    listed = [each for each in (tasks if isinstance(tasks, list) else []) if isinstance(each, dict)]
    newest = {str(each.get("referenceTaskName")): each for each in listed}
    found = []
    for join in newest.values():
        inputs = join.get("inputData")
        names = inputs.get("joinOn") if isinstance(inputs, dict) else None
        if join.get("taskType") != "JOIN" or join.get("status") != "IN_PROGRESS":
            continue
        joined = [newest.get(str(name)) for name in (names if isinstance(names, list) else [])]
        done = [each for each in joined if each and each.get("status") == "COMPLETED"]
        if not done or len(done) < len(joined):
            continue
        ends = [each.get("endTime") for each in done]
        waited_s = time.time() - max(end for end in ends if isinstance(end, int)) / _MS
        if waited_s >= after_s:
            output = {str(each["referenceTaskName"]): each.get("outputData") for each in done}
            found.append(
                WedgedJoin(
                    str(workflow.get("workflowId")), str(join.get("taskId")),
                    str(join.get("referenceTaskName")), waited_s, output,
                )
            )  # fmt: skip
    return found
