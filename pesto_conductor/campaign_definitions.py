"""Write the workflow definition of a campaign: a pipeline over a list of scenes.

The chunks of all scenes share the tasks of one fan-out per phase. A scene that fails does not stop
the others: it is missing from `publish`, and the workflow fails at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_conductor.definitions import (
    FOLDER,
    PLAN_SETTINGS,
    PUBLISH_SETTINGS,
    closed_object,
    escaped,
    fan_out,
    from_input,
    heading,
    schema_of_input,
    schemas_of_inputs,
    simple,
)
from pesto_runtime.engines import WorkflowSettings
from pesto_runtime.pipeline import completed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline
    from pesto_runtime.run.planning import PhaseShape

    Document = dict[str, JsonValue]

_SCENES: Document = {
    "type": "array",
    "minItems": 1,
    "description": "For each scene its href, or an object of its inputs, with an `id`.",
}
_AT_PUBLISH = ("as_cog", "overviews")
_REPORTED = ("status", "campaign", "counts", "failed")
_REASON = (
    "scenes failed: ${publish.output.failed}; all others are published. ${publish.output.campaign}"
    " has the reasons. Start the workflow again with the same input: only what is missing is"
    " computed"
)


def campaign_definition(
    pipeline: Pipeline,
    phases: Sequence[PhaseShape],
    *,
    descriptions: Mapping[str, Description] | None = None,
    defaults: Mapping[str, JsonValue] | None = None,
    domains: Mapping[str, str] | None = None,
    settings: WorkflowSettings | None = None,
) -> Document:
    """Return the workflow definition of a checked pipeline over many scenes.

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
    name = f"{pipeline.name}-campaign"
    inputs = schemas_of_inputs(pipeline, descriptions or {}, further=("scenes",))
    properties = {"scenes": _SCENES, **inputs, "folder": FOLDER, **PLAN_SETTINGS,
                  **PUBLISH_SETTINGS}  # fmt: skip
    failure = settings.failure_workflow
    return {
        **heading(name, f"Runs the pipeline {pipeline.name} over a list of scenes.", settings),
        **({"failureWorkflow": failure} if failure else {}),
        "inputParameters": [*properties],
        "inputTemplate": dict(defaults or {}),
        "inputSchema": schema_of_input(
            name, closed_object(properties, required=["scenes", "folder"])
        ),
        "enforceSchema": True,
        **({"metadata": {"taskToDomain": dict(domains)}} if domains else {}),
        "tasks": [
            _plan_task(pipeline),
            *(task for phase in phases for task in _phase_tasks(phase)),
            _publish_task(),
            _require_task(),
        ],
        "outputParameters": _reported(),
    }


def _plan_task(pipeline: Pipeline) -> Document:
    return simple(
        "pesto_plan_scenes",
        "plan",
        {
            "pipeline": escaped(pipeline.to_json()),
            "inputs": from_input(pipeline.inputs),
            **from_input(("scenes", "folder", *PLAN_SETTINGS, *_AT_PUBLISH)),
        },
    )


def _phase_tasks(phase: PhaseShape) -> Iterator[Document]:
    number, members = phase.number, ", ".join((*phase.stages, *phase.reduces))
    if phase.fans_out:
        tasks = f"${{plan.output.tasks[{number}]}}"
        yield from fan_out(number, members, "pesto_process_scenes", tasks)
    # Also where a run of one scene needs no such task: it records the scenes that have failed.
    inputs: Document = {"campaign": "${plan.output.campaign}", "phase": number}
    yield {**simple("pesto_close_scenes", f"close_{number}", inputs), "description": members}


def _publish_task() -> Document:
    inputs = {"campaign": "${plan.output.campaign}", "started": "${plan.output.started}"}
    return simple(
        "pesto_publish_scenes",
        "publish",
        {**inputs, **from_input(("folder", *PUBLISH_SETTINGS))},
    )


def _require_task() -> Document:
    """Return a SWITCH that fails the workflow if a scene has failed."""
    failed: Document = {
        "name": "terminate",
        "taskReferenceName": "scenes_failed",
        "type": "TERMINATE",
        "inputParameters": {
            "terminationStatus": "FAILED",
            "terminationReason": _REASON,
            "workflowOutput": _reported(),
        },
    }
    return {
        "name": "switch",
        "taskReferenceName": "require_scenes",
        "type": "SWITCH",
        "evaluatorType": "value-param",
        "expression": "scenes",
        "inputParameters": {"scenes": "${publish.output.scenes}"},
        "decisionCases": {"some-failed": [failed]},
        "defaultCase": [],
    }


def _reported() -> Document:
    return {name: f"${{publish.output.{name}}}" for name in _REPORTED}
