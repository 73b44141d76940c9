"""Write workflow definitions: plan, fan out and join each phase, publish.

The input of a chunk's task is an href and two indices, its output an href and counts: a JOIN of 256
stays under 64 KB. No task is optional: Conductor would complete a workflow that has holes. Nothing
is registered from here: `deploy.py` registers definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_conductor.taskdefs import OWNER
from pesto_runtime.engines import WorkflowSettings
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.pipeline import completed, fed_ports, input_defaults, input_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline
    from pesto_runtime.run.planning import PhaseShape

    Document = dict[str, JsonValue]

FAILURE = "pesto_failure"
"""The workflow that Conductor starts after one that failed."""

_HREF: Document = {"type": "string", "format": "uri-reference"}
PLAN_SETTINGS: dict[str, Document] = {
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
    "cache": {
        "type": "string",
        "description": "Cache of blocks, which runs share; all workers must reach it.",
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
    "preflight": {
        "enum": ["refuse", "warn"],
        "description": "If workers of several machines poll, and a place is on one of them.",
    },
}  # fmt: skip
PUBLISH_SETTINGS: dict[str, Document] = {
    "as_cog": {"type": "boolean", "description": "Write cloud-optimised GeoTIFFs."},
    "overviews": {"type": "boolean", "description": "Write GeoTIFFs with overviews."},
    "keep": {"type": "boolean", "description": "Keep the run store of a complete run."},
}
FOLDER: Document = {**_HREF, "description": "Output folder; all workers must have access to it."}
_IMAGE: Document = {
    "type": ["string", "object"],
    "format": "uri-reference",
    "description": "An image: path or href, with bands and window as in HREF#bands=green:2,"
    "nir:4, or an object {href, bands, window}.",
}
_TYPES: dict[str, Document] = {
    "image": _IMAGE,
    "images": {"type": "array", "items": _IMAGE, "minItems": 1},
}


def workflow_definition(
    pipeline: Pipeline,
    phases: Sequence[PhaseShape],
    *,
    descriptions: Mapping[str, Description] | None = None,
    defaults: Mapping[str, JsonValue] | None = None,
    domains: Mapping[str, str] | None = None,
    settings: WorkflowSettings | None = None,
) -> Document:
    """Return the workflow definition of a checked pipeline.

    Args:
        pipeline: The pipeline.
        phases: Its phases.
        descriptions: Process name -> description: the limits of its inputs.
        defaults: Inputs that can be omitted when the workflow is started.
        domains: Task type -> task domain.
        settings: Owner, version, failure workflow and time limit.

    Raises:
        InvalidPipeline: an input has the name of a setting of the run.
    """
    settings = settings or WorkflowSettings()
    pipeline = completed(pipeline, descriptions or {})
    schema = _input_schema(pipeline, descriptions or {})
    failure = FAILURE if settings.failure_workflow is None else settings.failure_workflow
    return {
        **heading(
            pipeline.name, pipeline.description or f"Runs the pipeline {pipeline.name}.", settings
        ),
        **({"failureWorkflow": failure} if failure else {}),
        "inputParameters": [*pipeline.inputs, "folder", *PLAN_SETTINGS, *PUBLISH_SETTINGS],
        "inputTemplate": dict(defaults or {}),
        "inputSchema": schema_of_input(pipeline.name, schema),
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


def heading(name: str, description: str, settings: WorkflowSettings) -> Document:
    """Return the fields that every workflow definition begins with."""
    return {
        "name": name,
        "description": description,
        "version": settings.version,
        "schemaVersion": 2,
        "ownerEmail": settings.owner or OWNER,
        "timeoutPolicy": "TIME_OUT_WF" if settings.timeout_s else "ALERT_ONLY",
        "timeoutSeconds": settings.timeout_s,
        "restartable": True,
    }


def schema_of_input(name: str, schema: Document) -> Document:
    """Return the schema of a workflow's input in the form of Conductor."""
    return {"name": f"{name}_input", "version": 1, "type": "JSON", "data": schema}


