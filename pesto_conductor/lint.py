"""Find errors in a workflow definition or event handler, and in its expressions.

A task may read the inputs of the workflow, and outputs of earlier tasks. A task in a branch of a
SWITCH does not always run, and Conductor then replaces its output by null: only outputs of the
workflow may read it. Expressions themselves are parsed by `expressions.py`.
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
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition

    Document = dict[str, JsonValue]
    Schemas = Mapping[str, JsonValue]

_SCHEMAS = Path(__file__).parent / "schemas"
_FORKS = frozenset({"FORK_JOIN", "FORK_JOIN_DYNAMIC"})
_JOINS = frozenset({"JOIN", "EXCLUSIVE_JOIN"})


_BRANCHES = ("forkTasks", "decisionCases", "defaultCase", "loopOver")
_WORKFLOW_FIELDS = frozenset(
    {"workflowId", "parentWorkflowId", "parentWorkflowTaskId", "workflowType", "version",
     "correlationId", "status", "reasonForIncompletion", "schemaVersion", "output", "variables",
     "secrets", "env"}
)  # fmt: skip
_TASK_FIELDS = frozenset({"input", "output", "status", "taskId", "reasonForIncompletion"})


def _closed(*names: str) -> Document:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(names, True),
    }


# Outputs of Conductor's own task types; a type that is not listed may have any output.
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
    """The values that can be read at one place of a workflow.

    Attributes:
        inputs: Names of the workflow's inputs.
        tasks: Task type -> task definition.
        workflows: Name -> workflow definition.
        outputs: Reference of each earlier task -> schema of its output.
        uncertain: Earlier tasks that do not always run.
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
        """Return the scope of the first task."""
        names, defaults = document.get("inputParameters"), document.get("inputTemplate")
        inputs = [str(name) for name in names] if isinstance(names, list) else []
        inputs += list(defaults) if isinstance(defaults, dict) else []
        return cls(frozenset(inputs), tasks, workflows)

    def faults(
        self, value: JsonValue, *, pointer: str, is_certain: bool = True
    ) -> Iterator[BadField]:
        """Yield the fault of every expression in a value that has no target, or no end.

        With `is_certain`, also of those whose target does not always exist.
        """
        for where in unclosed(value, pointer=pointer):
            yield BadField(where, "a ${ has no } after it: Conductor would treat it as text")
        for each in expressions(value, pointer=pointer):
            if fault := self._fault(each, is_certain=is_certain):
                yield BadField(each.pointer, f"${{{each.text}}} {fault}")

    def _fault(self, expression: Expression, *, is_certain: bool) -> str | None:
        owner, part, *rest = (*expression.steps, "", "")
        steps = tuple(step for step in rest if step)
        if owner == "workflow":
            return self._workflow_fault(part, steps)
        if owner not in self.outputs:
            known = ", ".join(("workflow", *self.outputs))
            return f"reads {owner!r}, but no earlier task has this name; there are: {known}"
        if part not in _TASK_FIELDS:
            return f"must continue with .output or .input, not {part!r}"
        if is_certain and owner in self.uncertain:
            return f"reads {owner!r}, which does not always run: it is in a branch of a SWITCH"
        fault = missing_field(self.outputs[owner], steps) if part == "output" else None
        return f"has no target: the output of {owner!r} {fault}" if fault else None

    def _workflow_fault(self, part: str, steps: tuple[str, ...]) -> str | None:
        if part != "input":
            is_known = part in _WORKFLOW_FIELDS
            return None if is_known else f"reads {part!r}, which a workflow does not have"
        if not steps or steps[0] in self.inputs:
            return None
        return f"is not one of the inputParameters: {', '.join(sorted(self.inputs)) or 'none'}"

    def with_task(self, task: Mapping[str, JsonValue]) -> Scope:
        """Return the scope after a task."""
        reference = str(task.get("taskReferenceName"))
        return replace(self, outputs={**self.outputs, reference: self._output_of(task)})

    def with_branches(self, ends: list[Scope], *, all_run: bool) -> Scope:
        """Return the scope after the branches with these ends."""
        outputs = {name: schema for end in ends for name, schema in end.outputs.items()}
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
        """Return the schema of a JOIN: an output per branch; any after a dynamic fork."""
        if not isinstance(names, list) or not names:
            return True
        outputs = {str(name): self.outputs.get(str(name), True) for name in names}
        return {"type": "object", "additionalProperties": False, "properties": outputs}

    def _workflow_output(self, parameters: JsonValue) -> JsonValue:
        name = str(parameters.get("name")) if isinstance(parameters, dict) else ""
        outputs = self.workflows.get(name, {}).get("outputParameters")
        return _closed("subWorkflowId", *outputs) if isinstance(outputs, dict) else True


