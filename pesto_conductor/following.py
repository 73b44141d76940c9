"""Follow a workflow until it ends: its tiles, its failures, and a push when the server forgets it.

Once in a while a server finishes every task and does not look at the workflow again before its next
sweep, up to a minute later. Whoever follows asks it to look.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pesto_conductor.client import is_over
from pesto_runtime.errors import RunFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    Document = dict[str, JsonValue]
    from collections.abc import Sequence

    from rich.table import Table

    from pesto_conductor.client import Conductor
    from pesto_runtime.engines import ProgressListener


_OPEN = frozenset({"SCHEDULED", "IN_PROGRESS"})
_WAITS_FOR_OTHERS = frozenset({"JOIN", "EXCLUSIVE_JOIN", "DO_WHILE", "FORK", "FORK_JOIN_DYNAMIC"})
_FIRST_POLL_S, _LAST_POLL_S = 0.1, 1.0
_AWAY_S = 120.0
_REASONS = 5
_PATIENCE_S = 10.0
"""Workers poll within a second; a task type that nobody takes for so long has no worker."""


def follow(
    conductor: Conductor,
    identity: str,
    watcher: ProgressListener,
    *,
    look: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda _: None,
) -> Document:
    """Follow a workflow until it has ended, well or not; answers it.

    A server that is away is waited for, 120 s at most: it keeps what was done.

    Args:
        conductor: The server.
        identity: Id of the workflow.
        watcher: Told of its tiles, and those of its sub-workflows.
        look: Called between two looks; what it raises ends the following.
        say: Told once of each task type that no worker has taken for 10 s.

    Raises:
        Unreachable: the server has been away for 120 s.
    """
    following = WorkflowFollower(conductor, watcher, Untaken(say))
    pause, last_seen = _FIRST_POLL_S, time.monotonic()
    while True:
        look()
        try:
            workflow = following.look(identity)
            last_seen = time.monotonic()
        except Unreachable:
            if time.monotonic() - last_seen > _AWAY_S:
                raise
        else:
            if is_over(workflow):
                return workflow
        time.sleep(pause)
        pause = min(1.5 * pause, _LAST_POLL_S)


def tasks_of(workflow: Mapping[str, JsonValue]) -> list[Document]:
    """Tasks of a workflow, each attempt one, in the order in which they were made."""
    tasks = workflow.get("tasks")
    return [each for each in tasks if isinstance(each, dict)] if isinstance(tasks, list) else []


def is_open(task: Mapping[str, JsonValue]) -> bool:
    """Whether a task waits for a worker, or has one."""
    return task.get("status") in _OPEN


def output_of(task: Mapping[str, JsonValue]) -> Document:
    """What a task answered so far."""
    output = task.get("outputData")
    return output if isinstance(output, dict) else {}


def is_stalled(workflow: Mapping[str, JsonValue]) -> bool:
    """Whether a workflow runs, and nothing in it does but tasks that wait for others."""
    return not is_over(workflow) and not any(
        is_open(task) and task.get("taskType") not in _WAITS_FOR_OTHERS
        for task in tasks_of(workflow)
    )


def failure_of(workflow: Mapping[str, JsonValue]) -> RunFailed:
    """Why a workflow failed: each task that did, by its own reason."""
    failed = [
        f"  {task.get('referenceTaskName')}: {task.get('reasonForIncompletion') or 'no reason'}"
        for task in tasks_of(workflow)
        if str(task.get("status")).startswith(("FAILED", "TIMED_OUT")) and not task.get("retried")
    ]
    reasons = failed[:_REASONS] or [f"  {workflow.get('reasonForIncompletion') or 'no reason'}"]
    more = [f"  ... and {len(failed) - _REASONS} more"] if len(failed) > _REASONS else []
    head = f"workflow {workflow.get('workflowId')} ended as {workflow.get('status')}:"
    return RunFailed("\n".join((head, *reasons, *more)))


class Untaken:
    """Says of which task types no worker has taken any task, once they have waited for long.

    Args:
        say: Told a line for each such type, once.
        patience_s: How long a type may wait.
    """

    def __init__(self, say: Callable[[str], None], *, patience_s: float = _PATIENCE_S) -> None:
        self._say = say
        self._patience_s = patience_s
        self._since: dict[str, float] = {}
        self._said: set[str] = set()

    def look(self, tasks: list[Document]) -> None:
        """Look at all tasks that there are; a type of which one was taken has a worker."""
        ours = [task for task in tasks if _is_for_workers(task)]
        taken = {_type_of(task) for task in ours if not _waits_untouched(task)}
        waiting = {_type_of(task) for task in ours} - taken
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in waiting}
        for name in sorted(waiting - self._said):
            if now - self._since[name] >= self._patience_s:
                self._say(f"no worker has taken {name} yet")
                self._said.add(name)


class WorkflowFollower:
    """What is remembered from look to look."""

    def __init__(self, conductor: Conductor, watcher: ProgressListener, untaken: Untaken) -> None:
        self._conductor = conductor
        self._untaken = untaken
        self._watcher = watcher
        self._stalled: set[str] = set()
        self._ended: dict[str, Document] = {}
        self._total = self._done = 0

    def look(self, identity: str) -> Document:
        """Look once; answers the workflow."""
        family = list(self._family(identity))
        self._tell(family)
        self._untaken.look([task for workflow in family for task in tasks_of(workflow)])
        self._push({str(each["workflowId"]) for each in family if is_stalled(each)})
        return family[0]

    def _family(self, identity: str) -> Iterator[Document]:
        """A workflow, then those that it started and waits for."""
        workflow = self._ended.get(identity) or self._conductor.workflow(identity)
        if is_over(workflow):
            self._ended[identity] = workflow
        yield workflow
        for task in tasks_of(workflow):
            child = task.get("subWorkflowId") or output_of(task).get("subWorkflowId")
            if task.get("taskType") == "SUB_WORKFLOW" and isinstance(child, str):
                yield from self._family(child)

    def _tell(self, family: list[Document]) -> None:
        outputs = [
            (task.get("taskDefName"), output_of(task))
            for workflow in family
            for task in tasks_of(workflow)
            if not task.get("retried")
        ]
        total = sum(_count(output, "tiles") for name, output in outputs if name == "pesto_plan")
        done = sum(
            _count(output, "tiles") + _count(output, "reused")
            for name, output in outputs
            if name != "pesto_plan" and "manifest" in output
        )
        if total > self._total:
            self._watcher.begin(total)
            self._total = total
        if done > self._done:
            self._watcher.advance(done - self._done)
            self._done = done

    def _push(self, stalled: set[str]) -> None:
        """Ask the server to look at what was stalled at two looks running."""
        for identity in stalled & self._stalled:
            self._conductor.decide(identity)
        self._stalled = stalled


def _is_for_workers(task: Mapping[str, JsonValue]) -> bool:
    """Whether a worker is to do it, not the server: then its type is the name of its definition."""
    return task.get("taskType") in ("SIMPLE", task.get("taskDefName"))


def _waits_untouched(task: Mapping[str, JsonValue]) -> bool:
    return task.get("status") == "SCHEDULED" and not task.get("pollCount")


def _type_of(task: Mapping[str, JsonValue]) -> str:
    return str(task.get("taskDefName"))


def _count(output: Mapping[str, JsonValue], name: str) -> int:
    value = output.get(name)
    return value if isinstance(value, int) else 0


_MS = 1000.0
_REASON_CHARS = 300


def workflows_table(found: Sequence[Mapping[str, JsonValue]]) -> Table:
    """Workflows in short, as a search answers them: one a row."""
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
    """What a workflow is, in a line; and why it ended, if it failed."""
    line = f"{workflow.get('workflowName') or workflow.get('workflowType')} {_ident(workflow)}"
    reason = workflow.get("reasonForIncompletion")
    return line + (f"\n{str(reason)[:_REASON_CHARS]}" if reason else "")


def tasks_table(workflow: Mapping[str, JsonValue]) -> Table:
    """Tasks of a workflow, one a row; those of a fan-out are one row until one needs a look."""
    table = _table("task", "type", "status", "attempt", "s", "what")
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
    tiles = sum(_number(each, "tiles") + _number(each, "reused") for each in chunks)
    holes = sum(_number(each, "holes") for each in chunks)
    told = f"{tiles} tiles" + (f", {holes} holes" if holes else "")
    states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield (f"{len(chunks)} chunks", str(chunks[0].get("taskDefName")), states, "", "", told)
    for each in chunks:
        if each.get("status") not in ("COMPLETED", "SCHEDULED", "CANCELED"):
            yield _row(each)


def _row(task: Mapping[str, JsonValue]) -> tuple[str, ...]:
    what = task.get("reasonForIncompletion") or _chunk_progress(task)
    attempt = task.get("retryCount")
    return (
        str(task.get("referenceTaskName")),
        str(task.get("taskDefName") or task.get("taskType")),
        str(task.get("status")),
        str(attempt + 1 if isinstance(attempt, int) else 1),
        _seconds(task),
        str(what)[:_REASON_CHARS],
    )


def _chunk_progress(task: Mapping[str, JsonValue]) -> str:
    return f"{_number(task, 'tiles')} tiles" if is_open(task) and _is_chunk(task) else ""


def _is_chunk(task: Mapping[str, JsonValue]) -> bool:
    inputs = task.get("inputData")
    return isinstance(inputs, dict) and {"plan", "phase", "start", "stop"} <= inputs.keys()


def _number(task: Mapping[str, JsonValue], name: str) -> int:
    value = output_of(task).get(name)
    return value if isinstance(value, int) else 0


def _seconds(task: Mapping[str, JsonValue]) -> str:
    begun, ended = task.get("startTime"), task.get("endTime")
    if not isinstance(begun, int) or not begun:
        return ""
    until = ended if isinstance(ended, int) and ended else datetime.now(UTC).timestamp() * _MS
    return f"{(until - begun) / _MS:.1f}"


def _ident(workflow: Mapping[str, JsonValue]) -> str:
    return f"{workflow.get('workflowId')}: {workflow.get('status')}"


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        fold = column in ("reason", "what")
        table.add_column(column, overflow="fold", no_wrap=not fold)
    return table
