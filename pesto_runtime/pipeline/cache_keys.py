"""Find the keys under which the blocks of a run are in a cache, where other runs find them.

A block in a run store has a key of the scenes with their windows. In a cache, the key of a movable
raster has no window, so that runs over overlapping windows share its blocks. This file is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.contract import CachePlace, Selection
from pesto_runtime.pipeline.phases import phases_of
from pesto_runtime.pipeline.plan import value_keys
from pesto_runtime.pipeline.types import RasterType, VectorType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pesto_runtime.contract import Pipeline, Plan, Scene
    from pesto_runtime.pipeline.check import Checked
    from pesto_runtime.pipeline.phases import PhaseStages


def cache_place(
    href: str,
    plan: Plan,
    pipeline: Pipeline,
    checked: Checked,
    *,
    contents: Mapping[str, str],
    placeless: Collection[str],
) -> CachePlace:
    """Return the cache of a run with the key of each value that is cached.

    Values of scenes without identity, and of services that do not state their code, are not cached:
    an equal key would not mean equal pixels.

    Args:
        href: Base href of the cache.
        plan: The plan.
        pipeline: Its pipeline.
        checked: The check of the pipeline with the scenes of the plan.
        contents: Image input -> digest of some of its bytes, part of the keys: on two machines,
            files of one path, size, time and inode may differ.
        placeless: Processes that do not receive the place of their pixels in the scene.
    """
    if not all(scene.identity for scene in plan.scenes.values()):
        return CachePlace(href=href, keys={})
    unknown = {n for n, each in plan.services.items() if each.is_remote and not each.states_code}
    tainted: set[str] = set()
    for stage in checked.stages:
        owners = {each.owner for each in (*stage.rasters.values(), *stage.values.values())}
        if stage.stage.process in unknown or owners & tainted:
            tainted.add(stage.id)
    scenes = {
        name: scene.model_copy(update={"identity": f"{scene.identity} {contents.get(name, '')}"})
        for name, scene in plan.scenes.items()
    }
    own, shared = (
        value_keys(
            checked.stages,
            plan.services,
            scenes=each,
            parameters=plan.parameters,
            run_id=plan.run,
            compression=plan.compression,
        )
        for each in (scenes, _without_windows(scenes))
    )
    keys = {stage.id: own[stage.id] for stage in checked.stages if stage.id not in tainted}
    movable: list[str] = []
    # Windows of scenes of several resolutions, or on other grids, are not moved by the same pixels.
    kinds = [checked.types[f"$inputs.{name}"] for name in scenes]
    is_plain = all(isinstance(k, RasterType) and k.scale.is_one and not k.grid for k in kinds)
    for phase in phases_of(checked.stages, pipeline.outputs.values()):
        is_movable = is_plain and _is_movable(phase, placeless)
        for name in phase.writes:
            kind = checked.types[name]
            if name[1:].partition(".")[0] in tainted or not _is_known(kind):
                continue
            if is_movable and isinstance(kind, RasterType):
                movable.append(name)
            keys[name] = (shared if name in movable else own)[name]
    return CachePlace(href=href, keys=keys, movable=tuple(movable))


def _is_movable(phase: PhaseStages, placeless: Collection[str]) -> bool:
    """Whether pixels of a phase depend on nothing but the pixels within the margins around them."""
    values = [each for stage in phase.stages for each in stage.values.values()]
    return (
        phase.kind == "map"
        and all(name.startswith("$inputs.") for name in phase.sources)
        and all(each.is_input for each in values)
        and all(stage.stage.process in placeless for stage in phase.stages)
        and not any(stage.is_warp for stage in phase.stages)
    )


def _is_known(kind: object) -> bool:
    """Whether the form of a block is known: any vector; a raster with known bands and dtype."""
    if isinstance(kind, RasterType):
        return kind.bands is not None and len(kind.dtype) == 1
    return isinstance(kind, VectorType)


def _without_windows(scenes: Mapping[str, Scene]) -> dict[str, Scene]:
    """Return scenes without their windows; with the offset of each from the first, if any."""
    found: dict[str, Scene] = {}
    first = scene_origin(next(iter(scenes.values()))) if scenes else (0, 0)
    for name, scene in scenes.items():
        col, row = scene_origin(scene)
        offset = (col - first[0], row - first[1])
        chosen = (scene.selection or Selection()).model_copy(
            # No window that a user can write: it is only a part of a key.
            update={"window": (*offset, 0, 0) if offset != (0, 0) else None}
        )
        is_all = chosen == Selection()
        found[name] = scene.model_copy(update={"selection": None if is_all else chosen})
    return found


def scene_origin(scene: Scene) -> tuple[int, int]:
    """Return the first column and row of a scene in its raster."""
    window = scene.selection.window if scene.selection else None
    return (window.col_off, window.row_off) if window else (0, 0)
