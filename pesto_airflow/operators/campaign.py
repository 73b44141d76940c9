"""Define the operators that run a campaign: tasks that scenes share, and the end of all scenes.

A scene that fails does not stop the others. Its tasks fail once the others are computed; after a
clear they compute only what is missing.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Unpack

from pesto_airflow.lineage import Lineage, lineage_of
from pesto_airflow.links import PestoCampaignLink
from pesto_airflow.metrics import send_counts
from pesto_airflow.operators.plan_campaign import next_tasks
from pesto_airflow.operators.run import POLICY, RETRIES, RETRY_DELAY, RunOperator
from pesto_airflow.pipelines import MOST_BYTES, engine_of, require_absolute_folder
from pesto_airflow.progress import ChunkProgress
from pesto_airflow.run_notes import write_note
from pesto_runtime.errors import NotFound, PestoError, RunFailed
from pesto_runtime.places import href_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from airflow.sdk import Asset, Context, RetryPolicy, XComArg
    from pydantic import JsonValue

    from pesto_airflow.arguments import CommonArguments, RunArguments
    from pesto_runtime.contract import Service

TASK_NAME = "{{ task.task_name }}"
_MOST_NAMED = 20


class CampaignOperator(RunOperator):
    """Run one activity of a campaign.

    Args:
        campaign: Href of the campaign's plan.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("campaign",)
    operator_extra_links = (PestoCampaignLink(),)

    def __init__(self, *, campaign: str | XComArg, **kwargs: Unpack[RunArguments]) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign

    @property
    def href(self) -> str:
        """Href of the campaign's plan.

        Raises:
            RunFailed: the task that plans has no result.
        """
        if not self.campaign:
            raise RunFailed("the campaign has no plan: its task `plan` failed; see its log")
        return str(self.campaign)

    def planned_services(self) -> Mapping[str, Service]:
        """Return the services of the campaign; every scene has the same.

        Raises:
            NotFound: there is no such campaign.
        """
        from pesto_runtime.campaigns import load_campaign, planned_scene

        campaign = load_campaign(self.href)
        for scene in campaign.scenes:
            with suppress(NotFound):  # its run store was deleted: it fails, and no other
                plan = planned_scene(campaign, scene) if scene.plan else None
                if plan:
                    return plan.services
        return {}


