"""Walk through the tasks of a workflow definition, and know what can be read at each place.

A task may read the inputs of the workflow, and outputs of earlier tasks. A task in a branch of a
SWITCH does not always run, and Conductor then replaces its output by null: only outputs of the
workflow may read it. In a DO_WHILE, each task may read all tasks of the loop, of the iteration
before, and the loop itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pesto_conductor.expressions import (
    Expression,
    expressions,
    field_schema,
    missing_field,
    unclosed,
)
from pesto_runtime.errors import BadField, json_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition

    Document = dict[str, JsonValue]
    Schemas = Mapping[str, JsonValue]

_BRANCHES = ("forkTasks", "decisionCases", "defaultCase", "loopOver")
_WORKFLOW_FIELDS = frozenset(
    {"workflowId", "parentWorkflowId", "parentWorkflowTaskId", "workflowType", "version",
     "correlationId", "status", "reasonForIncompletion", "schemaVersion", "output", "variables",
     "secrets", "env"}
)  # fmt: skip
_TASK_FIELDS = frozenset(
    {"input", "output", "status", "taskId", "taskType", "taskDefName", "referenceTaskName",
     "reasonForIncompletion", "retryCount", "iteration", "seq", "pollCount", "startTime", "endTime",
     "scheduledTime", "updateTime", "workerId", "correlationId", "subWorkflowId"}
)  # fmt: skip


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
        variables: Variables that the workflow declares or sets anywhere.
        uncertain: Earlier tasks that do not always run.
        input_schema: Schema of the workflow's input; True if it has none.
    """

    inputs: frozenset[str]
    tasks: Mapping[str, TaskDefinition]
    workflows: Mapping[str, Mapping[str, JsonValue]]
    outputs: Schemas = field(default_factory=dict)
    variables: frozenset[str] = frozenset()
    uncertain: frozenset[str] = frozenset()
    input_schema: JsonValue = True

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
        variables = document.get("variables")
        known = [*variables] if isinstance(variables, dict) else []
        return cls(
            frozenset(inputs), tasks, workflows,
            variables=frozenset([*known, *_set_variables(document.get("tasks"))]),
            input_schema=schema_of_input(document) or True,
        )  # fmt: skip

    def faults(
        self, value: JsonValue, *, pointer: str, is_certain: bool = True
    ) -> Iterator[tuple[str, BadField]]:
        """Yield rule and fault of every expression in a value that has no target, or no end.

        With `is_certain`, also of those whose target does not always exist.
        """
        for where in unclosed(value, pointer=pointer):
            detail = "a ${ has no } after it: Conductor would treat it as text"
            yield "expression", BadField(where, detail)
        for each in expressions(value, pointer=pointer):
            if fault := self._fault(each, is_certain=is_certain):
                rule = "variable" if each.steps[:2] == ("workflow", "variables") else "expression"
                yield rule, BadField(each.pointer, f"${{{each.text}}} {fault}")

    def type_of(self, expression: Expression) -> JsonValue:
        """Return the schema of the value that an expression reads; True if it is not known."""
        owner, part, *rest = (*expression.steps, "", "")
        steps = tuple(step for step in rest if step)
        if owner == "workflow" and part == "input" and steps:
            return field_schema(self.input_schema, steps)
        known = self.outputs.get(owner) if part == "output" and steps else None
        return True if known is None else field_schema(known, steps)

    def type_of_text(self, value: JsonValue) -> JsonValue:
        """Return the schema of the value that a text becomes; True if it is not known."""
        found = list(expressions(value)) if isinstance(value, str) else []
        is_alone = len(found) == 1 and value == f"${{{found[0].text}}}"
        return self.type_of(found[0]) if is_alone else True

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
        if part == "variables" and steps and steps[0] not in self.variables:
            known = ", ".join(sorted(self.variables)) or "none"
            return f"reads a variable that no SET_VARIABLE sets; there are: {known}"
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

    def in_loop(self, loop: Mapping[str, JsonValue]) -> Scope:
        """Return the scope inside a DO_WHILE: the loop itself, and every task of its body."""
        inside = {str(each.get("taskReferenceName")): self._output_of(each)
                  for each in _tasks_below(loop.get("loopOver"))}  # fmt: skip
        own: Document = {str(loop.get("taskReferenceName")): True}
        return replace(self, outputs={**self.outputs, **own, **inside})

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
        """Return the schema of a sub-workflow's output: fields as their expressions."""
        name = str(parameters.get("name")) if isinstance(parameters, dict) else ""
        definition = self.workflows.get(name, {})
        outputs = definition.get("outputParameters")
        if not isinstance(outputs, dict):
            return True
        # Without itself: a workflow may start itself.
        others = {key: each for key, each in self.workflows.items() if key != name}
        end = Scope.of(definition, self.tasks, others)
        for position in walk(definition.get("tasks"), end, pointer=""):
            end = position.after
        fields = {key: end.type_of_text(value) for key, value in outputs.items()}
        return {**_closed("subWorkflowId"), "properties": {"subWorkflowId": True, **fields}}


