"""How workflows look on a terminal: the server's jar brings no pages of its own."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pesto_conductor.following import is_open, output_of, tasks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue
    from rich.table import Table

    Document = dict[str, JsonValue]

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
