"""What a task of a workflow may read: the workflow's inputs, and outputs of tasks before it.

A task in a branch of a SWITCH may not run at all: a later task that reads it would be given null,
so only outputs of the workflow, where null says so, may.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pesto_conductor.references import Expression, expressions, missing_field, unclosed
from pesto_runtime.errors import BadField, json_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition

    Document = dict[str, JsonValue]
    Schemas = Mapping[str, JsonValue]

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
