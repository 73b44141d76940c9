"""Find errors in tasks that Conductor itself executes: forks, joins, switches, waits, HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pesto_conductor.expressions import types_of
from pesto_conductor.lint_scripts import literal_results, parse_fault, read_names
from pesto_runtime.errors import BadField, json_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_conductor.scopes import TaskPosition

    Faults = Iterator[tuple[str, BadField]]

_FORKS = frozenset({"FORK_JOIN", "FORK_JOIN_DYNAMIC"})
_JOINS = frozenset({"JOIN", "EXCLUSIVE_JOIN"})
_SCRIPTS = frozenset({"javascript", "graaljs"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_STATES = frozenset({"COMPLETED", "FAILED", "TERMINATED"})
_DURATION = re.compile(
    r"\s*(\d+\s*(days?|d)\s*)?(\d+\s*(hours?|hrs?|h)\s*)?(\d+\s*(minutes?|mins?|m)\s*)?"
    r"(\d+\s*(seconds?|secs?|s)\s*)?",
    re.IGNORECASE,
)


def system_task_faults(position: TaskPosition) -> Faults:
    """Yield rule and fault of everything that is wrong with a task of Conductor's own types."""
    kind, pointer = position.task.get("type"), position.pointer
    if kind in _FORKS and position.next_type != "JOIN":
        yield "join", BadField(pointer, f"a {kind} must be followed by a JOIN")
    if kind in _JOINS:
        yield from _join_faults(position)
    if kind == "FORK_JOIN_DYNAMIC":
        yield from _dynamic_fork_faults(position)
    if kind == "SWITCH":
        yield from _switch_faults(position)
    if kind == "HTTP_POLL":
        detail = "the open-source server accepts HTTP_POLL and never executes it: use a DO_WHILE"
        yield "not-executed", BadField(f"{pointer}/type", detail)
    yield from _literal_faults(position)
    yield from _script_faults(position)


def _join_faults(position: TaskPosition) -> Faults:
    """Yield the faults of a JOIN: it waits for ever for a task that does not exist."""
    names, known = position.task.get("joinOn"), position.scope.outputs
    listed = names if isinstance(names, list) else []
    if not listed and position.previous_type == "FORK_JOIN":
        detail = "is empty after a FORK_JOIN: it waits for no branch; name the last task of each"
        yield "join", BadField(f"{position.pointer}/joinOn", detail)
    for index, name in enumerate(listed):
        if name not in known:
            detail = (
                f"no earlier task is called {name!r}, so it would wait for ever; "
                f"there are: {', '.join(known)}"
            )
            yield "join", BadField(f"{position.pointer}/joinOn" + json_pointer(index), detail)


def _dynamic_fork_faults(position: TaskPosition) -> Faults:
    """Yield the fault of fork inputs that are not an array of objects."""
    value = position.inputs.get("forkTaskInputs")
    schema = position.scope.type_of_text(value)
    items = schema.get("items") if isinstance(schema, dict) else None
    of_list, where = types_of(schema), f"{position.pointer}/inputParameters/forkTaskInputs"
    if of_list and "array" not in of_list:
        yield "type", BadField(where, f"must be an array, but {value} is {', '.join(of_list)}")
    elif "array" in types_of(items):
        detail = f"must be an array of objects, but {value} is an array of arrays: choose one"
        yield "type", BadField(where, detail)


def _switch_faults(position: TaskPosition) -> Faults:
    task, inputs = position.task, position.inputs
    name, cases = str(task.get("expression")), task.get("decisionCases")
    values: frozenset[str] | None = None
    if task.get("evaluatorType") == "value-param":
        if name not in inputs:
            detail = "is not one of the inputParameters"
            yield "script", BadField(f"{position.pointer}/expression", detail)
            return
        values = _enum_of(position, inputs[name])
    elif task.get("evaluatorType") in _SCRIPTS:
        values = literal_results(name)
    for case in cases if isinstance(cases, dict) and values else ():
        if values is not None and case not in values:
            detail = f"never happens: the expression is one of {', '.join(sorted(values))}"
            where = f"{position.pointer}/decisionCases" + json_pointer(case)
            yield "case", BadField(where, detail)


def _enum_of(position: TaskPosition, value: JsonValue) -> frozenset[str] | None:
    """Return the values that an input may have; None if they are not known."""
    schema = position.scope.type_of_text(value)
    listed = schema.get("enum") if isinstance(schema, dict) else None
    return frozenset(map(str, listed)) if isinstance(listed, list) else None


def _literal_faults(position: TaskPosition) -> Faults:
    """Yield the faults of texts of which Conductor knows only some."""
    inputs, where = position.inputs, f"{position.pointer}/inputParameters"
    kind = position.task.get("type")
    text, state = inputs.get("duration"), inputs.get("terminationStatus")
    if kind == "WAIT" and _is_literal(text) and not _is_duration(str(text)):
        detail = f"{text!r} is not a duration, as 2 seconds, 1h 30m or 3 days"
        yield "literal", BadField(f"{where}/duration", detail)
    if kind == "HTTP" and isinstance(request := inputs.get("http_request"), dict):
        method = request.get("method")
        if _is_literal(method) and str(method).upper() not in _METHODS:
            detail = f"{method!r} is not a method: {', '.join(sorted(_METHODS))}"
            yield "literal", BadField(f"{where}/http_request/method", detail)
    if kind == "TERMINATE" and _is_literal(state) and state not in _STATES:
        detail = f"{state!r} is not a final status: {', '.join(sorted(_STATES))}"
        yield "literal", BadField(f"{where}/terminationStatus", detail)


def _script_faults(position: TaskPosition) -> Faults:
    """Yield the faults of scripts: syntax, and `$.x` without an input x."""
    place, text = _script(position)
    where = position.pointer + place
    if not place or "${" in text:  # Conductor writes values into such a text first
        return
    is_jq = position.task.get("type") == "JSON_JQ_TRANSFORM"
    if fault := parse_fault(text, "jq" if is_jq else "javascript"):
        yield "script", BadField(where, fault)
        return
    readable = set(position.inputs)
    if position.task.get("type") == "DO_WHILE":
        readable |= position.scope.outputs.keys()
    for name in () if is_jq else read_names(text):
        if name not in readable:
            known = ", ".join(sorted(position.inputs)) or "none"
            detail = f"reads $.{name}, which is not one of the inputParameters: {known}"
            yield "script", BadField(where, detail)


def _script(position: TaskPosition) -> tuple[str, str]:
    """Return pointer and text of the script of a task; two empty texts if it has none."""
    task, inputs, kind = position.task, position.inputs, position.task.get("type")
    if kind == "JSON_JQ_TRANSFORM":
        return "/inputParameters/queryExpression", str(inputs.get("queryExpression"))
    if kind == "DO_WHILE":
        return "/loopCondition", str(task.get("loopCondition"))
    if kind == "SWITCH" and task.get("evaluatorType") in _SCRIPTS:
        return "/expression", str(task.get("expression"))
    if kind == "INLINE" and inputs.get("evaluatorType") in _SCRIPTS:
        return "/inputParameters/expression", str(inputs.get("expression"))
    return "", ""


def _is_duration(text: str) -> bool:
    return bool(text.strip()) and _DURATION.fullmatch(text) is not None


def _is_literal(value: JsonValue) -> bool:
    return isinstance(value, str) and "${" not in value
