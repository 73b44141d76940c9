"""Find the tiles of stages with values that are folded over tiles, by the block that each begins.

Such a phase has tiles of whole blocks, so a tile is known by its first block. Partials of tiles are
stored and folded as those of reduces are (`run/partials.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.contract import BLOCK, Scale
from pesto_runtime.pipeline import image_scale
from pesto_runtime.processor import encode_value
from pesto_runtime.run.context import grid_of
from pesto_runtime.tiling import blocks_of, scaled_window, tiles_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pesto_runtime.contract import Window
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.tiling import BlockIndex


def tile_index(tile: Window) -> BlockIndex:
    """Return the block (row, col) of the phase's grid that a tile begins."""
    return (tile.row_off // BLOCK, tile.col_off // BLOCK)


def tile_indices(
    context: RunContext, stage_id: str, chunks: Iterable[Window] | None = None
) -> set[BlockIndex]:
    """Return the first block (row, col) of each tile of a stage's phase.

    Args:
        context: The run.
        stage_id: Id of a stage with folded values.
        chunks: The chunks whose tiles count; None for all.
    """
    number = next(n for n, phase in enumerate(context.phases)
                  if stage_id in {stage.id for stage in phase.folded})  # fmt: skip
    phase = context.plan.phases[number]
    found = phase.chunks if chunks is None else chunks
    return {tile_index(tile) for chunk in found for tile in tiles_of(chunk, phase.tile)}


def partial_indices(context: RunContext, stage_id: str) -> set[BlockIndex]:
    """Return the blocks (row, col) that have a partial of a stage: those of tiles, or all."""
    if context.stages[stage_id].is_folded:
        return tile_indices(context, stage_id)
    return set(blocks_of(context.sizes[grid_of(context, stage_id)]))


def stage_scale(context: RunContext, stage: BoundStage) -> Scale:
    """Return the pixels of a stage's grid per pixel of the grid that tiles divide."""
    port, reference = next(iter(stage.rasters.items()))
    return context.raster_type(str(reference)).scale / stage.description.ratio(port)


def values_scale(context: RunContext, stage: BoundStage) -> Scale:
    """Return the scale of a stage's outputs, whether or not it has an image among them."""
    return stage_scale(context, stage) * image_scale(stage.description)


def windows_of_values(
    context: RunContext, stages: Iterable[BoundStage], tile: Window
) -> dict[str, Window]:
    """Return id of a stage with folded values -> the tile in the grid of its outputs."""
    return {
        stage.id: scaled_window(tile, values_scale(context, stage))
        for stage in stages
        if stage.is_folded
    }


def partial_of(stage: BoundStage, values: Mapping[str, object]) -> dict[str, object]:
    """Return the folded values of one tile as JSON.

    Args:
        stage: The stage.
        values: `$stage.port` -> value of every JSON output of the tile.
    """
    return {
        port: encode_value(port, values.get(stage.reference(port)))
        for port in stage.description.folds
    }
