"""What a task of a workflow may read: the workflow's inputs, and outputs of tasks before it.

A task in a branch of a SWITCH may not run at all: a later task that reads it would be given null,
so only outputs of the workflow, where null says so, may.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.expressions import Expression, expressions, missing_field, unclosed
from pesto_conductor.taskdefs import PREFIX
from pesto_runtime.errors import BadField, json_pointer
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    Document = dict[str, JsonValue]
    Schemas = Mapping[str, JsonValue]
    from collections.abc import Iterable

    from pesto_conductor.taskdefs import TaskDefinition


_BRANCHES = ("forkTasks", "decisionCases", "defaultCase", "loopOver")
_OF_A_WORKFLOW = frozenset(
    {"workflowId", "parentWorkflowId", "parentWorkflowTaskId", "workflowType", "version",
     "correlationId", "status", "reasonForIncompletion", "schemaVersion", "output", "variables",
     "secrets", "env"}
)  # fmt: skip
_OF_A_TASK = frozenset({"input", "output", "status", "taskId", "reasonForIncompletion"})


def _closed(*names: str) -> Document:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(names, True),
    }


_RESPONSE = _closed("body", "headers", "statusCode", "reasonPhrase")
_OUTPUTS: dict[str, JsonValue] = {
    "HTTP": {**_closed(), "properties": {"response": _RESPONSE}},
    "INLINE": _closed("result", "error"),
    "JSON_JQ_TRANSFORM": _closed("result", "resultList", "error"),
    "SWITCH": _closed("evaluationResult", "selectedCase"),
    "START_WORKFLOW": _closed("workflowId"),
    "FORK_JOIN_DYNAMIC": _closed(),
    "FORK_JOIN": _closed(),
    "SET_VARIABLE": _closed(),
}


@dataclass(frozen=True)
class Scope:
    """What may be read at one place.

    Attributes:
        inputs: Of the workflow.
        outputs: Task reference -> schema of its output, of all that ran before.
        uncertain: Those of them that may not have run.
        tasks: Known task definitions.
        workflows: Known workflows.
    """

    inputs: frozenset[str]
    tasks: Mapping[str, TaskDefinition]
    workflows: Mapping[str, Mapping[str, JsonValue]]
    outputs: Schemas = field(default_factory=dict)
    uncertain: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        document: Mapping[str, JsonValue],
        tasks: Mapping[str, TaskDefinition],
        workflows: Mapping[str, Mapping[str, JsonValue]],
    ) -> Scope:
        """What the first task may read."""
        names, defaults = document.get("inputParameters"), document.get("inputTemplate")
        given = [str(name) for name in names] if isinstance(names, list) else []
        given += list(defaults) if isinstance(defaults, dict) else []
        return cls(frozenset(given), tasks, workflows)

    def faults(
        self, value: JsonValue, *, pointer: str, is_certain: bool = True
    ) -> Iterator[BadField]:
        """Every expression in a value that leads nowhere, or may, or has no end."""
        for where in unclosed(value, pointer=pointer):
            yield BadField(where, "a ${ has no } after it: Conductor would take it for text")
        for each in expressions(value, pointer=pointer):
            if fault := self._fault(each, is_certain=is_certain):
                yield BadField(each.pointer, f"${{{each.text}}} {fault}")

    def _fault(self, read: Expression, *, is_certain: bool) -> str | None:
        owner, part, *rest = (*read.steps, "", "")
        steps = tuple(step for step in rest if step)
        if owner == "workflow":
            return self._workflow_fault(part, steps)
        if owner not in self.outputs:
            known = ", ".join(("workflow", *self.outputs))
            return f"reads {owner!r}, which no task before it is called; there are: {known}"
        if part not in _OF_A_TASK:
            return f"must go on with .output or .input, not {part!r}"
        if is_certain and owner in self.uncertain:
            return f"reads {owner!r}, which may not have run: it stands in a branch of a SWITCH"
        fault = missing_field(self.outputs[owner], steps) if part == "output" else None
        return f"leads nowhere: the output of {owner!r} {fault}" if fault else None

    def _workflow_fault(self, part: str, steps: tuple[str, ...]) -> str | None:
        if part != "input":
            return None if part in _OF_A_WORKFLOW else f"reads {part!r}, which no workflow has"
        if not steps or steps[0] in self.inputs:
            return None
        return f"is not one of the inputParameters: {', '.join(sorted(self.inputs)) or 'none'}"

    def with_task(self, task: Mapping[str, JsonValue]) -> Scope:
        """What may be read after a task."""
        reference = str(task.get("taskReferenceName"))
        return replace(self, outputs={**self.outputs, reference: self._output_of(task)})

    def with_branches(self, ends: list[Scope], *, all_run: bool) -> Scope:
        """What may be read where branches have come together."""
        outputs = {name: made for end in ends for name, made in end.outputs.items()}
        uncertain = self.uncertain.union(*(end.uncertain for end in ends))
        if not all_run:
            certain = frozenset.intersection(*(frozenset(end.outputs) for end in ends))
            uncertain |= outputs.keys() - certain
        return replace(self, outputs={**self.outputs, **outputs}, uncertain=uncertain)

    def _output_of(self, task: Mapping[str, JsonValue]) -> JsonValue:
        kind = str(task.get("type"))
        if kind == "SIMPLE":
            known = self.tasks.get(str(task.get("name")))
            return dict(known.output_schema) if known else True
        if kind == "JOIN":
            return self._joined(task.get("joinOn"))
        if kind == "SUB_WORKFLOW":
            return self._workflow_output(task.get("subWorkflowParam"))
        return _OUTPUTS.get(kind, True)

    def _joined(self, names: JsonValue) -> JsonValue:
        """Outputs of the branches by name; whatever a dynamic fork made has names of its own."""
        if not isinstance(names, list) or not names:
            return True
        made = {str(name): self.outputs.get(str(name), True) for name in names}
        return {"type": "object", "additionalProperties": False, "properties": made}

    def _workflow_output(self, parameters: JsonValue) -> JsonValue:
        name = str(parameters.get("name")) if isinstance(parameters, dict) else ""
        outputs = self.workflows.get(name, {}).get("outputParameters")
        return _closed("subWorkflowId", *outputs) if isinstance(outputs, dict) else True


@dataclass(frozen=True)
class TaskPosition:
    """A task, and what may be read around it.

    Attributes:
        task: The task.
        pointer: JSON pointer to it.
        scope: What it may read.
        after: What may be read after it, and after its branches.
        follower: Type of the task after it in its list; None for the last.
    """

    task: Document
    pointer: str
    scope: Scope
    after: Scope
    follower: str | None

    @property
    def reads(self) -> Document:
        """The task without its branches, which have places of their own."""
        return {key: value for key, value in self.task.items() if key not in _BRANCHES}


def walk(tasks: JsonValue, scope: Scope, *, pointer: str) -> Iterator[TaskPosition]:
    """Every task in the order in which they run, branches before what follows them."""
    listed = tasks if isinstance(tasks, list) else []
    for index, task in enumerate(listed):
        if not isinstance(task, dict):
            continue
        here, ends = pointer + json_pointer(index), []
        before = scope
        for branch, where in _branches(task):
            end = before
            for place in walk(branch, before, pointer=here + where):
                yield place
                end = place.after
            ends.append(end)
        if ends:
            scope = scope.with_branches(ends, all_run=task.get("type") != "SWITCH")
        scope = scope.with_task(task)
        yield TaskPosition(task, here, before, scope, _type_of(listed[index + 1 : index + 2]))


def _type_of(tasks: list[JsonValue]) -> str | None:
    """Of the first of some tasks; None where there is none."""
    first = tasks[0] if tasks else None
    return str(first.get("type")) if isinstance(first, dict) else None


def _branches(task: Document) -> Iterator[tuple[JsonValue, str]]:
    """Lists of tasks inside a task; a SWITCH always has a default, if an empty one."""
    forks, cases = task.get("forkTasks"), task.get("decisionCases")
    for index, branch in enumerate(forks if isinstance(forks, list) else []):
        yield branch, json_pointer("forkTasks", index)
    for name, branch in cases.items() if isinstance(cases, dict) else []:
        yield branch, json_pointer("decisionCases", name)
    if task.get("type") == "SWITCH":
        yield task.get("defaultCase"), "/defaultCase"
    if task.get("type") == "DO_WHILE":
        yield task.get("loopOver"), "/loopOver"


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
