"""Find errors in workflow definitions and event handlers, before a server has them.

Each finding has a rule, by which it can be allowed. This file has the entry and the rules of
pesto's own task types and of other workflows; those of Conductor's task types are in
`lint_tasks.py`, of scripts in `lint_scripts.py`, and of pipelines in `lint_pipelines.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.expressions import field_schema, fits, types_of
from pesto_conductor.lint_pipelines import pipeline_faults, plan_reference_faults
from pesto_conductor.lint_tasks import system_task_faults
from pesto_conductor.scopes import Scope, TaskPosition, schema_of_input, walk
from pesto_conductor.taskdefs import PREFIX
from pesto_runtime.errors import BadField, json_pointer
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition
    from pesto_runtime.contract import Description, Pipeline

    Document = dict[str, JsonValue]
    Faults = Iterator[tuple[str, BadField]]
    Describe = Callable[[Pipeline], Mapping[str, Description]]

_SCHEMAS = Path(__file__).parent / "schemas"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
RULES = {
    "structure": "a key that Conductor does not know, or a value of the wrong type",
    "reference-name": "two tasks have one reference name",
    "expression": "an expression without a target",
    "variable": "a variable that no task sets",
    "type": "an expression gives a value of another type than the input requires",
    "optional": "an optional task of this project: the workflow would complete with holes",
    "task-type": "a task type that is not registered",
    "input": "an input that a task type does not have, requires, or has with another type",
    "workflow": "a workflow that is not among the files and on the server, or another version",
    "workflow-input": "an input that a workflow does not have, requires, or has with another type",
    "pipeline": "an error of the pipeline of a `pesto_plan`",
    "join": "a JOIN that waits for ever or for nothing, or a fork without a JOIN",
    "script": "a script that does not parse, or reads no input of its task",
    "case": "a case that its expression never has",
    "literal": "a duration, a method or a status that Conductor does not know",
    "not-executed": "a task type that the open-source server accepts and never executes",
}
"""Rule -> the errors that it finds."""


@dataclass(frozen=True)
class Finding:
    """One error of a definition.

    Attributes:
        rule: One of `RULES`.
        field: Its place and the error.
    """

    rule: str
    field: BadField

    @property
    def with_rule(self) -> BadField:
        """The field, with the rule after the error."""
        return replace(self.field, detail=f"{self.field.detail} [{self.rule}]")

    def __str__(self) -> str:
        return str(self.with_rule)


def _no_descriptions(_pipeline: Pipeline) -> Mapping[str, Description]:
    return {}


@dataclass(frozen=True)
class Known:
    """The definitions that a workflow may refer to.

    Attributes:
        tasks: Task type -> task definition.
        workflows: Name -> version -> definition.
        describe: Returns the descriptions of a pipeline's processes, empty if they are not known.
    """

    tasks: Mapping[str, TaskDefinition]
    workflows: Mapping[str, Mapping[int, Mapping[str, JsonValue]]] = field(default_factory=dict)
    describe: Describe = _no_descriptions

    @property
    def newest(self) -> dict[str, Mapping[str, JsonValue]]:
        """Name -> the newest version of a workflow."""
        return {name: found[max(found)] for name, found in self.workflows.items()}


def is_event_handler(document: Mapping[str, JsonValue]) -> bool:
    """Whether a document is an event handler, not a workflow."""
    return "event" in document


def lint(
    document: Document,
    *,
    tasks: Iterable[TaskDefinition],
    workflows: Iterable[Mapping[str, JsonValue]] = (),
    describe: Describe = _no_descriptions,
    allow: Collection[str] = (),
) -> tuple[Finding, ...]:
    """Return every error of a workflow definition or an event handler.

    Args:
        document: The definition.
        tasks: Task definitions that will be registered; another `pesto_…` type is an error.
        workflows: Workflows that it may start, itself included or not.
        describe: Returns the descriptions of a pipeline's processes, empty if they are not known.
        allow: Rules whose findings are left out.
    """
    versions: dict[str, dict[int, Mapping[str, JsonValue]]] = {}
    for each in (*workflows, *(() if is_event_handler(document) else (document,))):
        versions.setdefault(str(each.get("name")), {})[_version(each.get("version")) or 1] = each
    known = Known({each.name: each for each in tasks}, versions, describe)
    kind = "event_handler" if is_event_handler(document) else "workflow"
    faults = [("structure", each) for each in schema_faults(_schema(kind), document)]
    if not faults:  # the other rules rely on the structure that the schema requires
        found = _handler_faults if is_event_handler(document) else _workflow_faults
        faults = list(found(document, known))
    return tuple(Finding(rule, each) for rule, each in faults if rule not in allow)


def _handler_faults(document: Document, known: Known) -> Faults:
    actions = document.get("actions")
    for index, action in enumerate(actions if isinstance(actions, list) else []):
        start = action.get("start_workflow") if isinstance(action, dict) else None
        if isinstance(start, dict):
            where = json_pointer("actions", index, "start_workflow")
            yield from _start_faults(start, start.get("input"), known, None, where)


def _workflow_faults(document: Document, known: Known) -> Faults:
    scope = Scope.of(document, known.tasks, known.newest)
    plans: dict[str, Pipeline] = {}
    seen: set[str] = set()
    for position in walk(document.get("tasks"), scope, pointer="/tasks"):
        reference = str(position.task.get("taskReferenceName"))
        if reference in seen:
            where = f"{position.pointer}/taskReferenceName"
            yield "reference-name", BadField(where, "is not unique: an earlier task has it")
        seen.add(reference)
        yield from system_task_faults(position)
        yield from _task_faults(position, known)
        yield from pipeline_faults(position, plans, known.describe)
        yield from plan_reference_faults(position, plans, known.describe)
        yield from position.scope.faults(position.own_fields, pointer=position.pointer)
        scope = position.after
    outputs = {"outputParameters": document.get("outputParameters")}
    yield from scope.faults(outputs, pointer="", is_certain=False)
    if failure := document.get("failureWorkflow"):
        yield from _name_faults({"name": failure}, known, "/failureWorkflow")


def _task_faults(position: TaskPosition, known: Known) -> Faults:
    task, kind, pointer = position.task, position.task.get("type"), position.pointer
    inputs = position.inputs
    is_ours = kind == "SIMPLE" and str(task["name"]).startswith(PREFIX)
    if task.get("optional") is True and (is_ours or kind in ("JOIN", "FORK_JOIN_DYNAMIC")):
        detail = "an optional task hides holes: the workflow would complete over them"
        yield "optional", BadField(f"{pointer}/optional", detail)
    if kind == "SIMPLE":
        yield from _input_faults(str(task["name"]), inputs, known.tasks, position)
    elif kind == "FORK_JOIN_DYNAMIC":
        yield from _forked_faults(inputs, known, pointer)
    elif kind == "SUB_WORKFLOW" and isinstance(asked := task.get("subWorkflowParam"), dict):
        if not asked.keys() & {"workflowDefinition", "workflowDef"}:
            where = f"{pointer}/inputParameters"
            yield from _start_faults(asked, inputs, known, position.scope, where)
    elif kind == "START_WORKFLOW" and isinstance(asked := inputs.get("startWorkflow"), dict):
        where = f"{pointer}/inputParameters/startWorkflow/input"
        yield from _start_faults(asked, asked.get("input"), known, position.scope, where)


def _forked_faults(inputs: Document, known: Known, pointer: str) -> Faults:
    """Yield the faults of the task type or the workflow that a dynamic fork starts."""
    if isinstance(name := inputs.get("forkTaskName"), str):
        yield from _type_faults(name, known.tasks, pointer)
    if isinstance(name := inputs.get("forkTaskWorkflow"), str):
        asked: Document = {"name": name, "version": inputs.get("forkTaskWorkflowVersion")}
        yield from _name_faults(asked, known, f"{pointer}/inputParameters/forkTaskWorkflow")


def _type_faults(name: str, known: Mapping[str, TaskDefinition], pointer: str) -> Faults:
    if name in known:
        return
    if name.startswith(PREFIX):
        detail = (
            f"there is no task type {name!r}, only {', '.join(known)}; "
            "--per-service URL adds that of a service"
        )
        yield "task-type", BadField(pointer, detail)
    elif close := get_close_matches(name, known, n=1, cutoff=0.85):
        detail = f"there is no task type {name!r} in this project; did you mean {close[0]!r}?"
        yield "task-type", BadField(pointer, detail)


def _input_faults(
    name: str, inputs: Document, known: Mapping[str, TaskDefinition], position: TaskPosition
) -> Faults:
    """Yield the faults of a task's inputs: unknown, missing, or of the wrong type."""
    yield from _type_faults(name, known, position.pointer)
    if name not in known:
        return
    where = f"{position.pointer}/inputParameters"
    defaults = known[name].defaults
    found = _argument_faults(
        inputs, known[name].input_schema, defaults, name, where, position.scope
    )
    yield from (("type" if "reads" in each.detail else "input", each) for each in found)