@dataclass(frozen=True)
class TaskPosition:
    """A task, and the values that can be read before and after it.

    Attributes:
        task: The task.
        pointer: JSON pointer to it.
        scope: The values that it can read.
        after: The values that can be read after it, and after its branches.
        next_type: Type of the next task in its list; None for the last.
    """

    task: Document
    pointer: str
    scope: Scope
    after: Scope
    next_type: str | None

    @property
    def own_fields(self) -> Document:
        """The task without its branches, whose tasks have their own positions."""
        return {key: value for key, value in self.task.items() if key not in _BRANCHES}


def walk(tasks: JsonValue, scope: Scope, *, pointer: str) -> Iterator[TaskPosition]:
    """Yield every task in the order of execution, the tasks of branches before their owner."""
    listed = tasks if isinstance(tasks, list) else []
    for index, task in enumerate(listed):
        if not isinstance(task, dict):
            continue
        here, ends = pointer + json_pointer(index), []
        before = scope
        for branch, where in _branches(task):
            end = before
            for position in walk(branch, before, pointer=here + where):
                yield position
                end = position.after
            ends.append(end)
        if ends:
            scope = scope.with_branches(ends, all_run=task.get("type") != "SWITCH")
        scope = scope.with_task(task)
        yield TaskPosition(task, here, before, scope, _first_type(listed[index + 1 :]))


def _first_type(tasks: list[JsonValue]) -> str | None:
    """Return the type of the first task of a list; None if the list is empty."""
    first = tasks[0] if tasks else None
    return str(first.get("type")) if isinstance(first, dict) else None


def _branches(task: Document) -> Iterator[tuple[JsonValue, str]]:
    """Yield the lists of tasks inside a task, with their pointers.

    A SWITCH without a `defaultCase` has an empty one, so that no case is certain to run.
    """
    forks, cases = task.get("forkTasks"), task.get("decisionCases")
    for index, branch in enumerate(forks if isinstance(forks, list) else []):
        yield branch, json_pointer("forkTasks", index)
    for name, branch in cases.items() if isinstance(cases, dict) else []:
        yield branch, json_pointer("decisionCases", name)
    if task.get("type") == "SWITCH":
        yield task.get("defaultCase"), "/defaultCase"
    if task.get("type") == "DO_WHILE":
        yield task.get("loopOver"), "/loopOver"


def is_event_handler(document: Mapping[str, JsonValue]) -> bool:
    """Whether a document is an event handler, not a workflow."""
    return "event" in document


def lint(
    document: Document,
    *,
    tasks: Iterable[TaskDefinition],
    workflows: Iterable[Mapping[str, JsonValue]] = (),
) -> tuple[BadField, ...]:
    """Return every error of a workflow definition or an event handler.

    Args:
        document: The definition.
        tasks: Task definitions that will be registered; another `pesto_…` type is an error.
        workflows: Other workflows that it may start; references to their outputs are checked.
    """
    if is_event_handler(document):
        return tuple(schema_faults(_schema("event_handler"), document))
    faults = tuple(schema_faults(_schema("workflow"), document))
    if faults:  # the other rules rely on the structure that the schema requires
        return faults
    known = {each.name: each for each in tasks}
    others = {str(each.get("name")): each for each in workflows}
    return tuple(_faults(document, known, others))


