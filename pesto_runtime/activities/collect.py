"""What a chunk keeps as it comes whole: blocks of rasters, features of blocks, partials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from pesto_runtime.activities.assemble import Block, BlockAssembler
from pesto_runtime.activities.callers import caller_for
from pesto_runtime.activities.context import (
    RunContext,
    block_name,
    feature_name,
    partial_name,
    spoilt_name,
)
from pesto_runtime.activities.gather import FeatureBlock, FeatureBlocks
from pesto_runtime.activities.inputs import stage_array, tile_info
from pesto_runtime.activities.pixels import Pixels
from pesto_runtime.activities.tile import StageFailed
from pesto_runtime.activities.unfinished import keep_unfinished, unfinished_blocks
from pesto_runtime.errors import PestoError
from pesto_runtime.pipeline import VectorType
from pesto_runtime.raster import BlockCodec
from pesto_runtime.tiling import BlockIndex, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.activities.meter import CostMeter
    from pesto_runtime.activities.tile import Made
    from pesto_runtime.contract import Window
    from pesto_runtime.pipeline import BoundStage, PhaseStages


@dataclass
class ChunkWriter:
    """Takes a chunk's tiles and keeps what the run is missing of them.

    Attributes:
        context: Of the run.
        reduces: Reduces that read the phase's rasters.
        source_bands: Source -> the bands that its arrays hold; absent for all.
        missing: Raster, vector, or reduce's id -> blocks (row, col) that the store does not have.
        assemblers: Raster -> where its tiles are put together.
        gatherers: Vector -> where the features of its tiles are put together.
        meter: Of the chunk.
        blocks: Blocks written so far.
    """

    context: RunContext
    reduces: tuple[BoundStage, ...]
    source_bands: Mapping[str, tuple[int, ...]]
    missing: Mapping[str, set[BlockIndex]]
    assemblers: Mapping[str, BlockAssembler]
    gatherers: Mapping[str, FeatureBlocks]
    meter: CostMeter
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
    ) -> Self:
        """Look up what a chunk is missing."""
        vectors = {name for name in stages.writes if isinstance(context.types[name], VectorType)}
        missing = {
            name: _missing(
                context,
                chunk,
                name,
                f"{'features' if name in vectors else 'blocks'}/{context.plan.keys[name]}",
            )
            for name in stages.writes
        }
        for stage in stages.reduces:
            folder = f"partials/{context.plan.keys[stage.id]}"
            missing[stage.id] = _missing(context, chunk, _first_raster(stage), folder)
        wanted: dict[str, set[BlockIndex]] = {
            raster: set(missing[raster]) for raster in stages.writes if raster not in vectors
        }
        for stage in stages.reduces:
            for reference in stage.rasters.values():
                wanted.setdefault(str(reference), set()).update(missing[stage.id])
        assemblers = {name: _assembler(context, name, blocks) for name, blocks in wanted.items()}
        gatherers = {
            name: FeatureBlocks(name, context.sizes[name], set(missing[name])) for name in vectors
        }
        return cls(context, stages.reduces, source_bands, missing, assemblers, gatherers, meter)

    @property
    def is_complete(self) -> bool:
        """Whether nothing was missing."""
        return not any(self.missing.values())

    def wanted(self, window: Window) -> dict[str, Window]:
        """What a tile has to make: raster or vector -> window; empty where all blocks are there.

        Args:
            window: The tile, in the grid of the scenes.
        """
        takers: dict[str, BlockAssembler | FeatureBlocks] = {**self.assemblers, **self.gatherers}
        windows = {
            name: scaled_window(window, self.context.grid_type(name).scale) for name in takers
        }
        return {name: each for name, each in windows.items() if takers[name].wants(each)}

    def add(self, wanted: Mapping[str, Window], made: Mapping[str, Made]) -> None:
        """Take a tile's pixels and features, and keep every block that is whole now.

        Raises:
            StageFailed: a reduce failed on a block.
            ContractBroken: a raster is of another dtype than its contract says.
            StoreFailed: a block cannot be kept.
        """
        for name, window in wanted.items():
            given = made[name]
            if isinstance(given, tuple):
                for gathered in self.gatherers[name].add(window, given):
                    self._keep_features(name, gathered)
                continue
            for block in self.assemblers[name].add(window, given):
                self._keep(name, block)

    def spoil(self, wanted: Mapping[str, Window]) -> None:
        """Take note that a tile failed: its pixels are a hole."""
        for name, window in wanted.items():
            if name in self.gatherers:
                for gathered in self.gatherers[name].spoil(window):
                    self._keep_features(name, gathered)
                continue
            bands = self.context.raster_type(name).bands or (None,)
            for block in self.assemblers[name].spoil(window, bands=len(bands)):
                self._keep(name, block)

    def _keep(self, name: str, block: Block) -> None:
        if block.has_hole and name in self.context.plan.keys:
            keep_unfinished(self.context, name, block)
        if block.index in self.missing.get(name, ()):
            codec = BlockCodec(block.pixels.shape[0], block.pixels.dtype.name)
            place = spoilt_name if block.has_hole else block_name
            data = codec.compress(block.pixels)
            self.context.store.put(place(self.context, name, block.index), data)
            self.blocks += not block.has_hole
        if not block.has_hole:
            for stage in self.reduces:
                self._reduce(stage, name, block)

    def _keep_features(self, name: str, block: FeatureBlock) -> None:
        place = spoilt_name if block.has_hole else feature_name
        self.context.store.put(place(self.context, name, block.index), block.encode())
        self.blocks += not block.has_hole

    def _reduce(self, stage: BoundStage, name: str, block: Block) -> None:
        """Take a reduce's partial of a block once all its rasters are there."""
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
        for port, pixels in images.items():
            inputs[port] = stage_array(self.context, stage, port, pixels)
        tile = tile_info(self.context, stage, block.window, block.window)
        caller = caller_for(self.context.plan.services[stage.stage.process])
        with self.meter.call(stage.id):
            partial = caller.partial(inputs, tile=tile)
        self.context.store.put_json(
            partial_name(self.context, stage.id, block.index), dict(partial)
        )


def _first_raster(stage: BoundStage) -> str:
    return str(next(iter(stage.rasters.values())))


def _missing(context: RunContext, chunk: Window, raster: str, folder: str) -> set[BlockIndex]:
    """Blocks of a chunk that the store has nothing of in a folder `…/ROW/COL`."""
    window = scaled_window(chunk, context.grid_type(raster).scale)
    expected = set(blocks_touching(window))
    there = set()
    for row in {row for row, _ in expected}:
        for name in context.store.names(f"{folder}/{row}"):
            there.add((row, int(name.rpartition("/")[2])))
    return expected - there


def _assembler(context: RunContext, name: str, blocks: set[BlockIndex]) -> BlockAssembler:
    made = context.raster_type(name)
    dtype = made.dtype[0] if len(made.dtype) == 1 else ""
    begun = unfinished_blocks(context, name, blocks)
    return BlockAssembler(name, context.sizes[name], blocks, dtype, made.nodata, begun)
