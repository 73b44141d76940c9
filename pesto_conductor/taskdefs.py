"""Define the task types of the activities and of single services: limits, retries, schemas.

Conductor stores the schemas but does not enforce them: `verbs.py` validates input and output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pesto_conductor import payloads
from pesto_runtime.contract import ChunkResult, package_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel, JsonValue

    from pesto_runtime.contract import Description

PREFIX = "pesto_"
GPU_DOMAIN = "gpu"
"""Task domain of services that require a GPU; only workers with `--domain gpu` poll it."""

OWNER = "pesto@example.com"
_PACKAGE = "pesto-workflows"
_RESPONSE_TIMEOUT_S = 30
_HOUR_S = 3600
_RETRIES = 5
_RETRY_DELAY_S = 2
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NULL: dict[str, JsonValue] = {"type": "null"}
_ANNOTATIONS = ("title", "description")


@dataclass(frozen=True)
class TaskDefinition:
    """A task definition of Conductor.

    Attributes:
        name: The task type; also its queue, and the label of its metrics.
        description: For a person.
        input_schema: JSON schema of its input.
        output_schema: JSON schema of its output.
        timeout_s: Longest time of one attempt.
        response_timeout_s: Longest time without an update by the worker; then another attempt
            begins elsewhere.
        poll_timeout_s: Longest time without a worker that takes a task; None for no limit.
        retries: Attempts after the first; the pause doubles from 2 s.
        at_once: Most running tasks of the type, over all workers; None for no limit.
        defaults: Inputs that a task may omit.
        domain: Task domain in which its tasks must be started; None for any worker.
        is_of_chunks: Whether a fan-out has many tasks of the type; its definition on the server has
            no schemas.
    """

    name: str
    description: str
    input_schema: Mapping[str, JsonValue]
    output_schema: Mapping[str, JsonValue]
    timeout_s: int = _HOUR_S
    response_timeout_s: int = _RESPONSE_TIMEOUT_S
    poll_timeout_s: int | None = None
    retries: int = _RETRIES
    at_once: int | None = None
    defaults: Mapping[str, JsonValue] = field(default_factory=dict)
    domain: str | None = None
    is_of_chunks: bool = False

    def to_json(self, *, owner: str = OWNER) -> dict[str, JsonValue]:
        """Return the definition in the form of Conductor's REST interface."""
        document: dict[str, JsonValue] = {
            "name": self.name,
            "description": self.description,
            "ownerEmail": owner,
            "ownerApp": f"{_PACKAGE}/{package_version()}",
            "retryCount": self.retries,
            "retryLogic": "EXPONENTIAL_BACKOFF",
            "retryDelaySeconds": _RETRY_DELAY_S,
            "timeoutPolicy": "RETRY",
            "timeoutSeconds": self.timeout_s,
            "responseTimeoutSeconds": self.response_timeout_s,
        }
        if self.poll_timeout_s is not None:
            document["pollTimeoutSeconds"] = self.poll_timeout_s
        # Conductor copies the definition into each task of a fan-out, twice, and reads all tasks of
        # a workflow when one of them ends: with schemas, 64 tasks take it a third more CPU time.
        if not self.is_of_chunks:
            document |= {
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
    """Return the task definitions of all activities."""
    return tuple(_DEFINITIONS.values())


def task_definition(name: str) -> TaskDefinition:
    """Return the definition of a task type; those of all services have the same schemas.

    Raises:
        KeyError: the type does not begin with `pesto_`.
    """
    if name in _DEFINITIONS:
        return _DEFINITIONS[name]
    if not name.startswith(PREFIX):
        raise KeyError(name)
    return replace(_SERVICE, name=name)


def registered_types(definitions: Iterable[Mapping[str, JsonValue]]) -> list[str]:
    """Return the types among task definitions of a server that this package has registered."""
    return [str(each["name"]) for each in definitions if registering_version(each) is not None]


def registering_version(definition: Mapping[str, JsonValue]) -> tuple[int, ...] | None:
    """Return the version of this package that registered a task definition; None for others.

    >>> registering_version({"name": "pesto_call", "ownerApp": "pesto-workflows/0.10.1"})
    (0, 10, 1)
    """
    package, _, number = str(definition.get("ownerApp")).partition("/")
    is_ours = package == _PACKAGE and str(definition.get("name")).startswith(PREFIX)
    return _numbers(number) if is_ours else None


def is_newer(definition: Mapping[str, JsonValue]) -> bool:
    """Whether a newer version of this package has registered a task definition."""
    found = registering_version(definition)
    return found is not None and found > _numbers(package_version())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def service_definition(
    description: Description, targets: Sequence[str], *, at_once: int | None = None
) -> TaskDefinition:
    """Return a task type for one service, with its own queue, limit and metrics label.

    Its tasks have the input of `pesto_process`, or of `pesto_call` without the service.

    Args:
        description: The description of the service.
        targets: Its target or URLs.
        at_once: Most running tasks of the service, over all workers; None for no limit.
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
    """Return the name of the task type of a service.

    >>> service_task_name("cloud-mask")
    'pesto_cloud_mask'
    """
    name = PREFIX + re.sub(r"\W", "_", process)
    return name + "_service" if name in _DEFINITIONS else name


def _title(description: Description) -> str:
    text = description.known.title or description.known.description or "a service"
    return text.strip().splitlines()[0]


def _schema(model: type[BaseModel]) -> dict[str, JsonValue]:
    """Return the schema of a model without titles, descriptions and null.

    A worker treats null as absent, because Conductor adds it.
    """
    schema = _shortened(model.model_json_schema(by_alias=True))
    return {"$schema": _DIALECT, **schema} if isinstance(schema, dict) else {}


def _shortened(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if not isinstance(value, dict):
        return value
    options = value.get("anyOf")
    types = [each for each in options if each != _NULL] if isinstance(options, list) else []
    if len(types) == 1 and isinstance(types[0], dict):
        value = {**types[0], **{key: each for key, each in value.items() if key != "anyOf"}}
    elif types:
        value = {**value, "anyOf": types}
    return {
        key: {name: _shortened(each) for name, each in part.items()}
        if key in ("properties", "$defs") and isinstance(part, dict)
        else _shortened(part)
        for key, part in value.items()
        if key not in _ANNOTATIONS and not (key == "default" and part is None)
    }


def _schema_definition(name: str, schema: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {"name": name, "version": 1, "type": "JSON", "data": dict(schema)}


def _verb(
    name: str,
    description: str,
    models: tuple[type[BaseModel], type[BaseModel]],
    timeout_s: int = _HOUR_S,
    *,
    is_of_chunks: bool = False,
) -> TaskDefinition:
    of_input, of_output = models
    return TaskDefinition(
        PREFIX + name, description, _schema(of_input), _schema(of_output), timeout_s=timeout_s,
        is_of_chunks=is_of_chunks,
    )  # fmt: skip


def _either(*models: type[BaseModel]) -> dict[str, JsonValue]:
    """Return a schema that accepts any of several objects.

    The lint reads the names of all fields from its `properties`. Conductor adds the defaults of a
    definition to every input, so each model must accept them: here `service`.
    """
    schemas = [_schema(model) for model in models]
    definitions: dict[str, JsonValue] = {}
    properties: dict[str, JsonValue] = {}
    for schema in schemas:
        schema.pop("$schema")
        own_definitions, own = schema.pop("$defs", {}), schema.get("properties", {})
        definitions |= own_definitions if isinstance(own_definitions, dict) else {}
        properties |= dict.fromkeys(own, True) if isinstance(own, dict) else {}
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
        _verb("discover", "Request the descriptions of services.",
              (payloads.DiscoverInput, payloads.DiscoverOutput)),
        _verb("plan", "Check a pipeline against its inputs, and divide it into chunks.",
              (payloads.PlanInput, payloads.PlanOutput)),
        _verb("process", "Run the tiles of a chunk, and store their blocks.",
              (payloads.ChunkInput, ChunkResult), timeout_s=24 * _HOUR_S,
              is_of_chunks=True),
        _verb("close", "Finish a phase: mosaic rasters, merge vectors, fold reduces.",
              (payloads.CloseInput, payloads.CloseOutput), timeout_s=6 * _HOUR_S),
        _verb("mosaic", "Join the blocks of a raster into one GeoTIFF.",
              (payloads.MosaicInput, payloads.MosaicOutput), timeout_s=6 * _HOUR_S),
        _verb("merge", "Join the features of a vector's blocks into one file.",
              (payloads.MergeInput, payloads.MergeOutput), timeout_s=6 * _HOUR_S),
        _verb("reduce", "Fold the partials of a stage's blocks to values.",
              (payloads.ReduceInput, payloads.ReduceOutput)),
        _verb("call", "Call one process once, outside any plan.",
              (payloads.CallInput, payloads.CallOutput), timeout_s=6 * _HOUR_S),
        _verb("publish", "Write the outputs of a run into its output folder.",
              (payloads.PublishInput, payloads.PublishOutput), timeout_s=6 * _HOUR_S),
        _verb("cleanup", "After a failed workflow, delete its objects in the run store on request.",
              (payloads.CleanupInput, payloads.CleanupOutput)),
        _verb("plan_scenes", "Plan a pipeline over many scenes, and divide it into tasks.",
              (payloads.PlanScenesInput, payloads.PlanScenesOutput), timeout_s=6 * _HOUR_S),
        _verb("process_scenes", "Run the chunks of a task of a campaign.",
              (payloads.ScenesTaskInput, payloads.ScenesTaskOutput), timeout_s=24 * _HOUR_S,
              is_of_chunks=True),
        _verb("close_scenes", "Finish a phase of every scene of a campaign that has not failed.",
              (payloads.CloseScenesInput, payloads.CloseScenesOutput), timeout_s=24 * _HOUR_S),
        _verb("publish_scenes", "Write the outputs of every scene that has not failed.",
              (payloads.PublishScenesInput, payloads.PublishScenesOutput),
              timeout_s=24 * _HOUR_S),
    )
}  # fmt: skip

_SERVICE = TaskDefinition(
    PREFIX,
    "A chunk, or a call, of one service.",
    _either(payloads.ServiceChunkInput, payloads.CallInput),
    _either(ChunkResult, payloads.CallOutput),
    timeout_s=24 * _HOUR_S,
    is_of_chunks=True,
)