def _name_faults(asked: Mapping[str, JsonValue], known: Known, where: str) -> Faults:
    """Yield the fault of a reference to a workflow: its name, or its version."""
    name, version = str(asked.get("name")), _version(asked.get("version"))
    if "${" in name:
        return
    versions = known.workflows.get(name)
    if versions is None:
        close = get_close_matches(name, known.workflows, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "give its file too, or allow this rule"
        yield "workflow", BadField(where, f"there is no workflow {name!r}; {hint}")
    elif version is not None and version not in versions:
        there = ", ".join(map(str, sorted(versions)))
        detail = f"workflow {name!r} has no version {version}; there are: {there}"
        yield "workflow", BadField(where, detail)


def _start_faults(
    asked: Mapping[str, JsonValue], given: JsonValue, known: Known, scope: Scope | None, where: str
) -> Faults:
    """Yield the faults of a started workflow: its name, its version, its inputs."""
    faults = list(_name_faults(asked, known, where))
    yield from faults
    versions = known.workflows.get(str(asked.get("name")))
    if faults or versions is None or not isinstance(given, dict | None):
        return
    definition = versions[_version(asked.get("version")) or max(versions)]
    template = definition.get("inputTemplate")
    defaults = template if isinstance(template, dict) else {}
    schema = schema_of_input(definition)
    if schema is None:
        names = definition.get("inputParameters")
        listed = [str(each) for each in names] if isinstance(names, list) else []
        if not listed:  # such a workflow may read any input
            return
        schema = {"properties": dict.fromkeys((*listed, *defaults), True)}
    name = f"workflow {asked.get('name')}"
    for each in _argument_faults(given or {}, schema, defaults, name, where, scope):
        yield "workflow-input", each


def _argument_faults(
    given: Document,
    schema: Mapping[str, JsonValue],
    defaults: Mapping[str, JsonValue],
    name: str,
    where: str,
    scope: Scope | None,
) -> Iterator[BadField]:
    """Yield the faults of inputs against the schema of all of them."""
    properties = schema.get("properties")
    declared = properties if isinstance(properties, dict) else {}
    for key in given.keys() - declared.keys():
        if schema.get("additionalProperties") not in (True, {}):
            detail = f"{name} has no such input; there are: {', '.join(declared)}"
            yield BadField(where + json_pointer(key), detail)
    required = schema.get("required")
    for needed in required if isinstance(required, list) else []:
        if str(needed) not in given and str(needed) not in defaults:
            yield BadField(where, f"{name} requires {needed}")
    for key in given.keys() & declared.keys():
        if "${" in json.dumps(given[key]):
            yield from _expression_type_faults(given[key], key, schema, where, scope)
            continue
        of_key: Document = {
            "$schema": _DIALECT, "properties": {key: declared[key]},
            "$defs": schema.get("$defs", {}),
        }  # fmt: skip
        yield from schema_faults(of_key, {key: given[key]}, pointer=where)


def _expression_type_faults(
    value: JsonValue,
    key: str,
    schema: Mapping[str, JsonValue],
    where: str,
    scope: Scope | None,
) -> Iterator[BadField]:
    wanted = types_of(field_schema(dict(schema), (key,)))
    given = types_of(scope.type_of_text(value)) if scope is not None else frozenset()
    if not fits(given, wanted):
        detail = f"must be {_listed(wanted)}, but {value} reads {_listed(given)}"
        yield BadField(where + json_pointer(key), detail)


def _listed(types: Iterable[str]) -> str:
    return " or ".join(sorted(types))


def _version(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


@cache
def _schema(name: str) -> Mapping[str, JsonValue]:
    document: Mapping[str, JsonValue] = json.loads((_SCHEMAS / f"{name}.json").read_text())
    return document
