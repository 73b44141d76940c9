"""How far a run is, read off its store alone: any process can tell, and none has to remember."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.activities.context import raster_name, scalars_name
from pesto_runtime.contract import parse_binding
from pesto_runtime.tiling import blocks_of

if TYPE_CHECKING:
    from pesto_runtime.activities.context import RunContext
    from pesto_runtime.tiling import BlockIndex


def blocks_there(context: RunContext, raster: str) -> set[BlockIndex]:
    """The blocks (row, col) of a raster that are kept and have no hole."""
    folder = f"blocks/{context.plan.keys[raster]}"
    return {_index(name) for name in context.store.names(folder)}


def blocks_missing(context: RunContext, raster: str) -> tuple[BlockIndex, ...]:
    """The blocks (row, col) of a raster that are not, row-major."""
    there = blocks_there(context, raster)
    return tuple(index for index in blocks_of(context.sizes[raster]) if index not in there)


def is_blocked(context: RunContext, number: int) -> bool:
    """Whether a phase cannot begin: what it reads of earlier ones has holes, or was not made."""
    if not number:
        return False
    phase = context.phases[number]
    made = set(context.store.names("rasters"))
    sources = [name for name in phase.sources if not _is_input(name)]
    if any(raster_name(context, name) not in made for name in sources):
        return True
    kept = set(context.store.names("scalars"))
    members = (*phase.stages, *phase.reduces)
    values = [each for stage in members for each in stage.values.values() if not each.is_input]
    return any(scalars_name(context, each.owner) not in kept for each in values)


def unmade_stages(context: RunContext) -> frozenset[str]:
    """Ids of the stages that made nothing, as what they read has holes."""
    kept = set(context.store.names("scalars"))
    found: set[str] = set()
    for number, phase in enumerate(context.phases):
        if is_blocked(context, number):
            found.update(stage.id for stage in (*phase.stages, *phase.reduces))
        ends = phase.stages if phase.kind == "call" else phase.reduces
        found.update(stage.id for stage in ends if scalars_name(context, stage.id) not in kept)
    return frozenset(found)


def _is_input(name: str) -> bool:
    reference = parse_binding(name)
    return reference is not None and reference.is_input


def _index(name: str) -> BlockIndex:
    row, col = name.rsplit("/", 2)[1:]
    return (int(row), int(col))
