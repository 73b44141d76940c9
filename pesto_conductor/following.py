"""Follow a workflow until it ends, and show workflows and their tasks as tables.

This file starts no workflow: `deploy.py` and `engine.py` do.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pesto_conductor.client import is_over
from pesto_runtime.errors import RunFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic import JsonValue
    from rich.table import Table

    from pesto_conductor.client import Conductor
    from pesto_runtime.engines import ProgressListener

    Document = dict[str, JsonValue]

_OPEN = frozenset({"SCHEDULED", "IN_PROGRESS"})
_WAITS_FOR_OTHERS = frozenset({"JOIN", "EXCLUSIVE_JOIN", "DO_WHILE", "FORK", "FORK_JOIN_DYNAMIC"})
_FIRST_POLL_S, _LAST_POLL_S = 0.1, 1.0
_AWAY_S = 120.0
_MOST_REASONS = 5
_REASON_CHARS = 300
_MS = 1000.0
_UNTAKEN_S = 10.0
"""Workers poll within a second; a task type that no worker takes for this time has no worker."""


def follow(
    conductor: Conductor,
    identity: str,
    watcher: ProgressListener,
    *,
    before_poll: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Document:
    """Follow a workflow until it has ended, successfully or not; return it.

    The server may be away for 120 s: it continues where it stopped.

    Args:
        conductor: The server.
        identity: Id of the workflow.
        watcher: Receives the number of tiles, those of sub-workflows included.
        before_poll: Called before each request; an error of it is raised.
        warn: Receives one line for each task type that no worker has taken for 10 s.

    Raises:
        Unreachable: the server has been away for 120 s.
    """
    follower = WorkflowFollower(conductor, watcher, UntakenTypes(warn))
    pause_s, last_seen = _FIRST_POLL_S, time.monotonic()
    while True:
        before_poll()
        try:
            workflow = follower.poll(identity)
            last_seen = time.monotonic()
        except Unreachable:
            if time.monotonic() - last_seen > _AWAY_S:
                raise
        else:
            if is_over(workflow):
                return workflow
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LAST_POLL_S)


def tasks_of(workflow: Mapping[str, JsonValue]) -> list[Document]:
    """Return the tasks of a workflow, one per attempt, in the order of their creation."""
    tasks = workflow.get("tasks")
    return [each for each in tasks if isinstance(each, dict)] if isinstance(tasks, list) else []


def output_of(task: Mapping[str, JsonValue]) -> Document:
    """Return the output of a task; empty if it has none yet."""
    output = task.get("outputData")
    return output if isinstance(output, dict) else {}


def failure_of(workflow: Mapping[str, JsonValue]) -> RunFailed:
    """Return an error with the reason of each failed task of a workflow, five at most."""
    failed = [
        f"  {task.get('referenceTaskName')}: {task.get('reasonForIncompletion') or 'no reason'}"
        for task in tasks_of(workflow)
        if str(task.get("status")).startswith(("FAILED", "TIMED_OUT")) and not task.get("retried")
    ]
    more = len(failed) - _MOST_REASONS
    reasons = failed[:_MOST_REASONS] or [
        f"  {workflow.get('reasonForIncompletion') or 'no reason'}"
    ]
    head = f"workflow {workflow.get('workflowId')} ended as {workflow.get('status')}:"
    tail = [f"  ... and {more} more"] if more > 0 else []
    return RunFailed("\n".join((head, *reasons, *tail)))


class UntakenTypes:
    """Warns of task types of which no worker has taken a task for some time.

    Args:
        warn: Receives one line for each such type.
        after_s: Time after which it warns.
    """

    def __init__(self, warn: Callable[[str], None], *, after_s: float = _UNTAKEN_S) -> None:
        self._warn = warn
        self._after_s = after_s
        self._since: dict[str, float] = {}
        self._warned: set[str] = set()

    def check(self, tasks: list[Document]) -> None:
        """Check all tasks; a type of which a worker has taken any task has a worker."""
        ours = [task for task in tasks if _is_for_workers(task)]
        taken = {_type_of(task) for task in ours if not _is_untaken(task)}
        waiting = {_type_of(task) for task in ours} - taken
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in waiting}
        for name in sorted(waiting - self._warned):
            if now - self._since[name] >= self._after_s:
                self._warn(f"no worker has taken {name} yet")
                self._warned.add(name)


class WorkflowFollower:
    """Requests the state of a workflow again and again, and reports its progress."""

    def __init__(
        self, conductor: Conductor, watcher: ProgressListener, untaken: UntakenTypes
    ) -> None:
        self._conductor = conductor
        self._untaken = untaken
        self._watcher = watcher
        self._stalled: set[str] = set()
        self._ended: dict[str, Document] = {}
        self._total = self._done = 0

    def poll(self, identity: str) -> Document:
        """Request the state once; return the workflow."""
        family = list(self._family(identity))
        self._report(family)
        self._untaken.check([task for workflow in family for task in tasks_of(workflow)])
        self._resume({str(each["workflowId"]) for each in family if _is_stalled(each)})
        return family[0]

    def _family(self, identity: str) -> Iterator[Document]:
        """Yield a workflow, then the sub-workflows that it has started."""
        workflow = self._ended.get(identity) or self._conductor.workflow(identity)
        if is_over(workflow):
            self._ended[identity] = workflow
        yield workflow
        for task in tasks_of(workflow):
            child = task.get("subWorkflowId") or output_of(task).get("subWorkflowId")
            if task.get("taskType") == "SUB_WORKFLOW" and isinstance(child, str):
                yield from self._family(child)

    def _report(self, family: list[Document]) -> None:
        outputs = [
            (task.get("taskDefName"), output_of(task))
            for workflow in family
            for task in tasks_of(workflow)
            if not task.get("retried")
        ]
        total = sum(_number(output, "tiles") for name, output in outputs if name == "pesto_plan")
        done = sum(
            _number(output, "tiles") + _number(output, "reused")
            for name, output in outputs
            if name != "pesto_plan" and "manifest" in output
        )
        if total > self._total:
            self._watcher.begin(total)
            self._total = total
        if done > self._done:
            self._watcher.advance(done - self._done)
            self._done = done

    def _resume(self, stalled: set[str]) -> None:
        """Have the server schedule the next tasks of workflows that two polls found stalled."""
        # Sometimes a server completes every task, and evaluates the workflow only at its next
        # sweep, up to a minute later.
        for identity in stalled & self._stalled:
            self._conductor.decide(identity)
        self._stalled = stalled


def workflows_table(found: Sequence[Mapping[str, JsonValue]]) -> Table:
    """Return a table of the summaries of a search, one row per workflow."""
    table = _table("workflow", "name", "status", "started", "s", "reason")
    for each in found:
        ran_ms = each.get("executionTime")
        table.add_row(
            str(each.get("workflowId")),
            str(each.get("workflowType")),
            str(each.get("status")),
            str(each.get("startTime"))[:19].replace("T", " "),
            f"{ran_ms / _MS:.1f}" if isinstance(ran_ms, int) else "",
            str(each.get("reasonForIncompletion") or "")[:_REASON_CHARS],
        )
    return table


def workflow_text(workflow: Mapping[str, JsonValue]) -> str:
    """Return name, id and status of a workflow in one line, and its reason in a second."""
    name = workflow.get("workflowName") or workflow.get("workflowType")
    line = f"{name} {workflow.get('workflowId')}: {workflow.get('status')}"
    reason = workflow.get("reasonForIncompletion")
    return line + (f"\n{str(reason)[:_REASON_CHARS]}" if reason else "")


def tasks_table(workflow: Mapping[str, JsonValue]) -> Table:
    """Return a table of the tasks of a workflow.

    The chunks of a fan-out share one row; running and failed ones have a row of their own too.
    """
    table = _table("task", "type", "status", "attempt", "s", "details")
    for row in _rows(workflow):
        table.add_row(*row)
    return table


def _rows(workflow: Mapping[str, JsonValue]) -> Iterator[tuple[str, ...]]:
    chunks: list[Document] = []
    for task in tasks_of(workflow):
        if task.get("retried"):
            continue
        if _is_chunk(task):
            chunks.append(task)
            continue
        yield from _chunk_rows(chunks)
        chunks = []
        yield _row(task)
    yield from _chunk_rows(chunks)


def _chunk_rows(chunks: list[Document]) -> Iterator[tuple[str, ...]]:
    if not chunks:
        return
    counts = Counter(str(each.get("status")) for each in chunks)
    outputs = [output_of(each) for each in chunks]
    tiles = sum(_number(each, "tiles") + _number(each, "reused") for each in outputs)
    holes = sum(_number(each, "holes") for each in outputs)
    progress = f"{tiles} tiles" + (f", {holes} holes" if holes else "")
    states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield (f"{len(chunks)} chunks", str(chunks[0].get("taskDefName")), states, "", "", progress)
    for each in chunks:
        if each.get("status") not in ("COMPLETED", "SCHEDULED", "CANCELED"):
            yield _row(each)


def _row(task: Mapping[str, JsonValue]) -> tuple[str, ...]:
    details = task.get("reasonForIncompletion") or _chunk_progress(task)
    attempt = task.get("retryCount")
    return (
        str(task.get("referenceTaskName")),
        str(task.get("taskDefName") or task.get("taskType")),
        str(task.get("status")),
        str(attempt + 1 if isinstance(attempt, int) else 1),
        _seconds(task),
        str(details)[:_REASON_CHARS],
    )


def _chunk_progress(task: Mapping[str, JsonValue]) -> str:
    is_running = _is_open(task) and _is_chunk(task)
    return f"{_number(output_of(task), 'tiles')} tiles" if is_running else ""


def _is_open(task: Mapping[str, JsonValue]) -> bool:
    """Whether a task waits for a worker, or has one."""
    return task.get("status") in _OPEN


def _is_stalled(workflow: Mapping[str, JsonValue]) -> bool:
    """Whether a workflow has not ended, and all of its open tasks wait for others."""
    return not is_over(workflow) and not any(
        _is_open(task) and task.get("taskType") not in _WAITS_FOR_OTHERS
        for task in tasks_of(workflow)
    )


def _is_for_workers(task: Mapping[str, JsonValue]) -> bool:
    """Whether a worker runs a task, not the server: its type is the name of its definition."""
    return task.get("taskType") in ("SIMPLE", task.get("taskDefName"))


def _is_untaken(task: Mapping[str, JsonValue]) -> bool:
    return task.get("status") == "SCHEDULED" and not task.get("pollCount")


def _type_of(task: Mapping[str, JsonValue]) -> str:
    return str(task.get("taskDefName"))


def _is_chunk(task: Mapping[str, JsonValue]) -> bool:
    inputs = task.get("inputData")
    return isinstance(inputs, dict) and {"plan", "phase", "start", "stop"} <= inputs.keys()


def _number(output: Mapping[str, JsonValue], name: str) -> int:
    value = output.get(name)
    return value if isinstance(value, int) else 0


def _seconds(task: Mapping[str, JsonValue]) -> str:
    begun, ended = task.get("startTime"), task.get("endTime")
    if not isinstance(begun, int) or not begun:
        return ""
    until = ended if isinstance(ended, int) and ended else datetime.now(UTC).timestamp() * _MS
    return f"{(until - begun) / _MS:.1f}"


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        fold = column in ("reason", "details")
        table.add_column(column, overflow="fold", no_wrap=not fold)
    return table
