"""Run a campaign from this process: threads share the tasks of a phase."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pesto_runtime.campaigns.campaign_plan import CampaignRecords, load_campaign
from pesto_runtime.campaigns.campaign_planning import CampaignSettings, plan_campaign
from pesto_runtime.campaigns.campaign_result import publish_campaign
from pesto_runtime.campaigns.campaign_tasks import close_campaign_phase, process_task
from pesto_runtime.campaigns.scene_lists import read_scenes
from pesto_runtime.contract.prices import SpendingLimits
from pesto_runtime.errors import Interrupted, InvalidInput, LimitReached, PestoError
from pesto_runtime.pipeline import completed
from pesto_runtime.places import output_place
from pesto_runtime.run.callers import close_callers
from pesto_runtime.run.local import sizing_of
from pesto_runtime.run.readers import decoded_blocks
from pesto_runtime.run.records import TileObserver, TileRecord
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.spending import SpendingMeter, remote_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.run.planning import Planned

_POLL_S = 0.1


@dataclass(frozen=True)
class CampaignEngine:
    """Runs a pipeline over many scenes.

    Attributes:
        scenes: As for `read_scenes`.
        only_failed: Whether the scenes that `campaign.json` has as COMPLETE are left alone.
    """

    scenes: Sequence[JsonValue]
    only_failed: bool = False

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run a pipeline over the scenes; return the content of `campaign.json`.

        The same call again computes what is missing, and leaves complete scenes as they are. At a
        limit of the request, it publishes the scenes that are complete; others are STOPPED.

        Args:
            request: The request for a run; its folder has a folder for each scene, its inputs are
                the same for all of them.
            watcher: Receives the progress in tiles.

        Raises:
            InvalidInput: the list of scenes is wrong, or the request asks for worker processes.
            InvalidPipeline: the pipeline does not check, whatever the scene; with every error.
            Interrupted: stopped by Ctrl-C; the same call goes on.
            PestoError: a store cannot be written. Errors of scenes are in the result.
        """
        if request.executor != "threads":
            raise InvalidInput(f"executor {request.executor!r}: a campaign runs in threads")
        pipeline, folder = request.pipeline, output_place(request.folder)
        services = resolve_services(
            pipeline, base=request.base, options=request.services, catalog=request.catalog
        )
        typed = completed(pipeline, services.descriptions)
        listed = read_scenes(self.scenes, typed, common=request.inputs)
        record = RunRecord(
            engine={"name": "local", "run": uuid.uuid4().hex[:12], "workers": request.workers},
            ends_with_process=True,
        )
        settings = CampaignSettings(
            folder=folder,
            sizing=sizing_of(
                workers=request.workers, tile=request.tile, max_tasks=request.max_tasks
            ),
            member=record.member,
            store=request.store,
            patience_s=request.patience_s,
            report=request.report,
            compress=request.compress,
            cache=request.cache,
            form=request.form,
            take_over=request.take_over,
            replace=request.replace,
            fresh=request.fresh,
            only_failed=self.only_failed,
        )
        meter = SpendingMeter(
            request.limits or SpendingLimits(), workers=request.workers,
            published="of scenes that are not complete, nothing",
        )  # fmt: skip

        def expect(planned: Planned) -> None:
            bytes_read = remote_bytes(planned.plan, planned.estimates[0])
            meter.expect(remote_bytes=bytes_read, end_s=planned.publish_seconds)

        href = plan_campaign(pipeline, services, listed, settings, warn=watcher.warn, expect=expect)
        try:
            limit = _Driver(href, request.workers, watcher, meter).run()
            return publish_campaign(
                href, folder, record, form=request.form, keep=request.keep, limit=limit
            )
        finally:
            close_callers()
            decoded_blocks.clear()


class _Driver:
    """The phases of a campaign while they run."""

    def __init__(
        self, href: str, workers: int, watcher: ProgressListener, meter: SpendingMeter
    ) -> None:
        self._href, self._workers, self._watcher, self._meter = href, workers, watcher, meter
        self._campaign = load_campaign(href)
        self._records: list[TileRecord] = []
        self._stopped = threading.Event()

    def run(self) -> LimitReached | None:
        """Run every phase; return the limit at which they were stopped, if any."""
        total = sum(scene.tiles for scene in self._campaign.scenes)
        self._watcher.begin(total)
        self._meter.begin(total)
        limit = None
        for phase, tasks in enumerate(self._campaign.tasks):
            if limit is None:
                try:
                    self._run_tasks(phase, len(tasks))
                except LimitReached as error:
                    limit = error
            close_campaign_phase(self._href, phase)  # scenes whose tasks have all ended go on
        return limit

    def _run_tasks(self, phase: int, count: int) -> None:
        if count:
            self._meter.require_more()  # planning may have taken all of the time
        executor = ThreadPoolExecutor(self._workers, thread_name_prefix="pesto")
        waiting = {executor.submit(self._run_task, phase, task) for task in range(count)}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                self._report()
                if waiting:
                    self._meter.require_more()
                for future in done:
                    future.result()
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted; the same command goes on") from error
        finally:
            if waiting:
                self._stopped.set()
            executor.shutdown(cancel_futures=True)
            self._report()

    def _run_task(self, phase: int, task: int) -> None:
        watch = TileObserver(self._records.append, self._stopped.is_set)
        # No other worker runs the task, so its record may be written although it has not ended.
        ended = partial(CampaignRecords(self._href).end_task, phase, task)
        try:
            process_task(
                self._href, phase, task, watch=watch, threads=1, holes="keep", on_stop=ended
            )
        except Interrupted:
            raise
        except PestoError:
            return  # recorded: its scenes are listed as failed

    def _report(self) -> None:
        seconds = [record.seconds for record in self._records]
        del self._records[: len(seconds)]
        self._meter.add(seconds)
        self._watcher.advance(len(seconds))
