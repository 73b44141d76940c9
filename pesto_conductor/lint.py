"""What is wrong with a workflow definition, found before any server sees it.

Conductor takes keys that it does not know and expressions that lead nowhere: the first are ignored,
the second become null. Here both are errors.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.scopes import Scope, walk
from pesto_conductor.taskdefs import PREFIX
from pesto_runtime.errors import BadField, json_pointer
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_conductor.scopes import TaskPosition
    from pesto_conductor.taskdefs import TaskDefinition

    Document = dict[str, JsonValue]

_FORKS = frozenset({"FORK_JOIN", "FORK_JOIN_DYNAMIC"})
_JOINS = frozenset({"JOIN", "EXCLUSIVE_JOIN"})
_SCHEMAS = Path(__file__).parent / "schemas"


def is_event_handler(document: Mapping[str, JsonValue]) -> bool:
    """Whether a document is an event handler, not a workflow."""
    return "event" in document


def lint(
    document: Document,
    *,
    tasks: Iterable[TaskDefinition],
    workflows: Iterable[Mapping[str, JsonValue]] = (),
) -> tuple[BadField, ...]:
    """Everything that is wrong with a workflow definition or an event handler.

    Args:
        document: The definition.
        tasks: Task definitions that will be registered; a task of another `pesto_…` type is wrong.
        workflows: Other workflows that it may start; their outputs are known.
    """
    if is_event_handler(document):
        return tuple(schema_faults(_schema("event_handler"), document))
    faults = tuple(schema_faults(_schema("workflow"), document))
    if faults:  # the rest reads what these have found to be there
        return faults
    known = {each.name: each for each in tasks}
    made = {str(each.get("name")): each for each in workflows}
    return tuple(_faults(document, known, made))


def _faults(
    document: Document,
    known: Mapping[str, TaskDefinition],
    workflows: Mapping[str, Mapping[str, JsonValue]],
) -> Iterator[BadField]:
    scope = Scope.of(document, known, workflows)
    for place in walk(document.get("tasks"), scope, pointer="/tasks"):
        yield from _task_faults(place, known)
        yield from place.scope.faults(place.reads, pointer=place.pointer)
        scope = place.after
    outputs = {"outputParameters": document.get("outputParameters")}
    yield from scope.faults(outputs, pointer="", is_certain=False)


def _task_faults(place: TaskPosition, known: Mapping[str, TaskDefinition]) -> Iterator[BadField]:
    task, kind = place.task, place.task.get("type")
    if task.get("taskReferenceName") in place.scope.outputs:
        yield BadField(f"{place.pointer}/taskReferenceName", "stands twice in this workflow")
    yield from _join_faults(place)
    inputs = task.get("inputParameters")
    given = inputs if isinstance(inputs, dict) else {}
    if kind == "SIMPLE":
        yield from _input_faults(str(task["name"]), given, known, place.pointer)
    elif kind == "FORK_JOIN_DYNAMIC" and isinstance(given.get("forkTaskName"), str):
        yield from _type_faults(str(given["forkTaskName"]), known, place.pointer)
    elif task.get("evaluatorType") == "value-param" and task.get("expression") not in given:
        yield BadField(f"{place.pointer}/expression", "names none of the inputParameters")


def _join_faults(place: TaskPosition) -> Iterator[BadField]:
    """A JOIN waits for ever for a task that never was; a fork without a JOIN fails at run time."""
    kind, names = place.task.get("type"), place.task.get("joinOn")
    if kind in _FORKS and place.follower != "JOIN":
        yield BadField(place.pointer, f"a {kind} must be followed by a JOIN")
    if kind not in _JOINS:
        return
    known = place.scope.outputs
    for index, name in enumerate(names if isinstance(names, list) else []):
        if name not in known:
            yield BadField(
                f"{place.pointer}/joinOn" + json_pointer(index),
                f"no task before it is called {name!r}, and it would wait for ever; "
                f"there are: {', '.join(known)}",
            )


def _type_faults(
    name: str, known: Mapping[str, TaskDefinition], pointer: str
) -> Iterator[BadField]:
    if name.startswith(PREFIX) and name not in known:
        yield BadField(
            pointer,
            f"no task type {name!r}; there are: {', '.join(known)}; "
            "that of a service is added by --per-service URL",
        )


def _input_faults(
    name: str, given: Document, known: Mapping[str, TaskDefinition], pointer: str
) -> Iterator[BadField]:
    """Inputs of a task of ours: none unknown, none left out, literals of the right kind."""
    yield from _type_faults(name, known, pointer)
    if name not in known:
        return
    schema, where = known[name].input_schema, f"{pointer}/inputParameters"
    properties = schema.get("properties")
    wanted = properties if isinstance(properties, dict) else {}
    for key in given.keys() - wanted.keys():
        yield BadField(
            where + json_pointer(key), f"{name} has no such input; there are: {', '.join(wanted)}"
        )
    required = schema.get("required")
    for needed in required if isinstance(required, list) else []:
        if str(needed) not in given and str(needed) not in known[name].defaults:
            yield BadField(where, f"{name} needs {needed}")
    literals = {key: value for key, value in given.items() if "${" not in json.dumps(value)}
    for key in literals.keys() & wanted.keys():
        alone: Document = {"properties": {key: wanted[key]}, "$defs": schema.get("$defs", {})}
        yield from schema_faults(_modern(alone), {key: literals[key]}, pointer=where)


def _modern(schema: dict[str, JsonValue]) -> Document:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def _schema(name: str) -> Mapping[str, JsonValue]:
    document: Mapping[str, JsonValue] = json.loads((_SCHEMAS / f"{name}.json").read_text())
    return document
