"""Geometry of tiles: pure integers, no pixels."""

from __future__ import annotations

from pesto_runtime.tiling.chain import (
    Chain,
    Step,
    StepWindows,
    TileWindows,
    read_window,
    source_window,
)
from pesto_runtime.tiling.grid import (
    BlockIndex,
    Size,
    block_count,
    block_window,
    blocks_of,
    blocks_touching,
    chunk_quantum,
    chunks_of,
    covering_window,
    scaled_size,
    scaled_window,
    tile_count,
    tile_quantum,
    tiles_of,
    whole,
)
from pesto_runtime.tiling.sample_grid import SampleGrid

__all__ = [
    "BlockIndex",
    "Chain",
    "SampleGrid",
    "Size",
    "Step",
    "StepWindows",
    "TileWindows",
    "block_count",
    "block_window",
    "blocks_of",
    "blocks_touching",
    "chunk_quantum",
    "chunks_of",
    "covering_window",
    "read_window",
    "scaled_size",
    "scaled_window",
    "source_window",
    "tile_count",
    "tile_quantum",
    "tiles_of",
    "whole",
]
