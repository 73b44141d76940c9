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
    Grid,
    Phase,
    Pipeline,
    Plan,
    Reference,
    Scale,
    Scene,
    Service,
)
from pesto_runtime.errors import GridMismatch, InvalidInput
from pesto_runtime.pipeline.phases import PhaseStages, grids_of, phases_of, steps_of
from pesto_runtime.pipeline.scene_grids import NO_GRID, base_grids, raster_sizes
from pesto_runtime.pipeline.sizing import Sizing, block_tiles, phase_cost, tile_size
from pesto_runtime.pipeline.types import RasterType, ValueType, VectorType
from pesto_runtime.tiling import Chain, Size, chunk_quantum, chunks_of, scaled_size, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.pipeline.check import Checked
    from pesto_runtime.pipeline.types import BoundStage


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
    grids: Mapping[str, Grid] = {},
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
        grids: Image of a warp that states its own grid -> that grid.

    Raises:
        InvalidPipeline: the check found errors.
        GridMismatch: the scenes are not on one grid.
        InvalidInput: no tile fits into the memory.
    """
    checked.require(pipeline.name)
    bases = base_grids(scenes, checked.types, grids)
    _require_one_grid(checked, bases)
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
            _planned_phase(stages, checked.types, bases, sizing=sizing, remote=remote)
            for stages in phases_of(checked.stages, pipeline.outputs.values())
        ),
        store=store,
        compress=str(compression),
        grids=dict(grids),
    )


def phase_chain(
    stages: PhaseStages, types: Mapping[str, ValueType], sizes: Mapping[str, Size]
) -> Chain:
    """Return the geometry of a map phase.

    Args:
        stages: The phase.
        types: Reference -> type.
        sizes: Raster or vector -> width and height.
    """
    read = {name for stage in (*stages.stages, *stages.reduces) if not stage.is_warp
            for name in map(str, stage.rasters.values())}  # fmt: skip
    sources = [name for name in stages.sources if name in read]
    # A warp reads windows of another grid: to the chain, its image comes from nowhere.
    sources += [stage.reference("image") for stage in stages.stages if stage.is_warp]
    rasters = {name: sizes[name] for name in sources if isinstance(types[name], RasterType)}
    return Chain.over(rasters, steps_of(stages.stages))


def _require_one_grid(checked: Checked, bases: Mapping[str, Grid]) -> None:
    """Require scene sizes from which all stages compute the same grid for a raster.

    Raises:
        GridMismatch: a stage scales up a raster after an earlier one dropped incomplete pixels.
    """
    of_rasters = raster_sizes(checked.types, bases)
    for stage in checked.stages:
        for step in steps_of([stage]) if stage.rasters and not stage.is_warp else ():
            own = of_rasters[step.reads[0]]
            own = scaled_size(own, Scale() / step.ratios[0]) if step.ratios else own
            expected = scaled_size(own, step.scale)
            for name in grids_of(stage):
                base = bases[stage.grid]
                if of_rasters[name] != expected:
                    raise GridMismatch(
                        f"{name} would be {expected[0]} x {expected[1]} pixels where its scale "
                        f"requires {of_rasters[name][0]} x {of_rasters[name][1]}: a stage before "
                        f"{stage.id!r} drops "
                        f"incomplete pixels of the {base.width} x {base.height} scene, and this "
                        "one scales up again; crop the scene to a multiple of that scale"
                    )


def _planned_phase(
    stages: PhaseStages,
    types: Mapping[str, ValueType],
    bases: Mapping[str, Grid],
    *,
    sizing: Sizing,
    remote: set[str],
) -> Phase:
    base = bases.get(stages.grid, NO_GRID)
    size = (base.width, base.height)
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
    chain = phase_chain(stages, types, raster_sizes(types, bases))
    _require_windows(chain)
    if stages.kind == "whole":
        return phase.model_copy(update={"tile": size, "chunks": (whole(size),)})
    cost = phase_cost(stages, types, size, remote=remote)
    gridded = [
        each
        for name in chain.sizes
        if isinstance(each := types.get(name), (RasterType, VectorType))
    ]
    quantum = chunk_quantum([each.scale for each in gridded])
    chunks = chunks_of(size, quantum=quantum, at_most=sizing.chunk_count(cost.seconds))
    if stages.folded:  # values of tiles must not depend on the size of tiles
        sizing = block_tiles(stages, sizing)
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