@dataclass(frozen=True)
class TaskPosition:
    """A task, and the values that can be read before and after it.

    Attributes:
        task: The task.
        pointer: JSON pointer to it.
        scope: The values that it can read.
        after: The values that can be read after it, and after its branches.
        next_type: Type of the next task in its list; None for the last.
        previous_type: Type of the task before it in its list; None for the first.
    """

    task: Document
    pointer: str
    scope: Scope
    after: Scope
    next_type: str | None
    previous_type: str | None

    @property
    def inputs(self) -> Document:
        """The inputParameters of the task."""
        found = self.task.get("inputParameters")
        return found if isinstance(found, dict) else {}

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
        before = scope.in_loop(task) if task.get("type") == "DO_WHILE" else scope
        for branch, where in _branches(task):
            end = before
            for position in walk(branch, before, pointer=here + where):
                yield position
                end = position.after
            ends.append(end)
        if ends:
            scope = scope.with_branches(ends, all_run=task.get("type") != "SWITCH")
        scope = scope.with_task(task)
        yield TaskPosition(
            task,
            here,
            before,
            scope,
            _first_type(listed[index + 1 :]),
            _first_type(listed[max(index - 1, 0) : index]),
        )


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


def schema_of_input(definition: Mapping[str, JsonValue]) -> Document | None:
    """Return the schema of a workflow's input; None if it declares none."""
    declared = definition.get("inputSchema")
    data = declared.get("data") if isinstance(declared, dict) else None
    return data if isinstance(data, dict) else None


def started_workflows(definition: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield the names of the workflows that a workflow or an event handler starts."""
    if isinstance(failure := definition.get("failureWorkflow"), str):
        yield failure
    actions = definition.get("actions")
    starts = [each.get("start_workflow") for each in (actions if isinstance(actions, list) else [])
              if isinstance(each, dict)]  # fmt: skip
    for task in _tasks_below(definition.get("tasks")):
        inputs = task.get("inputParameters")
        given = inputs if isinstance(inputs, dict) else {}
        starts += [task.get("subWorkflowParam"), given.get("startWorkflow"),
                   {"name": given.get("forkTaskWorkflow")}]  # fmt: skip
    for each in starts:
        if isinstance(each, dict) and isinstance(name := each.get("name"), str):
            yield name


def _tasks_below(tasks: JsonValue) -> Iterator[Document]:
    """Yield tasks, and those of all their branches."""
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, dict):
            yield task
            for branch, _ in _branches(task):
                yield from _tasks_below(branch)


def _set_variables(tasks: JsonValue) -> Iterator[str]:
    for task in _tasks_below(tasks):
        inputs = task.get("inputParameters")
        if task.get("type") == "SET_VARIABLE" and isinstance(inputs, dict):
            yield from inputs
