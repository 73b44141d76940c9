"""Build the task group of a campaign: a pipeline over many scenes, with one fan-out per phase.

As for a pipeline, it uses only saved descriptions: parsing a DAG file contacts no service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack, cast

from airflow.sdk import Asset, TaskGroup, TriggerRule, XComArg

from pesto_airflow.operators.campaign import (
    PestoCloseCampaignOperator,
    PestoMapCampaignOperator,
    PestoPublishCampaignOperator,
    PestoRequireScenesOperator,
)
from pesto_airflow.operators.plan_campaign import PestoPlanCampaignOperator
from pesto_airflow.pipelines import KnownPipeline, closing_task_id, map_task_id
from pesto_airflow.taskgroups import (
    arguments_of_phase,
    connection_arguments,
    known_group,
    planning_arguments,
    scoped,
    with_defaults,
)
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow.sdk.definitions.xcom_arg import PlainXComArg
    from pydantic import JsonValue

    from pesto_airflow.operators.run import RunOperator
    from pesto_airflow.taskgroups import GroupSettings
    from pesto_runtime.run.planning import PhaseShape

_ARGUMENTS = ("pipeline", "scenes", "folder", "services", "inputs", "group_id", "holes")
_OF_ONE_SCENE = ("assets", "fail_on_partial")


def pesto_campaign(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline,
    *,
    scenes: Sequence[JsonValue] | str | XComArg,
    folder: str | Path | XComArg,
    services: str | Path,
    inputs: Mapping[str, JsonValue] | None = None,
    group_id: str | None = None,
    holes: Literal["fail", "keep"] = "fail",
    **settings: Unpack[GroupSettings],
) -> PestoCampaignGroup:
    """Create the tasks of a pipeline over many scenes.

    The chunks of all scenes share at most `max_tasks` mapped tasks per phase. A scene that fails
    does not stop the others: they are published, and then the last task fails. Clearing the failed
    tasks, with those after them, computes only what is missing.

    `group.output` is the result of the task `publish`: status, counts, failed scenes, outputs.

    Args:
        pipeline: Its file, or its JSON.
        scenes: A list of hrefs, or of objects with the inputs of a scene and its `id`; also a
            template of such a list as JSON, or the result of another task.
        folder: Folder of the campaign, templated; each scene has a folder of its id in it.
        services: Folder of saved descriptions, one of each process.
        inputs: Inputs that are the same for every scene; templated.
        group_id: Id of the task group; the pipeline's name by default.
        holes: `fail`: a scene with a tile that finally failed fails, and clearing its task computes
            only that tile again. `keep`: the scene ends PARTIAL.
        settings: As `GroupSettings`, without those of a single scene.

    Raises:
        InvalidInput: a process has no saved description, or a setting is wrong.
        InvalidPipeline: the pipeline is wrong; with every error.
    """
    for name in _OF_ONE_SCENE:
        if name in settings:
            raise InvalidInput(f"pesto_campaign: {name} is for the outputs of one scene")
    chosen = with_defaults(settings, arguments=_ARGUMENTS, function="pesto_campaign")
    known = known_group(pipeline, services, chosen, inputs=None)
    connections = connection_arguments(chosen)
    name = group_id or known.pipeline.name
    group = PestoCampaignGroup(name, tooltip=known.pipeline.description)
    with group:
        planned = PestoPlanCampaignOperator(
            task_id="plan",
            pipeline=pipeline.to_json() if isinstance(pipeline, Pipeline) else pipeline,
            scenes=scenes,
            inputs=inputs or {},
            folder=folder,
            services=services,
            as_cog=chosen["as_cog"],
            overviews=chosen["overviews"],
            **planning_arguments(chosen),
        )
        last: RunOperator = planned
        for phase in known.phases:
            last = _add_phase(phase, planned, last, known=known, holes=holes, settings=chosen)
        published = PestoPublishCampaignOperator(
            task_id="publish",
            campaign=planned.href,
            folder=folder,
            asset=Asset(scoped(group, "campaign")),
            as_cog=chosen["as_cog"],
            overviews=chosen["overviews"],
            keep=chosen["keep"],
            note_conn_id=chosen["note_conn_id"],
            **connections,
        )
        required = PestoRequireScenesOperator(
            task_id="require_scenes", campaign=planned.href, published=published.output, retries=0
        )
        last >> published >> required
    group.publish = published
    return group


class PestoCampaignGroup(TaskGroup):
    """The tasks of a campaign.

    Attributes:
        publish: The task that publishes every scene.
    """

    publish: PestoPublishCampaignOperator

    @property
    def output(self) -> PlainXComArg:
        """The result of the task `publish`."""
        return cast("PlainXComArg", self.publish.output)


def _add_phase(
    phase: PhaseShape,
    planned: PestoPlanCampaignOperator,
    before: RunOperator,
    *,
    known: KnownPipeline,
    holes: Literal["fail", "keep"],
    settings: GroupSettings,
) -> RunOperator:
    """Add the mapped tasks of a phase, if it has chunks, and the task that closes it."""
    connections = connection_arguments(settings)
    chosen = arguments_of_phase(phase, known, settings)
    closing = PestoCloseCampaignOperator(
        task_id=closing_task_id(phase),
        campaign=planned.href,
        phase=phase.number,
        # A failed task is of some scenes: the others go on. Without tasks, all are skipped.
        trigger_rule=TriggerRule.ALL_DONE if phase.fans_out else TriggerRule.ALL_SUCCESS,
        **connections,
        **({} if phase.fans_out else chosen),
    )
    if not phase.fans_out:
        before >> closing
        return closing
    mapped = PestoMapCampaignOperator.partial(
        task_id=map_task_id(phase.stages, phase.reduces),
        campaign=planned.href,
        phase=phase.number,
        holes=holes,
        concurrency=settings["concurrency"],
        **connections,
        **chosen,
    ).expand(number=before.output)
    mapped >> closing
    return closing
