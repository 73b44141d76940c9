"""Blocks that have a hole, kept so that asking again costs the failed tiles and no others."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.activities.assemble import Block
from pesto_runtime.contract import Window
from pesto_runtime.tiling import block_window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pesto_runtime.activities.context import RunContext
    from pesto_runtime.tiling import BlockIndex


def keep_unfinished(context: RunContext, raster: str, block: Block) -> None:
    """Keep a block's pixels, and the windows of its holes.

    Raises:
        StoreFailed: the store cannot be written.
    """
    kept = io.BytesIO()
    holes = np.array([list(window) for window in block.spoilt])
    np.savez_compressed(kept, pixels=block.pixels, holes=holes)
    context.store.put(_name(context, raster, block.index), kept.getvalue())


def unfinished_blocks(
    context: RunContext, raster: str, indices: Iterable[BlockIndex]
) -> dict[BlockIndex, Block]:
    """The blocks (row, col) that an earlier attempt left with holes; these alone are lacking."""
    if raster not in context.plan.keys:  # a scene: nobody makes its pixels
        return {}
    there = set(context.store.names(f"unfinished/{context.plan.keys[raster]}"))
    return {
        index: _read(context, raster, index)
        for index in indices
        if _name(context, raster, index) in there
    }


def _read(context: RunContext, raster: str, index: BlockIndex) -> Block:
    with np.load(io.BytesIO(context.store.get(_name(context, raster, index)))) as kept:
        holes = tuple(Window(*map(int, window)) for window in kept["holes"])
        return Block(index, block_window(index, context.sizes[raster]), kept["pixels"], holes)


def _name(context: RunContext, raster: str, index: BlockIndex) -> str:
    return f"unfinished/{context.plan.keys[raster]}/{index[0]}/{index[1]}"
