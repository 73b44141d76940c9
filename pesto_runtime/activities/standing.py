"""How far a run is, read off its store alone: any process can tell, and none has to remember."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.activities.context import raster_name, scalars_name, vector_name
from pesto_runtime.contract import parse_binding
from pesto_runtime.pipeline import VectorType
from pesto_runtime.tiling import blocks_of

if TYPE_CHECKING:
    from pesto_runtime.activities.context import RunContext
    from pesto_runtime.tiling import BlockIndex

_KEPT = ("rasters", "scalars", "vectors")


def blocks_there(context: RunContext, name: str) -> set[BlockIndex]:
    """The blocks (row, col) of a raster or a vector that are kept and have no hole."""
    folder = "features" if isinstance(context.types[name], VectorType) else "blocks"
    return {_index(each) for each in context.store.names(f"{folder}/{context.plan.keys[name]}")}


def blocks_missing(context: RunContext, name: str) -> tuple[BlockIndex, ...]:
    """The blocks (row, col) of a raster or a vector that are not, row-major."""
    there = blocks_there(context, name)
    return tuple(index for index in blocks_of(context.sizes[name]) if index not in there)


def is_blocked(context: RunContext, number: int) -> bool:
    """Whether a phase cannot begin: what it reads of earlier ones has holes, or was not made."""
    if not number:
        return False
    phase = context.phases[number]
    kept = {name for folder in _KEPT for name in context.store.names(folder)}
    sources = [name for name in phase.sources if not _is_input(name)]
    members = (*phase.stages, *phase.reduces)
    values = [each for stage in members for each in stage.values.values() if not each.is_input]
    needed = [_grid_name(context, name) for name in sources]
    needed += [
        scalars_name(context, each.owner) for each in values if str(each) not in phase.sources
    ]
    return not kept.issuperset(needed)


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


def _grid_name(context: RunContext, name: str) -> str:
    """Where what a later phase reads is kept, once it is whole."""
    is_vector = isinstance(context.types[name], VectorType)
    return vector_name(context, name) if is_vector else raster_name(context, name)


def _is_input(name: str) -> bool:
    reference = parse_binding(name)
    return reference is not None and reference.is_input


def _index(name: str) -> BlockIndex:
    row, col = name.rsplit("/", 2)[1:]
    return (int(row), int(col))