class PestoMapCampaignOperator(CampaignOperator):
    """Compute the chunks of one task of a campaign, which may be of several scenes.

    Args:
        campaign: Href of the campaign's plan.
        number: Number of the task; `expand` over the result of the operator before.
        phase: Number of the phase.
        holes: `fail`: a scene with a tile that finally failed fails. `keep`: it ends PARTIAL.
        concurrency: Tiles at once; by default 8 if all processes are services, else 1.
        retries: Retries, if the error of a scene reports that a retry can help.
        retry_policy: Decides on each failure.
        retry_delay: Delay before the next try, if neither the error nor a service sets one.
        pesto_conn_id: Connection of the services that have none in `conn_ids`.
        conn_ids: Process name -> connection of its service, of type `pesto`.
        store_conn_id: Connection of the buckets.
        map_index_template: Label of the task in the grid.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "number")

    # As for `PestoMapOperator`: Airflow reads the defaults of a mapped task from this signature.
    def __init__(  # noqa: PLR0913
        self,
        *,
        campaign: str | XComArg,
        number: int | XComArg,
        phase: int = 0,
        holes: Literal["fail", "keep"] = "fail",
        concurrency: int | None = None,
        retries: int = RETRIES,
        retry_policy: RetryPolicy | None = POLICY,
        retry_delay: timedelta = RETRY_DELAY,
        pesto_conn_id: str | None = None,
        conn_ids: Mapping[str, str] | None = None,
        store_conn_id: str | None = None,
        map_index_template: str | None = TASK_NAME,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(
            campaign=campaign,
            retries=retries,
            retry_policy=retry_policy,
            retry_delay=retry_delay,
            pesto_conn_id=pesto_conn_id,
            conn_ids=conn_ids,
            store_conn_id=store_conn_id,
            map_index_template=map_index_template,
            **kwargs,
        )
        self.number = number
        self.phase = phase
        self.holes = holes
        self.concurrency = concurrency
        self._is_stopped = False

    @property
    def task_name(self) -> str:
        """Number of the task, and its scenes; the number alone if the plan cannot be read."""
        from pesto_runtime.campaigns import load_campaign

        number = int(str(self.number))
        try:
            with self.connections.stores():
                campaign = load_campaign(self.href)
        except PestoError:  # as for a chunk: it would hide the error of the task
            return str(number)
        names = [campaign.scenes[part.scene].id for part in campaign.tasks[self.phase][number]]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        return f"{number}: {', '.join(names[:2])}{more}"

    def perform(self, context: Context) -> JsonValue:
        """Run the task; return the counts of scenes, tiles, holes, blocks and bytes.

        Raises:
            Interrupted: the task was killed.
            PestoError: scenes failed; the others are computed.
        """
        from pesto_runtime.campaigns import count_task_tiles, process_task
        from pesto_runtime.run.records import TileObserver

        place = (self.href, self.phase, int(str(self.number)))
        progress = ChunkProgress(count_task_tiles(*place), self.log.info)
        begun = time.monotonic()
        counts = process_task(
            *place,
            watch=TileObserver(on_tile=progress.count, should_stop=lambda: self._is_stopped),
            threads=self.concurrency,
            holes=self.holes,
        )
        progress.end()
        send_counts(context, counts, time.monotonic() - begun)
        return counts

    def on_kill(self) -> None:
        """Stop before the next tile; complete blocks stay stored."""
        self._is_stopped = True


class PestoCloseCampaignOperator(CampaignOperator):
    """Close a phase of every scene that did not fail; return the task numbers of the next phase.

    Args:
        campaign: Href of the campaign's plan.
        phase: Number of the phase.
        kwargs: Arguments of every operator.
    """

    def __init__(
        self, *, campaign: str | XComArg, phase: int = 0, **kwargs: Unpack[RunArguments]
    ) -> None:
        super().__init__(campaign=campaign, **kwargs)
        self.phase = phase

    def perform(self, context: Context) -> JsonValue:
        """Close the phase; failed scenes are logged, and skipped by the next phases.

        Raises:
            PestoError: an error of a scene can be retried, and the task has a try left.
        """
        from pesto_runtime.campaigns import close_campaign_phase

        campaign = self.href
        has_tries = context["ti"].try_number <= (self.retries or 0)
        failed = close_campaign_phase(campaign, self.phase, retry=has_tries)
        for name, reason in [*failed.items()][:_MOST_NAMED]:
            self.log.warning("%s failed: %s", name, reason)
        if len(failed) > _MOST_NAMED:
            self.log.warning("and %d more scenes", len(failed) - _MOST_NAMED)
        return [*next_tasks(campaign, after=self.phase)]


class PestoPublishCampaignOperator(CampaignOperator):
    """Write the outputs of every scene that did not fail, and `campaign.json`.

    Return `{"status", "counts", "campaign", "failed", "scenes"}`: `campaign` is the href of
    `campaign.json`, `failed` are the ids of failed scenes; `scenes`, id -> outputs, is absent if it
    is beyond 4 KB.

    Args:
        campaign: Href of the campaign's plan.
        folder: Folder of the campaign.
        asset: Its event carries the href of `campaign.json`, the status and the counts.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        overviews: Whether image outputs have overviews; cloud-optimised ones always have.
        keep: Whether the run stores of complete runs are preserved.
        note_conn_id: Connection of Airflow's API server, for a note on the DAG run if a scene is
            PARTIAL or has failed.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "folder")

    def __init__(
        self,
        *,
        campaign: str | XComArg,
        folder: str | Path | XComArg,
        asset: Asset | None = None,
        as_cog: bool = False,
        overviews: bool = False,
        keep: bool = False,
        note_conn_id: str | None = None,
        **kwargs: Unpack[RunArguments],
    ) -> None:
        kwargs["outlets"] = [*(kwargs.get("outlets") or ()), *([asset] if asset else [])]
        super().__init__(campaign=campaign, **kwargs)
        self.folder = folder
        self.asset = asset
        self.as_cog = as_cog
        self.overviews = overviews
        self.keep = keep
        self.note_conn_id = note_conn_id
        self._published: list[tuple[Mapping[str, JsonValue], Mapping[str, JsonValue]]] = []

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage:  # noqa: ARG002  # OpenLineage's signature
        """Return scenes with their identities, and files with their sha256."""
        return lineage_of(self._published)

    def perform(self, context: Context) -> JsonValue:
        """Publish each scene, and emit an Asset event.

        Raises:
            InvalidInput: the folder is a relative path.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.campaigns import CAMPAIGN, publish_campaign
        from pesto_runtime.contract import ProductForm
        from pesto_runtime.run.result import RunRecord

        run, folder = context["dag_run"], require_absolute_folder("folder", str(self.folder))
        document = publish_campaign(
            self.href,
            folder,
            RunRecord(engine=engine_of(context), started=run.start_date or datetime.now(UTC)),
            form=ProductForm.of(as_cog=self.as_cog, overviews=self.overviews),
            keep=self.keep,
            on_scene=lambda name, status: self.log.info("%s: %s", name, status),
        )
        told: dict[str, JsonValue] = {
            "status": document["status"],
            "counts": document["counts"],
            "campaign": href_of(folder / CAMPAIGN),
        }
        if self.asset is not None:
            context["outlet_events"][self.asset].extra = {**told}
        if self.note_conn_id and told["status"] != "COMPLETE":
            counts = ", ".join(f"{n} {name}" for name, n in _mapping(told["counts"]).items() if n)
            text = f"{self.task_id}: {told['status']}: scenes {counts}; {told['campaign']}"
            write_note(self.note_conn_id, context, text)
        entries = _entries(document)
        failed = [name for name, entry in entries.items() if entry["status"] == "FAILED"]
        made = {name: entry for name, entry in entries.items() if name not in failed}
        self._published = [
            (_mapping(entry["inputs"]), _mapping(entry["outputs"])) for entry in made.values()
        ]
        outputs = {name: entry["outputs"] for name, entry in made.items()}
        told["failed"] = [*failed[:_MOST_NAMED]]
        if len(json.dumps(outputs)) <= MOST_BYTES:
            told["scenes"] = outputs
        return told


class PestoRequireScenesOperator(CampaignOperator):
    """Fail if a scene of a published campaign failed; the others are published.

    Args:
        campaign: Href of the campaign's plan.
        published: The result of the operator that published it; templated.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "published")

    def __init__(
        self,
        *,
        campaign: str | XComArg,
        published: Mapping[str, JsonValue] | XComArg,
        **kwargs: Unpack[RunArguments],
    ) -> None:
        super().__init__(campaign=campaign, **kwargs)
        self.published = published

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # Airflow's signature
        """Return the counts of scenes by status.

        Raises:
            RunFailed: a scene failed; with their ids.
        """
        told = self.published if isinstance(self.published, dict) else {}
        if told.get("failed"):
            raise RunFailed(
                f"scenes failed: {', '.join(map(str, told['failed']))}; all others are published. "
                f"{told['campaign']} has the reasons. Clear the failed tasks with their downstream "
                "tasks, or run the DAG again: only what is missing is computed"
            )
        return told.get("counts")


def _entries(document: Mapping[str, JsonValue]) -> dict[str, dict[str, JsonValue]]:
    """Return the scenes of a `campaign.json` by id."""
    return {
        name: entry
        for name, entry in _mapping(document["scenes"]).items()
        if isinstance(entry, dict)
    }


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}
