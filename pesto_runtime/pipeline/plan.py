"""Make the plan of a run from a checked pipeline and its scenes: phases, chunks, tiles, keys.

Pure: no pixels, no store, no clock.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from pesto_runtime.contract import (
    PRODUCT_FORMAT,
    Compression,
    Phase,
    Pipeline,
    Plan,
    Reference,
    Scale,
    Scene,
    Service,
)
from pesto_runtime.errors import GridMismatch, InvalidInput
from pesto_runtime.pipeline.phases import PhaseStages, phases_of, steps_of
from pesto_runtime.pipeline.sizing import Sizing, phase_cost, tile_size
from pesto_runtime.pipeline.types import JsonType, RasterType, ValueType
from pesto_runtime.tiling import Chain, Size, chunk_quantum, chunks_of, scaled_size, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.pipeline.check import Checked
    from pesto_runtime.pipeline.types import BoundStage

_SAME_PIXEL = 1e-3  # pixels


def make_plan(  # noqa: PLR0913  # the parts of a plan
    pipeline: Pipeline,
    checked: Checked,
    services: Mapping[str, Service],
    *,
    scenes: Mapping[str, Scene],
    parameters: Mapping[str, JsonValue],
    store: str,
    sizing: Sizing,
    run_id: str,
    compression: Compression = Compression(),
) -> Plan:
    """Plan a run.

    Args:
        pipeline: The pipeline to run.
        checked: The result of `check` with these scenes.
        services: Process name -> its service.
        scenes: Image inputs.
        parameters: Other inputs.
        store: Base href of the run store.
        sizing: Workers, memory and limits; decides cost, never bytes.
        run_id: An id that no other run has; part of the keys of scenes without identity.
        compression: Codec and level of blocks; part of their keys.

    Raises:
        InvalidPipeline: the check found errors.
        GridMismatch: the scenes are not on one grid.
        InvalidInput: no tile fits into the memory.
    """
    checked.require(pipeline.name)
    sizes = grid_sizes(scenes, checked.types)
    _require_one_grid(checked, sizes)
    keys = value_keys(
        checked.stages,
        services,
        scenes=scenes,
        parameters=parameters,
        run_id=run_id,
        compression=compression,
    )
    remote = {name for name, service in services.items() if service.is_remote}
    return Plan(
        run=run_key(pipeline.outputs, keys),
        pipeline=pipeline.to_json(),
        scenes=dict(scenes),
        parameters=dict(parameters),
        services={s.stage.process: services[s.stage.process] for s in checked.stages},
        keys=keys,
        phases=tuple(
            _planned_phase(stages, checked.types, sizes, sizing=sizing, remote=remote)
            for stages in phases_of(checked.stages, pipeline.outputs.values())
        ),
        store=store,
        compress=str(compression),
    )


def grid_sizes(scenes: Mapping[str, Scene], types: Mapping[str, ValueType]) -> dict[str, Size]:
    """Return width and height of each grid, from its first scene; (0, 0) without scenes.

    Args:
        scenes: Image inputs.
        types: Reference -> type; those of the scenes state their grids and scales.

    Raises:
        GridMismatch: two scenes of a grid differ in CRS, or not by their ratio in size and place;
            names both, and the difference.
    """
    found: dict[str, Size] = {"": (0, 0)}
    firsts: dict[str, tuple[str, Scale]] = {}
    for name, scene in scenes.items():
        own = types[str(Reference(owner="inputs", port=name))]
        if not isinstance(own, RasterType):
            continue
        if own.grid not in firsts:
            firsts[own.grid] = (name, own.scale)
            found[own.grid] = scaled_size((scene.width, scene.height), Scale() / own.scale)
        first_name, scale = firsts[own.grid]
        _require_same_grid((first_name, scenes[first_name]), (name, scene), own.scale / scale)
    return found


def _require_same_grid(one: tuple[str, Scene], other: tuple[str, Scene], ratio: Scale) -> None:
    (first_name, first), (name, scene) = one, other
    wanted = rescaled_scene(first, ratio)
    differences = [*_differing_facts(wanted, scene), *_differing_places(wanted, scene)]
    if not differences:
        return
    needs = ""
    if not ratio.is_one:
        needs = (
            f", where {ratio.to_json()} pixels of {name!r} are needed per pixel of {first_name!r}"
        )
    raise GridMismatch(
        f"inputs {first_name!r} ({first.href}) and {name!r} ({scene.href}) are on different "
        f"grids{needs}: {'; '.join(differences)}; resample one onto the other's grid"
    )


def rescaled_scene(scene: Scene, ratio: Scale) -> Scene:
    """Return a scene with `ratio` pixels per pixel, which has its place.

    Raises:
        GridMismatch: its size is no multiple of the pixels that become one.
    """
    if ratio.is_one:
        return scene
    width, height = scene.width * ratio.x, scene.height * ratio.y
    if width.denominator != 1 or height.denominator != 1:
        raise GridMismatch(
            f"{scene.href} has {scene.width} x {scene.height} pixels, which are no multiple of "
            f"{(Scale() / ratio).to_json()}: cut it by a window whose size is one"
        )
    transform = scene.transform
    if transform is not None:
        across, down = float(ratio.x), float(ratio.y)
        a, b, c, d, e, f = transform
        transform = (a / across, b / down, c, d / across, e / down, f)
    return scene.model_copy(
        update={"width": int(width), "height": int(height), "transform": transform}
    )


def raster_sizes(types: Mapping[str, ValueType], sizes: Mapping[str, Size]) -> dict[str, Size]:
    """Return width and height of every raster and vector.

    Args:
        types: Reference -> type.
        sizes: Grid -> width and height.
    """
    return {
        name: scaled_size(sizes.get(each.grid, (0, 0)), each.scale)
        for name, each in types.items()
        if not isinstance(each, JsonType)
    }


def phase_chain(
    stages: PhaseStages, types: Mapping[str, ValueType], sizes: Mapping[str, Size]
) -> Chain:
    """Return the geometry of a map phase.

    Args:
        stages: The phase.
        types: Reference -> type.
        sizes: Raster or vector -> width and height.
    """
    rasters = [name for name in stages.sources if isinstance(types[name], RasterType)]
    return Chain.over({name: sizes[name] for name in rasters}, steps_of(stages.stages))


def _require_one_grid(checked: Checked, sizes: Mapping[str, Size]) -> None:
    """Require scene sizes from which all stages compute the same grid for a raster.

    Raises:
        GridMismatch: a stage scales up a raster after an earlier one dropped incomplete pixels.
    """
    of_rasters = raster_sizes(checked.types, sizes)
    for stage in checked.stages:
        for step in steps_of([stage]) if stage.rasters else ():
            own = of_rasters[step.reads[0]]
            own = scaled_size(own, Scale() / step.ratios[0]) if step.ratios else own
            expected = scaled_size(own, step.scale)
            for name in step.makes:
                size = sizes[stage.grid]
                if of_rasters[name] != expected:
                    raise GridMismatch(
                        f"{name} would be {expected[0]} x {expected[1]} pixels where its scale "
                        f"requires {of_rasters[name][0]} x {of_rasters[name][1]}: a stage before "
                        f"{stage.id!r} drops "
                        f"incomplete pixels of the {size[0]} x {size[1]} scene, and this one "
                        "scales up again; crop the scene to a multiple of that scale"
                    )


def _planned_phase(
    stages: PhaseStages,
    types: Mapping[str, ValueType],
    sizes: Mapping[str, Size],
    *,
    sizing: Sizing,
    remote: set[str],
) -> Phase:
    size = sizes.get(stages.grid, (0, 0))
    phase = Phase(
        kind=stages.kind,
        stages=tuple(stage.id for stage in stages.stages),
        reduces=tuple(stage.id for stage in stages.reduces),
        sources=stages.sources,
        writes=stages.writes,
        size=size,
    )
    if stages.kind == "call":
        return phase
    chain = phase_chain(stages, types, raster_sizes(types, sizes))
    _require_windows(chain)
    if stages.kind == "whole":
        return phase.model_copy(update={"tile": size, "chunks": (whole(size),)})
    cost = phase_cost(stages, types, size, remote=remote)
    gridded = [each for name in chain.sizes if not isinstance(each := types[name], JsonType)]
    quantum = chunk_quantum([each.scale for each in gridded])
    chunks = chunks_of(size, quantum=quantum, at_most=sizing.chunk_count(cost.seconds))
    tile = tile_size(stages, chain, cost, chunks, types=types, sizing=sizing)
    # A tile never exceeds its chunk; the plan states the size that is really used.
    widest = (max(chunk.width for chunk in chunks), max(chunk.height for chunk in chunks))
    tile = (min(tile[0], widest[0]), min(tile[1], widest[1]))
    return phase.model_copy(update={"tile": tile, "chunks": chunks})


def _require_windows(chain: Chain) -> None:
    """Require images that are large enough for the smallest window of each step.

    Raises:
        InvalidInput: one is too small, and its contract does not say how it is filled.
    """
    for step in chain.steps:
        grid = chain.grid(step)
        extent = step.extent(grid)
        fixed = step.is_fixed and step.least > 1
        if min(extent[2:]) < step.least or (fixed and any(n % step.align for n in extent[2:])):
            raise InvalidInput(
                f"stage {step.name!r} takes {step.least} x {step.least} pixels"
                f"{f' at multiples of {step.align}' if step.align > 1 else ''}, and its images of "
                f"{grid[0]} x {grid[1]} pixels have no such window: declare `fill` at its image "
                "inputs ('reflect', 'edge' or a number), which extends them"
            )


def _differing_facts(first: Scene, second: Scene) -> list[str]:
    pairs = (
        ("width", first.width, second.width),
        ("height", first.height, second.height),
        ("CRS", first.crs, second.crs),
    )
    return [f"{fact} {a} against {b}" for fact, a, b in pairs if a != b]


def _differing_places(first: Scene, second: Scene) -> list[str]:
    """Return the differences of two affine transforms, in pixels of the first."""
    a, b = first.transform, second.transform
    if a is None or b is None:
        return [] if a == b else ["only one of them has a transform"]
    # A difference in pixel size counts by how far it moves the last pixel of the grid.
    differences = []
    if any(abs(a[i] - b[i]) * max(first.width, first.height) > abs(a[0] or a[1]) * _SAME_PIXEL
           for i in (0, 1, 3, 4)):  # fmt: skip
        differences.append(f"pixels of {a[0]:g} x {a[4]:g} against {b[0]:g} x {b[4]:g}")
    across, down = (b[2] - a[2]) / (a[0] or 1), (b[5] - a[5]) / (a[4] or 1)
    if max(abs(across), abs(down)) > _SAME_PIXEL:
        differences.append(f"origins {across:g} columns and {down:g} rows apart")
    return differences


def value_keys(
    stages: Iterable[BoundStage],
    services: Mapping[str, Service],
    *,
    scenes: Mapping[str, Scene],
    parameters: Mapping[str, JsonValue],
    run_id: str,
    compression: Compression,
) -> dict[str, str]:
    """Return the key of every input, every stage (by id) and every output (by reference).

    All are known before the run, because each follows from build, contract and inputs alone. A
    scene without identity has a key of this run only: a later run may read another scene there.
    """
    keys: dict[str, str] = {}
    for name, scene in scenes.items():
        part = [scene.selection.model_dump(mode="json")] if scene.selection else []
        keys[str(Reference(owner="inputs", port=name))] = _hash(
            scene.href, scene.identity or run_id, *part
        )
    for name, value in parameters.items():
        keys[str(Reference(owner="inputs", port=name))] = _hash(value)
    for stage in stages:
        bound = {**stage.rasters, **stage.values}
        inputs = {port: keys[str(reference)] for port, reference in bound.items()}
        keys[stage.id] = _hash(
            PRODUCT_FORMAT,
            str(compression),
            services[stage.stage.process].build,
            stage.description.digest,
            inputs,
            dict(stage.literals),
        )
        for port in stage.makes:
            keys[stage.reference(port)] = _hash(keys[stage.id], port)
    return keys


def run_key(outputs: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """Return the key of a whole run, from the keys of its outputs by name."""
    return _hash({name: keys[reference] for name, reference in outputs.items()})


def _hash(*parts: JsonValue | dict[str, str]) -> str:
    # Equal values must have equal text, also if their keys were written in another order.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
