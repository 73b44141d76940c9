"""Define the activities of a campaign, which is one pipeline over many scenes.

A scene that fails does not fail its task: `publish` reports it, and the others are published.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pesto_conductor import payloads
from pesto_conductor.planning import accept, prepare
from pesto_conductor.taskdefs import task_definition
from pesto_runtime.places import href_of, output_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_conductor.binding import TaskContext

_MOST_NAMED = 20


def plan(request: payloads.PlanScenesInput, task: TaskContext) -> payloads.PlanScenesOutput:
    """Plan each scene, and share the chunks of all of them among tasks.

    A scene that cannot be planned is logged, and does not stop the others. A scene whose outputs an
    earlier run has made has no tasks, unless `fresh` is set.

    Raises:
        InvalidInput: the list of scenes is wrong, or other machines cannot reach a place.
        InvalidPipeline: the pipeline does not check, whatever the scene; with every error.
        PestoError: a service cannot be read, or the store cannot be written.
    """
    from pesto_runtime.campaigns import (
        CampaignSettings,
        load_campaign,
        plan_campaign,
        read_scenes,
    )
    from pesto_runtime.contract import ProductForm
    from pesto_runtime.pipeline import completed
    from pesto_runtime.run.planning import shape
    from pesto_runtime.run.result import member_of

    started = datetime.now(UTC)
    pipeline, services, sizing = prepare(request)
    common = {name: value for name, value in request.inputs.items() if value is not None}
    scenes = read_scenes(request.scenes, completed(pipeline, services.descriptions), common=common)
    settings = CampaignSettings(
        folder=output_place(request.folder),
        sizing=sizing,
        member=member_of(task.engine),
        store=request.store,
        patience_s=60.0 if request.patience is None else request.patience,
        report=request.report or "links",
        compress=request.compress or "deflate",
        cache=request.cache,
        form=ProductForm.of(as_cog=bool(request.as_cog), overviews=bool(request.overviews)),
        take_over=request.take_over or False,
        replace=request.replace or False,
        fresh=request.fresh or False,
    )
    href = plan_campaign(
        pipeline, services, scenes, settings, warn=task.log, accept=accept(request, task)
    )
    campaign = load_campaign(href)
    for scene in campaign.scenes:
        if scene.error:
            task.log(f"{scene.id} cannot be planned: {scene.error}")
    counts = [len(each) for each in campaign.tasks]
    # A campaign without a plan has no phases, but its workflow has a fork for each.
    counts += [0] * (len(shape(pipeline, services)) - len(counts))
    return payloads.PlanScenesOutput(
        campaign=href,
        started=started.isoformat(),
        planned=sum(bool(scene.plan) for scene in campaign.scenes),
        complete=sum(scene.is_complete for scene in campaign.scenes),
        tasks=[
            [
                payloads.ScenesTaskInput(
                    campaign=href, phase=phase, task=number,
                    holes=request.holes or "fail", concurrency=request.concurrency,
                )
                for number in range(count)
            ]
            for phase, count in enumerate(counts)
        ],
    )  # fmt: skip


def process(request: payloads.ScenesTaskInput, task: TaskContext) -> payloads.ScenesTaskOutput:
    """Run the chunks of a task, scene after scene.

    Raises:
        NotFound: there is no such campaign.
        Interrupted: the observer stopped the task; complete blocks are stored.
        PestoError: an error of a scene can be retried, and the task has an attempt left.
    """
    from pesto_runtime.campaigns import process_task

    counts = process_task(
        request.campaign,
        request.phase,
        request.task,
        watch=task.observer,
        threads=request.concurrency,
        holes=request.holes or "fail",
        failures="raise-retryable" if _has_attempts(task, "pesto_process_scenes") else "count",
    )
    return payloads.ScenesTaskOutput.model_validate(counts)


def close(request: payloads.CloseScenesInput, task: TaskContext) -> payloads.CloseScenesOutput:
    """Close a phase of every scene that has not failed.

    Raises:
        NotFound: there is no such campaign.
        PestoError: an error of a scene can be retried, and the task has an attempt left.
    """
    from pesto_runtime.campaigns import close_campaign_phase

    failed = close_campaign_phase(
        request.campaign, request.phase, retry=_has_attempts(task, "pesto_close_scenes")
    )
    for name, reason in [*failed.items()][:_MOST_NAMED]:
        task.log(f"{name} failed: {reason}")
    return payloads.CloseScenesOutput(failed=len(failed))


def publish(
    request: payloads.PublishScenesInput, task: TaskContext
) -> payloads.PublishScenesOutput:
    """Write the outputs of every scene that has not failed, and `campaign.json`.

    Raises:
        NotFound: there is neither such a campaign nor its `campaign.json`.
        StoreFailed: disk full, or not writable.
    """
    from pesto_runtime.campaigns import CAMPAIGN, publish_campaign
    from pesto_runtime.contract import ProductForm
    from pesto_runtime.run.result import RunRecord

    folder = output_place(request.folder)
    started = datetime.fromisoformat(request.started) if request.started else datetime.now(UTC)
    document = publish_campaign(
        request.campaign,
        folder,
        RunRecord(engine=task.engine, started=started),
        form=ProductForm.of(as_cog=bool(request.as_cog), overviews=bool(request.overviews)),
        keep=bool(request.keep),
        on_scene=lambda name, status: task.log(f"{name}: {status}"),
    )
    failed = _failed(document["scenes"])
    return payloads.PublishScenesOutput.model_validate(
        {
            "status": document["status"],
            "scenes": "some-failed" if failed else "all-published",
            "campaign": href_of(folder / CAMPAIGN),
            "counts": document["counts"],
            "failed": failed[:_MOST_NAMED],
        }
    )


def _failed(scenes: JsonValue) -> list[str]:
    entries: Mapping[str, JsonValue] = scenes if isinstance(scenes, dict) else {}
    return [
        name
        for name, entry in entries.items()
        if isinstance(entry, dict) and entry["status"] == "FAILED"
    ]


def _has_attempts(task: TaskContext, task_type: str) -> bool:
    """Whether Conductor tries the task again if this attempt fails."""
    return task.attempt < task_definition(task_type).retries