def _faults(
    document: Document,
    known: Mapping[str, TaskDefinition],
    workflows: Mapping[str, Mapping[str, JsonValue]],
) -> Iterator[BadField]:
    scope = Scope.of(document, known, workflows)
    for position in walk(document.get("tasks"), scope, pointer="/tasks"):
        yield from _task_faults(position, known)
        yield from position.scope.faults(position.own_fields, pointer=position.pointer)
        scope = position.after
    outputs = {"outputParameters": document.get("outputParameters")}
    yield from scope.faults(outputs, pointer="", is_certain=False)


def _task_faults(position: TaskPosition, known: Mapping[str, TaskDefinition]) -> Iterator[BadField]:
    task, kind = position.task, position.task.get("type")
    if task.get("taskReferenceName") in position.scope.outputs:
        yield BadField(
            f"{position.pointer}/taskReferenceName", "is not unique: an earlier task has it"
        )
    yield from _join_faults(position)
    parameters = task.get("inputParameters")
    inputs = parameters if isinstance(parameters, dict) else {}
    if kind == "SIMPLE":
        yield from _input_faults(str(task["name"]), inputs, known, position.pointer)
    elif kind == "FORK_JOIN_DYNAMIC" and isinstance(inputs.get("forkTaskName"), str):
        yield from _type_faults(str(inputs["forkTaskName"]), known, position.pointer)
    elif task.get("evaluatorType") == "value-param" and task.get("expression") not in inputs:
        yield BadField(f"{position.pointer}/expression", "is not one of the inputParameters")


def _join_faults(position: TaskPosition) -> Iterator[BadField]:
    """Yield the faults of forks and joins.

    A JOIN waits for ever for a task that does not exist; a fork without a JOIN fails at run time.
    """
    kind, names = position.task.get("type"), position.task.get("joinOn")
    if kind in _FORKS and position.next_type != "JOIN":
        yield BadField(position.pointer, f"a {kind} must be followed by a JOIN")
    if kind not in _JOINS:
        return
    known = position.scope.outputs
    for index, name in enumerate(names if isinstance(names, list) else []):
        if name not in known:
            yield BadField(
                f"{position.pointer}/joinOn" + json_pointer(index),
                f"no earlier task is called {name!r}, so it would wait for ever; "
                f"there are: {', '.join(known)}",
            )


def _type_faults(
    name: str, known: Mapping[str, TaskDefinition], pointer: str
) -> Iterator[BadField]:
    if name.startswith(PREFIX) and name not in known:
        yield BadField(
            pointer,
            f"there is no task type {name!r}, only {', '.join(known)}; "
            "--per-service URL adds that of a service",
        )


def _input_faults(
    name: str, inputs: Document, known: Mapping[str, TaskDefinition], pointer: str
) -> Iterator[BadField]:
    """Yield the faults of a task's inputs: unknown, missing, or literals of the wrong type."""
    yield from _type_faults(name, known, pointer)
    if name not in known:
        return
    schema, where = known[name].input_schema, f"{pointer}/inputParameters"
    properties = schema.get("properties")
    declared = properties if isinstance(properties, dict) else {}
    for key in inputs.keys() - declared.keys():
        yield BadField(
            where + json_pointer(key), f"{name} has no such input; there are: {', '.join(declared)}"
        )
    required = schema.get("required")
    for needed in required if isinstance(required, list) else []:
        if str(needed) not in inputs and str(needed) not in known[name].defaults:
            yield BadField(where, f"{name} requires {needed}")
    literals = {key: value for key, value in inputs.items() if "${" not in json.dumps(value)}
    for key in literals.keys() & declared.keys():
        of_key: Document = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "properties": {key: declared[key]},
            "$defs": schema.get("$defs", {}),
        }
        yield from schema_faults(of_key, {key: literals[key]}, pointer=where)


@cache
def _schema(name: str) -> Mapping[str, JsonValue]:
    document: Mapping[str, JsonValue] = json.loads((_SCHEMAS / f"{name}.json").read_text())
    return document
