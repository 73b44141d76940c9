"""Which verb serves which task type, and the holding of both sides of it to their schemas."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, TypeVar, cast

from pesto_conductor import payloads, verbs
from pesto_conductor.taskdefs import PREFIX, task_definition
from pesto_runtime.contract.raster import ClosedValue
from pesto_runtime.errors import ContractBroken, InvalidInput
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition
    from pesto_conductor.verbs import TaskContext, Verb

T = TypeVar("T", bound=ClosedValue)
_HEAVY = (
    "jsonschema.validators",
    "pesto_runtime.client.blocking",
    "pesto_runtime.local",
    "pesto_runtime.runs",
)
_loading = Lock()


@dataclass(frozen=True)
class TaskBinding:
    """A task type and what serves it.

    Attributes:
        definition: With the schemas.
        verb: Serves it; blocks.
        models: What an input may be read as; the first that has all that the model requires.
    """

    definition: TaskDefinition
    verb: Verb
    models: tuple[type[ClosedValue], ...]

    def run(self, given: Mapping[str, JsonValue], errand: TaskContext) -> dict[str, JsonValue]:
        """Serve one task.

        Raises:
            InvalidInput: its input does not fit the schema; with every wrong field.
            ContractBroken: what the verb made does not.
            PestoError: what the verb raises.
        """
        _load_once()
        document = _plain(given)
        faults = list(schema_faults(self.definition.input_schema, document))
        if faults:
            raise InvalidInput.of(f"input of {self.definition.name}", faults)
        made = self.verb(self._read(document), errand)
        output: dict[str, JsonValue] = made.model_dump(mode="json", exclude_none=True)
        faults = list(schema_faults(self.definition.output_schema, output))
        if faults:
            raise ContractBroken.of(f"output of {self.definition.name}", faults)
        return output

    def _read(self, document: dict[str, JsonValue]) -> ClosedValue:
        fitting = (
            model
            for model in self.models
            if all(
                name in document
                for name, field in model.model_fields.items()
                if field.is_required()
            )
        )
        return next(fitting).model_validate(document)


def binding_of(task_type: str) -> TaskBinding:
    """What serves a task type.

    Raises:
        InvalidInput: nothing of ours does.
    """
    if not task_type.startswith(PREFIX):
        raise InvalidInput(f"{task_type!r} is no task type of ours: they begin with {PREFIX!r}")
    return _BINDINGS.get(task_type) or _service(task_type)


def _load_once() -> None:
    """Import what verbs import as they go: many threads that begin at once see half a module."""
    with _loading:
        for name in _HEAVY:
            import_module(name)


def _plain(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """An input without what Conductor adds to it: `__index` of a fan-out, nulls of no value."""
    return {
        name: value
        for name, value in given.items()
        if value is not None and not name.startswith("_")
    }


def _bound(name: str, verb: Callable[[T, TaskContext], ClosedValue], model: type[T]) -> TaskBinding:
    return TaskBinding(task_definition(PREFIX + name), cast("Verb", verb), (model,))


def _service(task_type: str) -> TaskBinding:
    models = (payloads.ServiceChunkInput, payloads.CallInput)
    return TaskBinding(task_definition(task_type), cast("Verb", verbs.serve), models)


_BINDINGS = {
    each.definition.name: each
    for each in (
        _bound("discover", verbs.discover, payloads.DiscoverInput),
        _bound("plan", verbs.plan, payloads.PlanInput),
        _bound("process", verbs.process, payloads.ChunkInput),
        _bound("close", verbs.close, payloads.CloseInput),
        _bound("mosaic", verbs.mosaic, payloads.MosaicInput),
        _bound("merge", verbs.merge, payloads.MergeInput),
        _bound("reduce", verbs.reduce, payloads.ReduceInput),
        _bound("call", verbs.call, payloads.CallInput),
        _bound("publish", verbs.publish, payloads.PublishInput),
        _bound("cleanup", verbs.cleanup, payloads.CleanupInput),
    )
}
