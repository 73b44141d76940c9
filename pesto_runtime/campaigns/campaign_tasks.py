"""Run the tasks of a campaign: the chunks of several scenes, and the end of a phase of all scenes.

A scene that fails does not stop the others: its error is recorded, and the task fails at its end.
A task that runs again computes only what is missing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from pesto_runtime.campaigns.campaign_plan import CampaignRecords, load_campaign
from pesto_runtime.campaigns.scene_plans import begin_scene, is_published, planned_scene
from pesto_runtime.contract import Chunk
from pesto_runtime.errors import Interrupted, PestoError
from pesto_runtime.run.chunk import process, tiles_at_once
from pesto_runtime.run.closing import close_phase
from pesto_runtime.tiling import tile_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.campaigns.campaign_plan import Campaign
    from pesto_runtime.contract import ChunkResult
    from pesto_runtime.run.records import TileObserver

STOPPED = "was stopped before all of its tiles were done"
"""Recorded for a scene of a task that was stopped."""
_MOST_NAMED = 10


def count_task_tiles(href: str, phase: int, task: int) -> int:
    """Return the number of tiles of a task.

    Raises:
        NotFound: there is no such campaign.
    """
    campaign, tiles = load_campaign(href), 0
    for part in campaign.tasks[phase][task]:
        plan = planned_scene(campaign, campaign.scenes[part.scene])
        if plan:
            planned = plan.phases[phase]
            chunks = planned.chunks[part.start : part.stop]
            tiles += sum(tile_count(each, planned.tile) for each in chunks)
    return tiles


def process_task(
    href: str,
    phase: int,
    task: int,
    *,
    watch: TileObserver | None = None,
    threads: int | None = None,
    holes: Literal["keep", "fail"] = "fail",
    failures: Literal["raise", "raise-retryable", "count"] = "raise",
    on_stop: Callable[[dict[str, str]], None] = lambda _reasons: None,
) -> dict[str, JsonValue]:
    """Run the chunks of a task, scene after scene; return counts of scenes, tiles, holes, blocks.

    Args:
        href: Href of the campaign's plan.
        phase: Number of the phase.
        task: Number of the task in its phase.
        watch: Receives the state of each tile, and can stop the task.
        threads: Number of tiles at once; None for what its processes allow.
        holes: `keep` records a tile that failed finally as a hole; with `fail` its scene fails.
        failures: Which errors of scenes are raised at the end; others are counted as `failed`.
        on_stop: Receives the scenes that are not done, with reasons, of a task that is stopped.

    Raises:
        NotFound: there is no such campaign.
        Interrupted: `watch` stopped it; complete blocks are stored.
        PestoError: scenes failed, all others are done; one that can be retried, if there is one.
    """
    campaign, records = load_campaign(href), CampaignRecords(href)
    lost = records.failed_before(phase)
    counts: Counter[str] = Counter(scenes=0)
    failed: dict[str, PestoError] = {}
    parts = campaign.tasks[phase][task]
    for number, part in enumerate(parts):
        scene = campaign.scenes[part.scene]
        if scene.id in lost:
            continue
        chunk = Chunk(plan=scene.plan, phase=phase, start=part.start, stop=part.stop)
        try:
            context = begin_scene(campaign, scene)
            if context:
                at_once = threads or tiles_at_once(context, phase)
                counts.update(_counts(process(chunk, watch=watch, threads=at_once, holes=holes)))
        except Interrupted:
            undone = {campaign.scenes[each.scene].id: STOPPED for each in parts[number:]}
            on_stop({**undone, **_reasons(failed)})
            raise
        except PestoError as error:
            failed[scene.id] = error
    records.end_task(phase, task, _reasons(failed))
    can_help = any(error.retryable for error in failed.values())
    if failures == "raise" or (failures == "raise-retryable" and can_help):
        _raise_any(failed)
    return {**counts, **({"failed": len(failed)} if failed else {})}


def _counts(done: ChunkResult) -> Counter[str]:
    named = done.model_dump(exclude={"manifest"}).items()
    return Counter(scenes=1, **{name: each for name, each in named if isinstance(each, int)})


def close_campaign_phase(href: str, phase: int, *, retry: bool = False) -> dict[str, str]:
    """Close a phase of every scene; return the scenes that failed so far: id -> reason.

    Args:
        href: Href of the campaign's plan.
        phase: Number of the phase.
        retry: Whether the caller closes the phase again after an error that can be retried; such
            an error is then raised, after all other scenes have been closed.

    Raises:
        NotFound: there is no such campaign.
        StoreFailed: the records cannot be written.
        PestoError: `retry` is set, and an error of one or more scenes can be retried.
    """
    campaign, records = load_campaign(href), CampaignRecords(href)
    failed = {**records.failed_before(phase), **_failed_tasks(campaign, records, phase)}
    errors: dict[str, PestoError] = {}
    for scene in campaign.scenes:
        if scene.plan and scene.id not in failed:
            try:
                if begin_scene(campaign, scene):
                    close_phase(scene.plan, phase)
            except Interrupted:
                raise
            except PestoError as error:
                errors[scene.id] = error
    failed |= _reasons(errors)
    records.close_phase(phase, failed)
    if retry and any(error.retryable for error in errors.values()):
        _raise_any(errors)
    return failed


def _failed_tasks(campaign: Campaign, records: CampaignRecords, phase: int) -> dict[str, str]:
    """Return the scenes of which a task failed, or did not end: id -> reason."""
    failed: dict[str, str] = {}
    # The records of tasks are deleted with it; what the other start has published is done.
    are_deleted = records.are_deleted
    for number, parts in enumerate(campaign.tasks[phase] if campaign.tasks else ()):
        found = records.of_task(phase, number)
        if found is None:
            scenes = [campaign.scenes[part.scene] for part in parts]
            names = {each.id for each in scenes if not (are_deleted and is_published(each))}
            found = dict.fromkeys(names, f"task {number} of phase {phase} has not ended")
        failed |= found
    return failed


def stopped_scenes(href: str) -> set[str]:
    """Return the ids of scenes with chunks that no task has ended, and of which none failed.

    Args:
        href: Href of the plan of a campaign that was stopped.
    """
    campaign, records = load_campaign(href), CampaignRecords(href)
    stopped: set[str] = set()
    failed: set[str] = set()
    for phase, tasks in enumerate(campaign.tasks):
        for number, parts in enumerate(tasks):
            names = {campaign.scenes[part.scene].id for part in parts}
            ended = records.of_task(phase, number)
            reasons = dict.fromkeys(names, STOPPED) if ended is None else ended
            stopped |= {name for name, reason in reasons.items() if reason == STOPPED}
            failed |= {name for name, reason in reasons.items() if reason != STOPPED}
    return stopped - failed


def _reasons(errors: Mapping[str, PestoError]) -> dict[str, str]:
    return {name: error.detail for name, error in errors.items()}


def _raise_any(failed: Mapping[str, PestoError]) -> None:
    """Raise one error for all failed scenes: one that can be retried, if there is one."""
    if not failed:
        return
    first = next((each for each in failed.values() if each.retryable), next(iter(failed.values())))
    lines = [f"\n  {name}: {error.detail}" for name, error in failed.items()]
    more = f"\n  and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
    plural = "scene" if len(failed) == 1 else "scenes"
    error = type(first)(
        f"{len(failed)} {plural} failed; all others are done:{''.join(lines[:_MOST_NAMED])}{more}",
        retry_after_s=first.retry_after_s,
    )
    error.retryable = first.retryable  # type: ignore[misc]  # as an error of one scene may overrule
    raise error
