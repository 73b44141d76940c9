"""Render a pipeline as a workflow definition: plan, fan out and join each phase, publish.

The input of a chunk's task is an href and two indices, its output an href and counts: a JOIN of 256
stays under 64 KB. No task is optional: Conductor would complete a workflow that has holes. Nothing
is registered from here: `deploy.py` registers definitions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.taskdefs import GPU_DOMAIN
from pesto_runtime.contract.pipeline import PROFILES
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.pipeline import completed, fed_ports, input_defaults, input_schema
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline
    from pesto_runtime.engines import RenderRequest
    from pesto_runtime.run.planning import PhaseShape
    from pesto_runtime.run.services import Discovered, Services

    Document = dict[str, JsonValue]

FAILURE = "pesto_failure"
"""The workflow that Conductor starts after one that failed."""

_OWNER = "pesto@example.com"
_DEFAULT_MAX_TASKS = 64
_HREF: Document = {"type": "string", "format": "uri-reference"}
_PLAN_SETTINGS: dict[str, Document] = {
    "base": {"type": "string", "description": "Folder to which targets are relative."},
    "services": {"type": "object", "description": "Process name -> target, URL or URLs."},
    "store": {"type": "string", "description": "Run store; in the folder if absent."},
    "workers": {"type": "integer", "minimum": 1, "description": "Chunks that run at once."},
    "max_tasks": {
        "type": "integer", "minimum": 1, "maximum": 256,
        "description": "Largest number of chunks of a phase.",
    },
    "tile": {"type": "integer", "minimum": 1, "description": "Side of a tile, pixels."},
    "patience": {
        "type": "number", "minimum": 0,
        "description": "Seconds to wait for a service that restarts; 60 if absent.",
    },
    "report": {
        "enum": ["links", "embed", "none"],
        "description": "What report.html has of the products; none: no report.",
    },
    "compress": {
        "type": "string",
        "description": "Codec of image outputs: deflate[:1-12] (default), zstd[:1-22] or none.",
    },
    "holes": {
        "enum": ["fail", "keep"],
        "description": "After a failed tile: fail the task, or complete a PARTIAL run.",
    },
    "concurrency": {"type": "integer", "minimum": 1, "description": "Tiles of a chunk at once."},
    "fresh": {"type": "boolean", "description": "Delete the blocks that earlier runs have stored."},
    "take_over": {
        "type": "boolean", "description": "Take the folder from a run that still owns it.",
    },
    "replace": {
        "type": "boolean",
        "description": "Overwrite the finished result of another pipeline or scene.",
    },
}  # fmt: skip
_PUBLISH_SETTINGS: dict[str, Document] = {
    "as_cog": {"type": "boolean", "description": "Write cloud-optimised GeoTIFFs."},
    "overviews": {"type": "boolean", "description": "Write GeoTIFFs with overviews."},
    "keep": {"type": "boolean", "description": "Keep the run store of a complete run."},
}
_FOLDER: Document = {**_HREF, "description": "Output folder; all workers must have access to it."}
_TYPES: dict[str, Document] = {
    "image": {
        "type": ["string", "object"],
        "format": "uri-reference",
        "description": "An image: path or href, with bands and window as in HREF#bands=green:2,"
        "nir:4, or an object {href, bands, window}.",
    }
}


class ConductorRenderer:
    """Renders pipelines for `pesto render --engine conductor`."""

    def render(self, request: RenderRequest) -> str:
        """Return the text of the definition; no service is contacted that a catalog describes.

        Raises:
            InvalidPipeline: the pipeline has errors; names each.
            PestoError: the description of a service cannot be requested.
        """
        return json.dumps(render(request), indent=2) + "\n"


renderer = ConductorRenderer()


def render(request: RenderRequest) -> dict[str, JsonValue]:
    """Return the workflow definition of a pipeline; raises the errors of `ConductorRenderer`."""
    # Code is not loaded from a bucket: targets are then relative to the folder of each worker.
    pipeline = request.pipeline
    base = request.path.parent if isinstance(request.path, Path) else Path()
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
    if request.max_tasks != _DEFAULT_MAX_TASKS:
        defaults["max_tasks"] = request.max_tasks
    if request.tile is not None:
        defaults["tile"] = request.tile
    requires_gpu = any(found.description.known.resources.gpu for found in services.found.values())
    domains = {"pesto_process": GPU_DOMAIN} if requires_gpu else {}
    return workflow_definition(
        pipeline,
        shape(pipeline, services),
        descriptions=services.descriptions,
        defaults=defaults,
        domains=domains,
    )


def workflow_definition(
    pipeline: Pipeline,
    phases: Sequence[PhaseShape],
    *,
    descriptions: Mapping[str, Description] | None = None,
    defaults: Mapping[str, JsonValue] | None = None,
    domains: Mapping[str, str] | None = None,
) -> Document:
    """Return the workflow definition of a checked pipeline.

    Args:
        pipeline: The pipeline.
        phases: Its phases.
        descriptions: Process name -> description: the limits of its inputs.
        defaults: Inputs that can be omitted when the workflow is started.
        domains: Task type -> task domain.

    Raises:
        InvalidPipeline: an input has the name of a setting of the run.
    """
    pipeline = completed(pipeline, descriptions or {})
    schema = _input_schema(pipeline, descriptions or {})
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
        "inputParameters": [*pipeline.inputs, "folder", *_PLAN_SETTINGS, *_PUBLISH_SETTINGS],
        "inputTemplate": dict(defaults or {}),
        "inputSchema": {
            "name": f"{pipeline.name}_input", "version": 1, "type": "JSON", "data": schema,
        },
        "enforceSchema": True,
        **({"metadata": {"taskToDomain": dict(domains)}} if domains else {}),
        "tasks": [
            _plan_task(pipeline),
            *(task for phase in phases for task in _phase_tasks(phase)),
            _publish_task(),
        ],
        "outputParameters": {
            name: f"${{publish.output.{name}}}"
            for name in ("status", "result", "outputs", "tiles")
        },
    }  # fmt: skip


def failure_definition() -> Document:
    """Return the workflow that Conductor starts when a rendered workflow has failed."""
    return {
        "name": FAILURE,
        "description": "Logs the plan of a failed workflow, which retry resumes;"
        " deletes its blocks only if forget is set.",
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


def _publish_task() -> Document:
    return _simple(
        "pesto_publish",
        "publish",
        {
            "plan": "${plan.output.plan}",
            "started": "${plan.output.started}",
            **_from_input(("folder", *_PUBLISH_SETTINGS)),
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
        finished = ", ".join((*phase.rasters, *phase.reduces)) or members
        yield {**_simple("pesto_close", f"close_{number}", inputs), "description": finished}


def _simple(name: str, reference: str, inputs: Document) -> Document:
    return {
        "name": name, "taskReferenceName": reference, "type": "SIMPLE", "inputParameters": inputs,
    }  # fmt: skip


def _from_input(names: Iterable[str]) -> Document:
    return {name: f"${{workflow.input.{name}}}" for name in names}


def _input_schema(pipeline: Pipeline, descriptions: Mapping[str, Description]) -> Document:
    settings = {"folder": _FOLDER, **_PLAN_SETTINGS, **_PUBLISH_SETTINGS}
    taken = sorted(set(pipeline.inputs) & set(settings))
    if taken:
        raise InvalidPipeline(
            f"{pipeline.name}: input {', '.join(taken)} has the name of a setting of the workflow; "
            "rename it"
        )
    fed = fed_ports(pipeline, descriptions)
    defaults = input_defaults(pipeline, descriptions)
    needed = completed(pipeline, descriptions, given=()).inputs
    inputs: Document = {
        name: _TYPES.get(kind) or input_schema(kind, fed[name])
        for name, kind in pipeline.inputs.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {**inputs, **settings},
        "required": [*(name for name in needed if name not in defaults), "folder"],
        "additionalProperties": False,
    }


def _escaped(value: JsonValue) -> JsonValue:
    """Escape `${` in a pipeline's literals, which Conductor would read as an expression."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return value


