"""The task definitions of the verbs, and of single services: queues, limits, retries, schemas.

Conductor stores the schemas and does not enforce them; the workers do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pesto_conductor import payloads
from pesto_runtime.contract import ChunkResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel, JsonValue

    from pesto_runtime.contract import Description

PREFIX = "pesto_"
GPU_DOMAIN = "gpu"
"""Task domain of services that want a GPU: only workers started with `--domain gpu` take them."""

_OWNER = "pesto@example.com"
_RESPONSE_TIMEOUT_S = 30
_HOUR_S = 3600
_RETRIES = 5
_RETRY_DELAY_S = 2
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NULL: dict[str, JsonValue] = {"type": "null"}
_WORDS = ("title", "description")


@dataclass(frozen=True)
class TaskDefinition:
    """A task type as Conductor knows it.

    Attributes:
        name: The type: also its queue, and the label of its metrics.
        description: For a person.
        input_schema: JSON schema of its input.
        output_schema: JSON schema of its output.
        timeout_s: Longest that one attempt may take.
        response_timeout_s: Longest silence of a worker; then another attempt begins elsewhere.
        retries: Attempts after the first; the pause doubles from 2 s.
        at_once: Most tasks of the type in hand at once, over all workers; None for no limit.
        defaults: Inputs that a task need not name.
        domain: Task domain that its tasks are to be started in; None for any worker.
    """

    name: str
    description: str
    input_schema: Mapping[str, JsonValue]
    output_schema: Mapping[str, JsonValue]
    timeout_s: int = _HOUR_S
    response_timeout_s: int = _RESPONSE_TIMEOUT_S
    retries: int = _RETRIES
    at_once: int | None = None
    defaults: Mapping[str, JsonValue] = field(default_factory=dict)
    domain: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """The definition as the server takes it."""
        document: dict[str, JsonValue] = {
            "name": self.name,
            "description": self.description,
            "ownerEmail": _OWNER,
            "retryCount": self.retries,
            "retryLogic": "EXPONENTIAL_BACKOFF",
            "retryDelaySeconds": _RETRY_DELAY_S,
            "timeoutPolicy": "RETRY",
            "timeoutSeconds": self.timeout_s,
            "responseTimeoutSeconds": self.response_timeout_s,
            "inputSchema": _schema_definition(f"{self.name}_input", self.input_schema),
            "outputSchema": _schema_definition(f"{self.name}_output", self.output_schema),
            "enforceSchema": True,
        }
        if self.at_once is not None:
            document["concurrentExecLimit"] = self.at_once
        if self.defaults:
            document["inputTemplate"] = dict(self.defaults)
        return document


def task_definitions() -> tuple[TaskDefinition, ...]:
    """One per verb."""
    return tuple(_DEFINITIONS.values())


def task_definition(name: str) -> TaskDefinition:
    """The definition that a task of a type is held to; all services share one.

    Raises:
        KeyError: the type is not one of ours.
    """
    if name in _DEFINITIONS:
        return _DEFINITIONS[name]
    if not name.startswith(PREFIX):
        raise KeyError(name)
    return replace(_SERVICE, name=name)


def service_definition(
    description: Description, targets: Sequence[str], *, at_once: int | None = None
) -> TaskDefinition:
    """A task type of one service's own: its queue, limit and metrics.

    Its tasks are chunks, as of `pesto_process`, or single calls, as of `pesto_call` with the
    service already named.

    Args:
        description: What the service says of itself.
        targets: Where it runs.
        at_once: Most tasks of the service at once, over all workers; None for no limit.
    """
    resources = description.known.resources
    return replace(
        _SERVICE,
        name=service_task_name(description.name),
        description=f"{description.name} {description.version}: {_title(description)}",
        at_once=at_once,
        defaults={"service": list(targets)},
        domain=GPU_DOMAIN if resources.gpu else None,
    )


def service_task_name(process: str) -> str:
    """The task type of a service of its own.

    >>> service_task_name("cloud-mask")
    'pesto_cloud_mask'
    """
    name = PREFIX + re.sub(r"\W", "_", process)
    return name + "_service" if name in _DEFINITIONS else name


def task_domains(definitions: Sequence[TaskDefinition]) -> dict[str, str]:
    """What a workflow is to be started with as `taskToDomain`."""
    return {each.name: each.domain for each in definitions if each.domain}


def _title(description: Description) -> str:
    text = description.known.title or description.known.description or "a service"
    return text.strip().splitlines()[0]


def _schema(model: type[BaseModel]) -> dict[str, JsonValue]:
    """A model's schema in few words: every task of a fan-out carries it three times over.

    Null is left out of it, as a worker takes what Conductor makes null for absent.
    """
    schema = _few_words(model.model_json_schema(by_alias=True))
    return {"$schema": _DIALECT, **schema} if isinstance(schema, dict) else {}


def _few_words(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_few_words(each) for each in value]
    if not isinstance(value, dict):
        return value
    options = value.get("anyOf")
    given = [each for each in options if each != _NULL] if isinstance(options, list) else []
    if len(given) == 1 and isinstance(given[0], dict):
        value = {**given[0], **{key: each for key, each in value.items() if key != "anyOf"}}
    elif given:
        value = {**value, "anyOf": given}
    return {
        key: {name: _few_words(each) for name, each in part.items()}
        if key in ("properties", "$defs") and isinstance(part, dict)
        else _few_words(part)
        for key, part in value.items()
        if key not in _WORDS and not (key == "default" and part is None)
    }


def _schema_definition(name: str, schema: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {"name": name, "version": 1, "type": "JSON", "data": dict(schema)}


def _verb(
    name: str,
    description: str,
    models: tuple[type[BaseModel], type[BaseModel]],
    timeout_s: int = _HOUR_S,
) -> TaskDefinition:
    taken, given = models
    return TaskDefinition(
        PREFIX + name, description, _schema(taken), _schema(given), timeout_s=timeout_s
    )


def _either(*models: type[BaseModel]) -> dict[str, JsonValue]:
    """A schema of any of several objects; its properties are told, so that keys can be looked up.

    Conductor merges a definition's defaults into every input: `service` may stand in any.
    """
    schemas = [_schema(model) for model in models]
    definitions: dict[str, JsonValue] = {}
    properties: dict[str, JsonValue] = {}
    for schema in schemas:
        schema.pop("$schema")
        found, named = schema.pop("$defs", {}), schema.get("properties", {})
        definitions |= found if isinstance(found, dict) else {}
        properties |= dict.fromkeys(named, True) if isinstance(named, dict) else {}
    options: list[JsonValue] = [{**schema} for schema in schemas]
    return {
        "$schema": _DIALECT,
        "type": "object",
        "properties": properties,
        "anyOf": options,
        "$defs": definitions,
    }


_DEFINITIONS: dict[str, TaskDefinition] = {
    each.name: each
    for each in (
        _verb("discover", "Ask services what they are.",
              (payloads.DiscoverInput, payloads.DiscoverOutput)),
        _verb("plan", "Check a pipeline against its inputs, and cut it into chunks.",
              (payloads.PlanInput, payloads.PlanOutput)),
        _verb("process", "Run the tiles of a chunk, and keep their blocks.",
              (payloads.ChunkInput, ChunkResult), timeout_s=24 * _HOUR_S),
        _verb("close", "Make what a phase owes once its chunks are done.",
              (payloads.CloseInput, payloads.CloseOutput), timeout_s=6 * _HOUR_S),
        _verb("mosaic", "Put the blocks of a raster together into one file.",
              (payloads.MosaicInput, payloads.MosaicOutput), timeout_s=6 * _HOUR_S),
        _verb("merge", "Join the features of a vector's blocks in one file.",
              (payloads.MergeInput, payloads.MergeOutput), timeout_s=6 * _HOUR_S),
        _verb("reduce", "Fold the partials of the blocks of a scene to values.",
              (payloads.ReduceInput, payloads.ReduceOutput)),
        _verb("call", "Call one process once, outside any plan.",
              (payloads.CallInput, payloads.CallOutput), timeout_s=6 * _HOUR_S),
        _verb("publish", "Put the outputs of a run where they were asked for.",
              (payloads.PublishInput, payloads.PublishOutput), timeout_s=6 * _HOUR_S),
        _verb("cleanup", "Stop what a failed workflow left running; forget it on request.",
              (payloads.CleanupInput, payloads.CleanupOutput)),
    )
}  # fmt: skip

_SERVICE = TaskDefinition(
    PREFIX,
    "A chunk, or a call, of one service.",
    _either(payloads.ServiceChunkInput, payloads.CallInput),
    _either(ChunkResult, payloads.CallOutput),
    timeout_s=24 * _HOUR_S,
)
