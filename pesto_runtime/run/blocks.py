"""Store the blocks, features and partials of a chunk once they are complete.

This file does not compute tiles.
"""

from __future__ import annotations

import io
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.errors import Damaged, PestoError
from pesto_runtime.pipeline import VectorType
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.run.assembling import Block, BlockAssembler
from pesto_runtime.run.callers import planned_caller
from pesto_runtime.run.context import (
    RunContext,
    folder_of,
    holed_name,
    missing_blocks,
    unfinished_name,
)
from pesto_runtime.run.features import FeatureBlock, FeatureBlocks
from pesto_runtime.run.inputs import Pixels, images_of, tile_info
from pesto_runtime.run.packs import PackWriter
from pesto_runtime.run.partials import PartialWriter, blocks_with_partials
from pesto_runtime.run.stage import StageFailed
from pesto_runtime.run.tile_values import partial_of, tile_index, tile_indices, windows_of_values
from pesto_runtime.tiling import BlockIndex, block_window, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pesto_runtime.pipeline import BoundStage, PhaseStages
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.run.sampling import ChunkSamples
    from pesto_runtime.run.tile import TileOutput


@dataclass
class ChunkWriter:
    """Stores the missing blocks, features and partials of a chunk.

    Attributes:
        context: The run.
        reduces: Reduces that read the phase's rasters.
        folded: Map stages with values that are folded over tiles.
        source_bands: Source -> the bands of its arrays; absent for all.
        missing: Raster, vector, or reduce's id -> blocks (row, col) that were not in the store.
        assemblers: Raster -> its block assembler.
        collectors: Vector -> its collector of features.
        partials: Reduce's id -> the writer of its partials.
        packs: Raster or vector -> the writer of its packs.
        meter: Cost of the calls of the chunk.
        samples: Collects the samples of complete blocks, for the report.
        blocks: Number of blocks stored so far.
    """

    context: RunContext
    reduces: tuple[BoundStage, ...]
    folded: tuple[BoundStage, ...]
    source_bands: Mapping[str, tuple[int, ...]]
    missing: Mapping[str, set[BlockIndex]]
    assemblers: Mapping[str, BlockAssembler]
    collectors: Mapping[str, FeatureBlocks]
    partials: Mapping[str, PartialWriter]
    packs: Mapping[str, PackWriter]
    meter: CostMeter
    samples: ChunkSamples
    blocks: int = 0
    _waiting: dict[tuple[str, BlockIndex], dict[str, Pixels]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        context: RunContext,
        stages: PhaseStages,
        chunk: Window,
        *,
        source_bands: Mapping[str, tuple[int, ...]],
        meter: CostMeter,
        samples: ChunkSamples,
    ) -> Self:
        """Create the writer of a chunk; finds what the run store lacks of it."""
        vectors = {name for name in stages.writes if isinstance(context.types[name], VectorType)}
        missing = {
            name: set(missing_blocks(context, name, window=_window(context, chunk, name)))
            for name in stages.writes
        }
        for stage in stages.reduces:
            expected = set(blocks_touching(_window(context, chunk, _first_raster(stage))))
            missing[stage.id] = expected - blocks_with_partials(context, stage.id, expected)
        for stage in stages.folded:
            tiles = tile_indices(context, stage.id, [chunk])
            missing[stage.id] = tiles - blocks_with_partials(context, stage.id, tiles)
        wanted: dict[str, set[BlockIndex]] = {
            raster: set(missing[raster]) for raster in stages.writes if raster not in vectors
        }
        for stage in stages.reduces:
            for reference in stage.rasters.values():
                wanted.setdefault(str(reference), set()).update(missing[stage.id])
        assemblers = {name: _assembler(context, name, blocks) for name, blocks in wanted.items()}
        collectors = {
            name: FeatureBlocks(name, context.sizes[name], set(missing[name])) for name in vectors
        }
        folding = (*stages.folded, *stages.reduces)
        partials = {stage.id: PartialWriter(context, stage) for stage in folding}
        packs = {
            name: PackWriter(context.store, folder_of(context, name)) for name in stages.writes
        }
        return cls(
            context, stages.reduces, stages.folded, source_bands, missing, assemblers, collectors,
            partials, packs, meter, samples,
        )  # fmt: skip

    @property
    def is_complete(self) -> bool:
        """Whether the store had all objects of the chunk before."""
        return not any(self.missing.values())

    def wanted(self, window: Window) -> dict[str, Window]:
        """Return raster or vector -> window that a tile must compute; empty if none is missing.

        A stage whose values of the tile are missing is there by its id.

        Args:
            window: The tile, in the grid of the scenes.
        """
        parts: dict[str, BlockAssembler | FeatureBlocks] = {**self.assemblers, **self.collectors}
        windows = {
            name: scaled_window(window, self.context.grid_type(name).scale) for name in parts
        }
        found = {name: each for name, each in windows.items() if parts[name].wants(each)}
        lacking = [s for s in self.folded if tile_index(window) in self.missing[s.id]]
        return found | windows_of_values(self.context, lacking, window)

    def add(self, wanted: Mapping[str, Window], results: Mapping[str, TileOutput]) -> None:
        """Add the pixels and features of a tile; blocks that are now complete go into a pack.

        Raises:
            StageFailed: a reduce failed on a block.
            ContractBroken: a raster does not have the required dtype.
            StoreFailed: a block cannot be stored.
        """
        for name, window in _gridded(wanted, self.context):
            result = results[name]
            if isinstance(result, tuple):
                for features in self.collectors[name].add(window, result):
                    self._store_features(name, features)
                continue
            for block in self.assemblers[name].add(window, result):
                self._store(name, block)

    def add_values(self, tile: Window, values: Mapping[str, object]) -> None:
        """Add the values of a tile that are folded.

        Args:
            tile: The tile, in the grid of its phase.
            values: `$stage.port` -> value of every JSON output.

        Raises:
            ContractBroken: a value cannot be folded with that of another tile.
            StoreFailed: the store cannot be written.
        """
        for stage in self.folded:
            if tile_index(tile) in self.missing[stage.id]:
                self.partials[stage.id].add(tile_index(tile), partial_of(stage, values))

    def restore(self, name: str, block: Block, data: bytes | None) -> None:
        """Take a complete block of a cache, as if its tiles had been computed.

        Args:
            name: The raster.
            block: The block.
            data: Its compressed bytes; None to compress it.

        Raises:
            StageFailed: a reduce failed on the block.
            StoreFailed: the block cannot be stored.
        """
        self.assemblers[name].wanted.discard(block.index)
        self._store(name, block, data)
        if name in self.missing:
            self.missing[name].discard(block.index)

    def add_hole(self, wanted: Mapping[str, Window]) -> None:
        """Add a failed tile: its pixels are a hole."""
        for name, window in _gridded(wanted, self.context):
            if name in self.collectors:
                for features in self.collectors[name].add_hole(window):
                    self._store_features(name, features)
                continue
            bands = self.context.raster_type(name).bands or (None,)
            for block in self.assemblers[name].add_hole(window, bands=len(bands)):
                self._store(name, block)

    def flush(self) -> None:
        """Store the blocks and partials that are still collected.

        Raises:
            StoreFailed: the store cannot be written.
        """
        with ExitStack() as left:
            for pack in self.packs.values():
                left.callback(pack.discard)  # of what one that fails leaves behind it
            for pack in self.packs.values():
                pack.flush()
        for partials in self.partials.values():
            partials.flush()

    def _store(self, name: str, block: Block, data: bytes | None = None) -> None:
        if block.has_hole and name in self.context.plan.keys:
            # With its pixels, the next attempt computes the failed tile alone, not the whole block.
            save_unfinished(self.context, name, block)
        if block.index in self.missing.get(name, ()):
            codec = BlockCodec(
                block.pixels.shape[0], block.pixels.dtype.name, self.context.plan.compression
            )
            self._put(name, block, data or codec.compress(block.pixels))
        if not block.has_hole:
            self.samples.add(name, block.window, block.pixels)
            for stage in self.reduces:
                self._reduce(stage, name, block)

    def _store_features(self, name: str, block: FeatureBlock) -> None:
        self._put(name, block, block.encode())

    def _put(self, name: str, block: Block | FeatureBlock, data: bytes) -> None:
        """Store a block; one with a hole has its own object, which the next attempt replaces."""
        if block.has_hole:
            self.context.store.put(holed_name(self.context, name, block.index), data)
            return
        self.packs[name].add(block.index, data)
        self.blocks += 1

    def _reduce(self, stage: BoundStage, name: str, block: Block) -> None:
        """Compute a reduce's partial of a block once all rasters of the reduce have the block."""
        if block.index not in self.missing[stage.id]:
            return
        ports = [port for port, reference in stage.rasters.items() if str(reference) == name]
        waiting = self._waiting.setdefault((stage.id, block.index), {})
        pixels = Pixels(block.window, block.pixels, self.source_bands.get(name))
        waiting.update(dict.fromkeys(ports, pixels))
        if len(waiting) == len(stage.rasters):
            del self._waiting[stage.id, block.index]
            try:
                self._put_partial(stage, block, waiting)
            except PestoError as error:
                raise StageFailed(stage.id, error) from error

    def _put_partial(self, stage: BoundStage, block: Block, images: Mapping[str, Pixels]) -> None:
        inputs: dict[str, object] = dict(self.context.parameters(stage))
        for image in images_of(self.context, stage):
            inputs[image.port] = image.array(images[image.port])
        tile = tile_info(self.context, stage, block.window, block.window)
        caller = planned_caller(self.context.plan, stage.stage.process)
        with self.meter.call(stage.id):
            partial = caller.partial(inputs, tile=tile)
        self.partials[stage.id].add(block.index, partial)


