"""Run an activity as a task of Conductor: validate its input and its output by the task's schemas.

The activities themselves are in `verbs.py`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.errors import ContractBroken, Interrupted, InvalidInput, PestoError
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition
    from pesto_runtime.contract.base import ClosedValue
    from pesto_runtime.run.records import TileObserver

_HEAVY_MODULES = (
    "jsonschema.validators",
    "pesto_runtime.campaigns",
    "pesto_runtime.client.client",
    "pesto_runtime.run.local",
    "pesto_runtime.run.publishing",
)
_import_guard = Lock()


@dataclass(frozen=True)
class TaskContext:
    """Everything that an activity knows of its task in addition to the input.

    Attributes:
        server: URL of the Conductor.
        workflow: Id of the workflow that the task belongs to.
        observer: Receives the state of each tile, and can stop the activity.
        log: Writes a line to the task's log.
        attempt: Number of the attempt; 0 for the first.
        domain: Task domain of the task; empty for none.
        worker: Identity of the worker: host and process.
    """

    server: str
    workflow: str
    observer: TileObserver
    log: Callable[[str], None]
    attempt: int = 0
    domain: str = ""
    worker: str = ""

    @property
    def engine(self) -> dict[str, JsonValue]:
        """This run, as results state it."""
        return engine_of(self.workflow)


def engine_of(workflow: str) -> dict[str, JsonValue]:
    """Return the run of a workflow, as results state it."""
    return {"name": "conductor", "run": workflow}


Verb: TypeAlias = "Callable[[ClosedValue, TaskContext], ClosedValue]"


@dataclass(frozen=True)
class TaskBinding:
    """A task type and its activity.

    Attributes:
        definition: The task definition, with the schemas of input and output.
        verb: The activity; it blocks.
        models: Models of the input; the first whose required fields are all present is used.
    """

    definition: TaskDefinition
    verb: Verb
    models: tuple[type[ClosedValue], ...]

    def run(self, task_input: Mapping[str, JsonValue], task: TaskContext) -> dict[str, JsonValue]:
        """Validate the input of one task, run the activity, and validate the output.

        Raises:
            InvalidInput: the input does not fit the schema; names every wrong field.
            ContractBroken: the output does not fit the schema.
            PestoError: the error of the activity.
        """
        _import_heavy_modules()
        document = _plain(task_input)
        # The server stores the schemas, but does not enforce them (Conductor 3.32).
        faults = list(schema_faults(self.definition.input_schema, document))
        if faults:
            raise InvalidInput.of(f"input of {self.definition.name}", faults)
        try:
            result = self.verb(self._parsed(document), task)
        except PestoError as error:
            if not error.retryable and not isinstance(error, Interrupted):
                _abandon(document.get("plan"))
            raise
        output: dict[str, JsonValue] = result.model_dump(mode="json", exclude_none=True)
        faults = list(schema_faults(self.definition.output_schema, output))
        if faults:
            raise ContractBroken.of(f"output of {self.definition.name}", faults)
        return output

    def _parsed(self, document: dict[str, JsonValue]) -> ClosedValue:
        matching = (
            model
            for model in self.models
            if all(
                name in document
                for name, field in model.model_fields.items()
                if field.is_required()
            )
        )
        return next(matching).model_validate(document)


def _import_heavy_modules() -> None:
    """Import the modules that activities import inside functions."""
    with _import_guard:  # without it, threads that begin together see a half-imported module
        for name in _HEAVY_MODULES:
            import_module(name)


def _plain(task_input: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return an input without the parts that Conductor adds.

    These are `__index` of a FORK_JOIN_DYNAMIC, and null for an expression without a value.
    """
    return {
        name: value
        for name, value in task_input.items()
        if value is not None and not name.startswith("_")
    }


def _abandon(plan: JsonValue) -> None:
    """Let other runs have the output folder of a run that has failed."""
    from pesto_runtime.run.context import load_context
    from pesto_runtime.run.ownership import abandon

    with suppress(PestoError):
        if isinstance(plan, str):
            abandon(load_context(plan).plan)
