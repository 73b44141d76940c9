"""Define the operator that plans a campaign: every scene, and the tasks that the scenes share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pesto_airflow.links import PestoCampaignLink
from pesto_airflow.operators.plan import PLAN, PestoPlanOperator
from pesto_airflow.pipelines import engine_of, require_absolute_folder, require_absolute_images
from pesto_airflow.preflight import preflight
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.run.pipeline_inputs import given_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue


class PestoPlanCampaignOperator(PestoPlanOperator):
    """Plan each scene of a campaign; return the task numbers of the first phase, to map over.

    A scene that cannot be planned is logged, and does not stop the others. A scene whose outputs
    are there, unchanged, from an earlier run has no tasks.

    Args:
        scenes: A list of hrefs, or of objects with the inputs of a scene and its `id`; or such a
            list as JSON; templated.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        overviews: Whether image outputs have overviews.
        kwargs: Arguments of the operator that plans a run; `inputs` are the same for all scenes.
    """

    template_fields: Sequence[str] = (*PestoPlanOperator.template_fields, "scenes")
    operator_extra_links = (PestoCampaignLink(),)

    def __init__(
        self,
        *,
        scenes: Sequence[JsonValue] | str | XComArg,
        as_cog: bool = False,
        overviews: bool = False,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # the base class checks them
        self.scenes = scenes
        self.as_cog = as_cog
        self.overviews = overviews

    def perform(self, context: Context) -> JsonValue:
        """Plan each scene, and share their chunks among tasks.

        Raises:
            InvalidInput: the folder or an image is a relative path, the list of scenes is wrong,
                or the preflight refuses.
            InvalidPipeline: the pipeline is wrong, whatever the scene; with every error.
            PestoError: a service is unreachable, or the store cannot be written.
        """
        from pesto_runtime.campaigns import (
            CampaignSettings,
            load_campaign,
            plan_campaign,
            read_scenes,
        )
        from pesto_runtime.contract import ProductForm
        from pesto_runtime.run.result import member_of

        folder = require_absolute_folder("folder", str(self.folder))
        settings = CampaignSettings(
            folder=folder,
            sizing=self.sizing(),
            member=member_of(engine_of(context)),
            store=str(self.store) if self.store else None,
            patience_s=self.patience_s(),
            report=self.report,
            compress=self.compress,
            cache=self.cache,
            form=ProductForm.of(as_cog=self.as_cog, overviews=self.overviews),
            take_over=self.take_over,
            replace=self.replace,
        )
        with self.resolved(context) as (pipeline, services):
            scenes = read_scenes(self._listed(), pipeline, common=self.inputs)
            for scene in scenes:
                require_absolute_images(given_images(pipeline, scene.inputs))
            href = plan_campaign(
                pipeline, services, scenes, settings,
                warn=self.log.warning,
                accept=lambda planned: preflight(planned, kind=self.preflight),
            )  # fmt: skip
        campaign = load_campaign(href)
        for run in campaign.scenes:
            if run.error:
                self.log.error("%s cannot be planned: %s", run.id, run.error)
        planned = sum(bool(scene.plan) for scene in campaign.scenes)
        complete = sum(scene.is_complete for scene in campaign.scenes)
        tasks = ", ".join(str(len(each)) for each in campaign.tasks)
        self.log.info(
            "planned %d of %d scenes, %d were complete; tasks of each phase: %s",
            planned, len(scenes), complete, tasks or "none",
        )  # fmt: skip
        self.plan_href = href
        context["ti"].xcom_push(PLAN, href)
        return [*next_tasks(href, after=-1)]

    def _listed(self) -> Sequence[JsonValue]:
        """Return the list of scenes; as JSON, it is what a template made of it."""
        try:
            found: Sequence[JsonValue] = (
                json.loads(self.scenes) if isinstance(self.scenes, str) else self.scenes  # type: ignore[assignment]  # Airflow has resolved an XComArg
            )
        except ValueError as error:
            raise InvalidInput(
                f"scenes must be a list, or JSON of one, not {shortened(str(self.scenes))}"
            ) from error
        return found if isinstance(found, str) else [*found]


def next_tasks(campaign: str, *, after: int) -> list[int]:
    """Return the task numbers of the first phase after `after` that has tasks, or none.

    Args:
        campaign: Href of the campaign's plan.
        after: Number of a phase; -1 for the start.

    Raises:
        NotFound: there is no such campaign.
    """
    from pesto_runtime.campaigns import load_campaign

    found = load_campaign(campaign).tasks[after + 1 :]
    return [*range(len(next(filter(None, found), ())))]