def save_unfinished(context: RunContext, raster: str, block: Block) -> None:
    """Store the pixels of a block and the windows of its holes, for the next attempt.

    Raises:
        StoreFailed: the store cannot be written.
    """
    data = io.BytesIO()
    # Not in the order in which threads failed: the same holes are the same bytes.
    ordered = sorted(block.holes, key=lambda window: (window.row_off, window.col_off))
    holes = np.array([list(window) for window in ordered])
    np.savez_compressed(data, pixels=block.pixels, holes=holes)
    context.store.put(unfinished_name(context, raster, block.index), data.getvalue())


def unfinished_blocks(
    context: RunContext, raster: str, indices: Iterable[BlockIndex]
) -> dict[BlockIndex, Block]:
    """Load the blocks (row, col) of an earlier attempt that have holes; only these are missing.

    Raises:
        StoreFailed: the store does not respond.
    """
    if raster not in context.plan.keys:  # a scene: a run does not store its pixels
        return {}
    stored = set(context.store.names(f"unfinished/{context.plan.keys[raster]}"))
    found = {}
    for index in indices:
        name = unfinished_name(context, raster, index)
        if name in stored:
            with suppress(Damaged):  # then all of its tiles are computed again
                found[index] = _loaded(context, raster, index, context.store.get(name))
    return found


def _loaded(context: RunContext, raster: str, index: BlockIndex, data: bytes) -> Block:
    with np.load(io.BytesIO(data)) as stored:
        holes = tuple(Window(*map(int, window)) for window in stored["holes"])
        return Block(index, block_window(index, context.sizes[raster]), stored["pixels"], holes)


def _gridded(wanted: Mapping[str, Window], context: RunContext) -> list[tuple[str, Window]]:
    """Return the rasters and vectors that a tile computes, without stages for their values."""
    return [each for each in wanted.items() if each[0] not in context.stages]


def _first_raster(stage: BoundStage) -> str:
    return str(next(iter(stage.rasters.values())))


def _window(context: RunContext, chunk: Window, name: str) -> Window:
    """Return the pixels of a raster or a vector in a chunk."""
    return scaled_window(chunk, context.grid_type(name).scale)


def _assembler(context: RunContext, name: str, blocks: set[BlockIndex]) -> BlockAssembler:
    planned = context.raster_type(name)
    dtype = planned.dtype[0] if len(planned.dtype) == 1 else ""
    unfinished = unfinished_blocks(context, name, blocks)
    return BlockAssembler(name, context.sizes[name], blocks, dtype, planned.nodata, unfinished)
