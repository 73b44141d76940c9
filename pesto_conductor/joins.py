"""Find JOINs that no server evaluates any more, and workflows that a rerun has left without one.

A server takes a JOIN from its queue to evaluate it; if that server is lost, or fails to write the
queue, the JOIN stays with it for an hour. Clients may complete the task: workers do so for JOINs of
tasks of this package, and `pesto conductor wake` does so for any.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_conductor.taskdefs import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

_LATE_S = 60.0
"""A JOIN that has waited long is evaluated every 30 s."""
_MS = 1000.0
_OPEN = frozenset({"SCHEDULED", "IN_PROGRESS"})


@dataclass(frozen=True)
class WedgedJoin:
    """A JOIN whose tasks are all completed.

    Attributes:
        workflow: Id of its workflow.
        task: Its id.
        reference: Its task reference.
        waited_s: Seconds since the last of its tasks has ended.
        output: Reference of each task -> its output: the output of the JOIN.
        is_ours: Whether all tasks are of types of this package.
    """

    workflow: str
    task: str
    reference: str
    waited_s: float
    output: Document
    is_ours: bool

    @property
    def message(self) -> str:
        """Its name, and the reason."""
        return (
            f"JOIN {self.reference}, which still waits {self.waited_s:.0f} s after the last of its "
            f"{len(self.output)} tasks: the server that evaluated it is lost"
        )


def wedged_joins(
    workflow: Mapping[str, JsonValue], *, after_s: float = _LATE_S
) -> list[WedgedJoin]:
    """Return the JOINs of a running workflow that should have been completed `after_s` ago.

    Args:
        workflow: A workflow with its tasks.
        after_s: Seconds since the end of the last task of a JOIN.
    """
    newest = {str(each.get("referenceTaskName")): each for each in _tasks(workflow)}
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
                    all(str(each.get("taskType")).startswith(PREFIX) for each in done),
                )
            )  # fmt: skip
    return found


def dead_end(workflow: Mapping[str, JsonValue]) -> str | None:
    """Return why a workflow runs for ever, with the way out; None if it has an open task.

    The server deletes the other branches and the JOIN when a task of a fork is run again by
    Conductor's rerun.

    Args:
        workflow: A workflow with its tasks, after a decision of the server.
    """
    tasks = _tasks(workflow)
    if workflow.get("status") != "RUNNING" or not tasks or any(e["status"] in _OPEN for e in tasks):
        return None
    return (
        "no task is open, and the server schedules none: a rerun from a task of a fork deletes its "
        f"JOIN. `pesto conductor stop {workflow.get('workflowId')}` ends the workflow; start it "
        "again with the same input"
    )


def _tasks(workflow: Mapping[str, JsonValue]) -> list[Document]:
    tasks = workflow.get("tasks")
    return [each for each in tasks if isinstance(each, dict)] if isinstance(tasks, list) else []
