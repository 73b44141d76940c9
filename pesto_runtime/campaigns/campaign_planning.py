"""Plan a campaign: plan each scene, and share the chunks of all scenes among few tasks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.campaigns.campaign_plan import (
    Campaign,
    ScenePart,
    SceneRun,
    campaign_folder,
    save_campaign,
)
from pesto_runtime.campaigns.campaign_result import complete_scenes
from pesto_runtime.campaigns.scene_plans import LOCK_WAIT_S, PlanPacks, folders_in
from pesto_runtime.contract import ProductForm
from pesto_runtime.errors import InvalidPipeline, PestoError
from pesto_runtime.places import href_of
from pesto_runtime.run.context import begin_run
from pesto_runtime.run.ownership import claim
from pesto_runtime.run.planning import check_pipeline, count_tiles, require_patience
from pesto_runtime.run.publishing import finished_result
from pesto_runtime.run.scene_planner import ScenePlanner
from pesto_runtime.run.workspace import locked_workspace, run_store
from pesto_runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pesto_runtime.campaigns.scene_lists import SceneInputs
    from pesto_runtime.contract import Pipeline, Plan, ReportForm
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.planning import Planned
    from pesto_runtime.run.services import Services

T = TypeVar("T")

_CLAIMS = 4
_MOST_CLAIMS = 32
"""Scenes whose folders are being claimed; each has its plan in memory."""


@dataclass(frozen=True)
class CampaignSettings:
    """What is the same for every scene of a campaign.

    Attributes:
        folder: Folder of the campaign; each scene has a folder in it.
        sizing: Limits for the sizes of tiles, chunks and tasks.
        member: The engine's id of the campaign, by which its tasks share the folders.
        store: Base href of the run stores; None for those in the output folders.
        patience_s: Seconds to wait for a service that restarts or does not respond.
        report: What `report.html` of a scene has of the products.
        compress: Codec and level of image outputs.
        cache: Path or href of a cache of blocks, which runs share; None for none.
        form: Form of image outputs.
        take_over: Whether folders are taken from runs that still own them.
        replace: Whether finished results of another pipeline or scene are overwritten.
        fresh: Whether scenes that are complete are computed again.
        only_failed: Whether the scenes that `campaign.json` has as COMPLETE are left as they are,
            without a look at them.
    """

    folder: AnyPath
    sizing: Sizing
    member: str
    store: str | None = None
    patience_s: float = 60.0
    report: ReportForm = "links"
    compress: str = "deflate"
    cache: str | None = None
    form: ProductForm = ProductForm.TIF
    take_over: bool = False
    replace: bool = False
    fresh: bool = False
    only_failed: bool = False


@dataclass(frozen=True)
class _PlannedScene:
    """What the tasks of a campaign need of a scene's plan; the plan itself is in the store.

    Attributes:
        number: Place of the scene in the campaign.
        source: Folder or bucket prefix of its first image.
        chunks: Phase -> pixels of each of its chunks.
        seconds: Phase -> its estimated time.
    """

    number: int
    source: str
    chunks: tuple[tuple[int, ...], ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, number: int, planned: Planned) -> _PlannedScene:
        """Return the part of a plan that is kept."""
        first = next(iter(planned.plan.scenes.values()), None)
        return cls(
            number,
            first.href.rpartition("/")[0] if first else "",
            tuple(tuple(w.width * w.height for w in p.chunks) for p in planned.plan.phases),
            tuple(each.seconds for each in planned.estimates),
        )


def plan_campaign(
    pipeline: Pipeline,
    services: Services,
    scenes: Sequence[SceneInputs],
    settings: CampaignSettings,
    *,
    warn: Callable[[str], None] = lambda _: None,
    accept: Callable[[Plan], Sequence[str]] = lambda _: (),
    expect: Callable[[Planned], None] = lambda _: None,
) -> str:
    """Plan every scene, and the campaign; return the href of its plan.

    A scene that cannot be planned is recorded, and does not stop the others. A scene whose outputs
    an earlier run of the same key has made is complete, and has no tasks.

    Args:
        pipeline: The pipeline.
        services: The services of its processes.
        scenes: The scenes.
        settings: What is the same for all of them.
        warn: Receives the warnings, with the id of a scene before them.
        accept: Returns warnings about the plan of a scene; an error of it ends the campaign.
        expect: Receives the plan of each scene that is not complete yet.

    Raises:
        InvalidPipeline: the pipeline does not check, whatever the scene; with every error.
        InvalidInput: the patience is no number of seconds.
        StoreFailed: the store cannot be written.
    """
    require_patience(settings.patience_s)
    checked = check_pipeline(pipeline, services)
    checked.require(pipeline.name)
    planner = ScenePlanner(
        pipeline, services, settings.sizing, patience_s=settings.patience_s,
        report=settings.report, compress=settings.compress, cache=settings.cache,
    )  # fmt: skip
    done = complete_scenes(settings.folder, pipeline.name) if settings.only_failed else {}
    store = open_store(run_store(settings.folder, settings.store))
    folder = href_of(settings.folder)
    own = campaign_folder(pipeline.name, folder, (each.id for each in scenes))
    packs = PlanPacks(store, own)
    runs: list[SceneRun] = []
    plans: list[_PlannedScene] = []
    with ThreadPoolExecutor(_CLAIMS, "pesto-claim") as pool:
        folders = _Folders(settings, packs, pool)

        def begin(scene: SceneInputs) -> tuple[Planned | None, Callable[[], SceneRun]]:
            """Plan a scene, and claim its folder."""
            run = SceneRun(id=scene.id, folder=href_of(settings.folder / scene.id))
            if scene.id in done:
                found = run.model_copy(update={"is_complete": True, "bbox": done[scene.id]})
                return None, lambda: found
            planned = _planned_or_error(planner, scene, settings)
            if isinstance(planned, str):
                failed = run.model_copy(update={"error": planned})
                return None, lambda: failed
            for warning in (*accept(planned.plan), *planned.plan.warnings):
                warn(f"{scene.id}: {warning}")
            return planned, folders.claim(run, planned.plan)

        for number, (planned, claimed) in enumerate(_ahead(map(begin, scenes))):
            runs.append(claimed())
            if runs[-1].plan and planned:
                expect(planned)
                plans.append(_PlannedScene.of(number, planned))
    plans.sort(key=lambda each: each.source)  # a task reads scenes of one place
    count = len(plans[0].chunks) if plans else 0
    campaign = Campaign(
        pipeline=pipeline.name,
        folder=folder,
        report=settings.report,
        member=settings.member,
        packs=packs.finish(),
        scenes=tuple(runs),
        tasks=tuple(_tasks(plans, phase, settings.sizing) for phase in range(count)),
    )
    return save_campaign(campaign, store, own)


class _Folders:
    """Claims the folders of scenes; those that do not exist are left to the first task.

    Args:
        settings: The settings of the campaign.
        packs: Keeps the plans of scenes without a folder.
        pool: Threads that claim the others: they wait for the store.
    """

    def __init__(
        self, settings: CampaignSettings, packs: PlanPacks, pool: ThreadPoolExecutor
    ) -> None:
        self._settings, self._packs, self._pool = settings, packs, pool
        # Only of a store in the folder of the scene, whoever begins its run sees the folder.
        self._known = None if settings.store else folders_in(settings.folder)

    def claim(self, run: SceneRun, planned: Plan) -> Callable[[], SceneRun]:
        """Claim the folder of a scene; the result waits for it."""
        if self._known is None or run.id in self._known:
            context = copy_context()
            return self._pool.submit(context.run, _claimed, run, planned, self._settings).result
        href, place = self._packs.add(planned)
        tiles = sum(map(count_tiles, planned.phases))
        found = {"plan": href, "packed": place, "tiles": tiles, "bbox": _bounds(planned)}
        packed = run.model_copy(update=found)
        return lambda: packed


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items in their order, while the next ones are made."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _MOST_CLAIMS:
            yield waiting.popleft()
    yield from waiting


def _planned_or_error(
    planner: ScenePlanner, scene: SceneInputs, settings: CampaignSettings
) -> Planned | str:
    """Return the plan of a scene, or why it has none."""
    folder = settings.folder / scene.id
    try:
        inputs = planner.read_inputs(scene.inputs)
        return planner.plan(inputs, store=run_store(folder, settings.store), folder=folder)
    except InvalidPipeline as error:
        return f"{error.detail}: {error.fields[0]}" if error.fields else error.detail
    except PestoError as error:
        return error.detail


def _bounds(planned: Plan) -> tuple[float, float, float, float] | None:
    """Return the bounds of the first scene in degrees, if they are known."""
    from pesto_runtime.raster.place import lonlat_of

    first = next(iter(planned.scenes.values()), None)
    return lonlat_of(first) if first else None


def _claimed(run: SceneRun, planned: Plan, settings: CampaignSettings) -> SceneRun:
    """Claim the folder of a scene, and store its plan, unless its outputs are there already."""
    folder = settings.folder / run.id
    run = run.model_copy(update={"bbox": _bounds(planned)})
    try:
        with locked_workspace(folder, run=planned.run, patience_s=LOCK_WAIT_S):
            if not settings.fresh and finished_result(folder, planned.run, form=settings.form):
                return run.model_copy(update={"is_complete": True})
            joins = claim(
                folder,
                planned,
                member=settings.member,
                take_over=settings.take_over,
                replace=settings.replace,
            )
            href, tiles = begin_run(planned, joins=joins), sum(map(count_tiles, planned.phases))
            return run.model_copy(update={"plan": href, "tiles": tiles})
    except PestoError as error:
        return run.model_copy(update={"error": error.detail})


def _tasks(
    plans: Sequence[_PlannedScene], phase: int, sizing: Sizing
) -> tuple[tuple[ScenePart, ...], ...]:
    """Divide the chunks of a phase among tasks of about as many pixels, scene after scene.

    Small scenes share a task, large ones have many; scenes of one place stay together.
    """
    chunks = [
        (scene.number, number, pixels)
        for scene in plans
        for number, pixels in enumerate(scene.chunks[phase])
    ]
    seconds = sum(scene.seconds[phase] for scene in plans)
    count = min(len(chunks), sizing.chunk_count(seconds))
    whole = sum(pixels for *_, pixels in chunks)
    tasks: list[list[ScenePart]] = [[] for _ in range(count)]
    before = 0
    for scene, number, pixels in chunks:
        task = tasks[(2 * before + pixels) * count // (2 * whole)]  # by the middle of the chunk
        if task and task[-1].scene == scene and task[-1].stop == number:
            task[-1] = task[-1]._replace(stop=number + 1)
        else:
            task.append(ScenePart(scene, number, number + 1))
        before += pixels
    return tuple(tuple(task) for task in tasks if task)