def failure_definition(owner: str | None = None) -> Document:
    """Return the workflow that Conductor starts when a rendered workflow has failed."""
    text = (
        "Logs the plan of a failed workflow, which retry resumes;"
        " deletes its blocks only if forget is set."
    )
    return {
        **heading(FAILURE, text, WorkflowSettings(owner=owner)),
        "inputParameters": ["workflowId", "reason", "forget"],
        "tasks": [
            simple(
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
    return simple(
        "pesto_plan",
        "plan",
        {
            "pipeline": escaped(pipeline.to_json()),
            "inputs": from_input(pipeline.inputs),
            **from_input(("folder", *PLAN_SETTINGS)),
        },
    )


def _publish_task() -> Document:
    return simple(
        "pesto_publish",
        "publish",
        {
            "plan": "${plan.output.plan}",
            "started": "${plan.output.started}",
            **from_input(("folder", *PUBLISH_SETTINGS)),
        },
    )


def _phase_tasks(phase: PhaseShape) -> Iterator[Document]:
    number, members = phase.number, ", ".join((*phase.stages, *phase.reduces))
    if phase.fans_out:
        yield from fan_out(number, members, "pesto_process", f"${{plan.output.chunks[{number}]}}")
    if not phase.fans_out or phase.values or phase.rasters:
        inputs: Document = {"plan": "${plan.output.plan}", "phase": number}
        finished = ", ".join((*phase.rasters, *phase.values)) or members
        yield {**simple("pesto_close", f"close_{number}", inputs), "description": finished}


def fan_out(number: int, description: str, task_type: str, inputs: str) -> Iterator[Document]:
    """Yield a fork of a task for each of some inputs, and its join."""
    yield {
        "name": "fan_out",
        "taskReferenceName": f"fan_out_{number}",
        "type": "FORK_JOIN_DYNAMIC",
        "description": description,
        "inputParameters": {"forkTaskName": task_type, "forkTaskInputs": inputs},
    }
    yield {"name": "join", "taskReferenceName": f"join_{number}", "type": "JOIN", "joinOn": []}


def simple(name: str, reference: str, inputs: Document) -> Document:
    """Return a task for a worker."""
    return {
        "name": name, "taskReferenceName": reference, "type": "SIMPLE", "inputParameters": inputs,
    }  # fmt: skip


def from_input(names: Iterable[str]) -> Document:
    """Return parameters that are inputs of the workflow with the same names."""
    return {name: f"${{workflow.input.{name}}}" for name in names}


def _input_schema(pipeline: Pipeline, descriptions: Mapping[str, Description]) -> Document:
    inputs = schemas_of_inputs(pipeline, descriptions)
    defaults = input_defaults(pipeline, descriptions)
    needed = completed(pipeline, descriptions, given=()).inputs
    return closed_object(
        {**inputs, "folder": FOLDER, **PLAN_SETTINGS, **PUBLISH_SETTINGS},
        required=[*(name for name in needed if name not in defaults), "folder"],
    )


def schemas_of_inputs(
    pipeline: Pipeline, descriptions: Mapping[str, Description], *, further: Iterable[str] = ()
) -> Document:
    """Return the schema of each input of a pipeline.

    Raises:
        InvalidPipeline: an input has the name of a setting of the workflow.
    """
    settings = {"folder", *PLAN_SETTINGS, *PUBLISH_SETTINGS, *further}
    taken = sorted(set(pipeline.inputs) & settings)
    if taken:
        raise InvalidPipeline(
            f"{pipeline.name}: input {', '.join(taken)} has the name of a setting of the workflow; "
            "rename it"
        )
    fed = fed_ports(pipeline, descriptions)
    return {
        name: _TYPES.get(kind) or input_schema(kind, fed[name])
        for name, kind in pipeline.inputs.items()
    }


def closed_object(properties: Document, *, required: Sequence[str]) -> Document:
    """Return the schema of an object that has only these properties."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def escaped(value: JsonValue) -> JsonValue:
    """Escape `${` in a pipeline's literals, which Conductor would read as an expression."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [escaped(each) for each in value]
    if isinstance(value, dict):
        return {key: escaped(each) for key, each in value.items()}
    return value