def chosen_services(pipeline: Pipeline, services: Services, *, base: Path) -> dict[str, JsonValue]:
    """Return the services that differ from the pipeline's own: those of options or a catalog."""
    return {
        name: _catalog_entry(found)
        for name, found in services.found.items()
        if found.service.targets != _own_targets(pipeline, name, base)
        or found.description != found.said
    }


def _own_targets(pipeline: Pipeline, name: str, base: Path) -> tuple[str, ...]:
    """Return the pipeline's own targets of a process, with absolute paths."""
    own = pipeline.services.get(name, ())
    targets = (own,) if isinstance(own, str) else tuple(own)
    return tuple(_absolute(target, base) for target in targets)


def _absolute(target: str, base: Path) -> str:
    code, mark, profiles = target.partition(PROFILES)
    place, colon, function = code.rpartition(":")
    path = base / (place if colon else code)
    if not path.exists():
        return target
    return f"{path.resolve()}{colon}{function if colon else ''}{mark}{profiles}"


def _catalog_entry(found: Discovered) -> JsonValue:
    """Return a service in the JSON form of a catalog."""
    targets = list(found.service.targets)
    if found.description == found.said:
        return targets[0] if len(targets) == 1 else [*targets]
    overlay = _patch(found.said.to_json(), found.description.to_json())
    return {"url": [*targets], "overlay": overlay}


def _patch(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the merge patch (RFC 7396) that converts one document to the other."""
    patch: dict[str, JsonValue] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if old != value:
                patch[key] = _patch(old, value)
        elif key not in before or old != value:
            patch[key] = value
    return patch
