"""A pipeline as a workflow definition: plan, then phase after phase fan out and join, then publish.

A chunk travels as an href and two indices, its result as an href and counts: a JOIN of 256 of them
stays under 64 KB. No task is optional: Conductor would complete a workflow that has holes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_conductor.taskdefs import GPU_DOMAIN
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    Document = dict[str, JsonValue]
    from pathlib import Path

    from pesto_runtime.contract import Pipeline
    from pesto_runtime.engines import RenderRequest
    from pesto_runtime.run.planning import PhaseShape
    from pesto_runtime.run.services import Discovered, Services


FAILURE = "pesto_failure"
"""The workflow that cleans up after one that failed."""

_OWNER = "pesto@example.com"
_HREF: Document = {"type": "string", "format": "uri-reference"}
_PLAN_SETTINGS: dict[str, Document] = {
    "base": {"type": "string", "description": "Folder that relative targets are relative to."},
    "services": {"type": "object", "description": "Process name -> target, URL or URLs."},
    "store": {"type": "string", "description": "Run store; the folder's own if absent."},
    "workers": {"type": "integer", "minimum": 1, "description": "Chunks that run at once."},
    "max_tasks": {"type": "integer", "minimum": 1, "maximum": 256, "description": "Most chunks."},
    "tile": {"type": "integer", "minimum": 1, "description": "Side of a tile, pixels."},
    "holes": {"enum": ["fail", "keep"], "description": "What a failed tile does to its task."},
    "concurrency": {"type": "integer", "minimum": 1, "description": "Tiles of a chunk at once."},
    "fresh": {"type": "boolean", "description": "Forget what earlier runs left."},
}
_PUBLISH_SETTINGS: dict[str, Document] = {
    "as_cog": {"type": "boolean", "description": "Make images cloud-optimised."},
    "keep": {"type": "boolean", "description": "Keep the run store of a complete run."},
}
_FOLDER: Document = {**_HREF, "description": "Where the outputs go; workers must reach it."}
_TYPES: dict[str, Document] = {"image": {**_HREF, "description": "An image: path or href."}}


@dataclass(frozen=True)
class Rendered:
    """What a pipeline is rendered with.

    Attributes:
        pipeline: The pipeline.
        shape: Its phases.
        defaults: Inputs that whoever starts it need not give.
        domains: Task type -> domain that its tasks belong in.
    """

    pipeline: Pipeline
    shape: Sequence[PhaseShape]
    defaults: Mapping[str, JsonValue] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)

    def definition(self) -> Document:
        """The workflow definition.

        Raises:
            InvalidPipeline: an input has the name of a setting of the run.
        """
        pipeline = self.pipeline
        schema = _input_schema(pipeline)
        return {
            "name": pipeline.name,
            "description": pipeline.description or f"Runs the pipeline {pipeline.name}.",
            "version": 1,
            "schemaVersion": 2,
            "ownerEmail": _OWNER,
            "timeoutPolicy": "ALERT_ONLY",
            "timeoutSeconds": 0,
            "restartable": True,
            "failureWorkflow": FAILURE,
            "inputParameters": list(_inputs(pipeline)),
            "inputTemplate": dict(self.defaults),
            "inputSchema": {
                "name": f"{pipeline.name}_input", "version": 1, "type": "JSON", "data": schema,
            },
            "enforceSchema": True,
            **({"metadata": {"taskToDomain": dict(self.domains)}} if self.domains else {}),
            "tasks": list(self._tasks()),
            "outputParameters": {
                name: f"${{publish.output.{name}}}"
                for name in ("status", "result", "outputs", "tiles")
            },
        }  # fmt: skip

    def _tasks(self) -> Iterator[JsonValue]:
        yield _plan_task(self.pipeline)
        for phase in self.shape:
            yield from _phase_tasks(phase)
        yield _simple(
            "pesto_publish",
            "publish",
            {
                "plan": "${plan.output.plan}",
                "started": "${plan.output.started}",
                **_from_input(("folder", *_PUBLISH_SETTINGS)),
            },
        )


def failure_definition() -> Document:
    """The workflow that Conductor starts when one of ours has failed."""
    return {
        "name": FAILURE,
        "description": "Tells what a failed workflow left for retry; deletes it only if asked to.",
        "version": 1,
        "schemaVersion": 2,
        "ownerEmail": _OWNER,
        "timeoutPolicy": "ALERT_ONLY",
        "timeoutSeconds": 0,
        "restartable": True,
        "inputParameters": ["workflowId", "reason", "forget"],
        "tasks": [
            _simple(
                "pesto_cleanup",
                "cleanup",
                {
                    "workflow": "${workflow.input.workflowId}",
                    "reason": "${workflow.input.reason}",
                    "forget": "${workflow.input.forget}",
                },
            )
        ],
        "outputParameters": {"forgotten": "${cleanup.output.forgotten}"},
    }


def _plan_task(pipeline: Pipeline) -> Document:
    return _simple(
        "pesto_plan",
        "plan",
        {
            "pipeline": _escaped(pipeline.to_json()),
            "inputs": _from_input(pipeline.inputs),
            **_from_input(("folder", *_PLAN_SETTINGS)),
        },
    )


def _phase_tasks(phase: PhaseShape) -> Iterator[Document]:
    number, members = phase.number, ", ".join((*phase.stages, *phase.reduces))
    if phase.fans_out:
        yield {
            "name": "fan_out",
            "taskReferenceName": f"fan_out_{number}",
            "type": "FORK_JOIN_DYNAMIC",
            "description": members,
            "inputParameters": {
                "forkTaskName": "pesto_process",
                "forkTaskInputs": f"${{plan.output.chunks[{number}]}}",
            },
        }
        yield {
            "name": "join", "taskReferenceName": f"join_{number}", "type": "JOIN", "joinOn": [],
        }  # fmt: skip
    if not phase.fans_out or phase.reduces or phase.rasters:
        inputs: Document = {"plan": "${plan.output.plan}", "phase": number}
        owed = ", ".join((*phase.rasters, *phase.reduces)) or members
        yield {**_simple("pesto_close", f"close_{number}", inputs), "description": owed}


def _simple(name: str, reference: str, inputs: Document) -> Document:
    return {
        "name": name, "taskReferenceName": reference, "type": "SIMPLE", "inputParameters": inputs,
    }  # fmt: skip


def _from_input(names: Iterable[str]) -> Document:
    return {name: f"${{workflow.input.{name}}}" for name in names}


def _inputs(pipeline: Pipeline) -> tuple[str, ...]:
    return (*pipeline.inputs, "folder", *_PLAN_SETTINGS, *_PUBLISH_SETTINGS)


def _input_schema(pipeline: Pipeline) -> Document:
    settings = {"folder": _FOLDER, **_PLAN_SETTINGS, **_PUBLISH_SETTINGS}
    taken = sorted(set(pipeline.inputs) & set(settings))
    if taken:
        raise InvalidPipeline(
            f"{pipeline.name}: input {', '.join(taken)} has the name of a setting of the workflow; "
            "name it otherwise"
        )
    given: Document = {
        name: _TYPES.get(kind, {"type": kind}) for name, kind in pipeline.inputs.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {**given, **settings},
        "required": [*pipeline.inputs, "folder"],
        "additionalProperties": False,
    }


def _escaped(value: JsonValue) -> JsonValue:
    """Keep Conductor from reading `${` in a pipeline's literals as an expression of its own."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return value


_USUAL_TASKS = 64


class ConductorRenderer:
    """Writes pipelines down for Conductor."""

    def render(self, request: RenderRequest) -> str:
        """Answer the definition's text; asks no service that a catalog describes.

        Raises:
            InvalidPipeline: the pipeline does not check.
            PestoError: a service does not say what it is.
        """
        return json.dumps(render(request), indent=2) + "\n"


renderer = ConductorRenderer()


def render(request: RenderRequest) -> dict[str, JsonValue]:
    """Answer the definition; see `ConductorRenderer.render`."""
    pipeline, base = request.pipeline, request.path.parent
    services = resolve_services(
        pipeline,
        base=base.resolve(),
        options=request.services,
        catalog=request.catalog,
        ask=False,
    )
    defaults: dict[str, JsonValue] = {"base": base.as_posix()}
    if chosen := chosen_services(pipeline, services, base=base.resolve()):
        defaults["services"] = chosen
    if request.max_tasks != _USUAL_TASKS:
        defaults["max_tasks"] = request.max_tasks
    if request.tile is not None:
        defaults["tile"] = request.tile
    wants_gpu = any(found.description.known.resources.gpu for found in services.found.values())
    domains = {"pesto_process": GPU_DOMAIN} if wants_gpu else {}
    return Rendered(pipeline, shape(pipeline, services), defaults, domains).definition()


def chosen_services(pipeline: Pipeline, services: Services, *, base: Path) -> dict[str, JsonValue]:
    """Services that are not those the pipeline itself names: of options or a catalog."""
    return {
        name: _catalogued(found)
        for name, found in services.found.items()
        if found.service.targets != _own_targets(pipeline, name, base)
        or found.description != found.said
    }


def _own_targets(pipeline: Pipeline, name: str, base: Path) -> tuple[str, ...]:
    """As they are once found: paths absolute."""
    own = pipeline.services.get(name, ())
    targets = (own,) if isinstance(own, str) else tuple(own)
    return tuple(_absolute(target, base) for target in targets)


def _absolute(target: str, base: Path) -> str:
    place, colon, function = target.rpartition(":")
    path = base / (place if colon else target)
    return f"{path.resolve()}{colon}{function if colon else ''}" if path.exists() else target


def _catalogued(found: Discovered) -> JsonValue:
    """As a catalog's JSON names a service."""
    targets = list(found.service.targets)
    if found.description == found.said:
        return targets[0] if len(targets) == 1 else [*targets]
    overlay = _patch(found.said.to_json(), found.description.to_json())
    return {"url": [*targets], "overlay": overlay}


def _patch(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The merge patch (RFC 7396) that makes one document of the other."""
    patch: dict[str, JsonValue] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if old != value:
                patch[key] = _patch(old, value)
        elif key not in before or old != value:
            patch[key] = value
    return patch
