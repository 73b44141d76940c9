"""What a chunk keeps: compressed blocks of rasters, and partials of reduces, as they come whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from pesto_runtime.activities.assemble import Assembler, Block
from pesto_runtime.activities.callers import caller_for
from pesto_runtime.activities.context import RunContext, block_name, partial_name, spoilt_name
from pesto_runtime.activities.inputs import stage_array, tile_info
from pesto_runtime.activities.pixels import Pixels
from pesto_runtime.activities.tile import StageFailed
from pesto_runtime.activities.unfinished import keep_unfinished, unfinished_blocks
from pesto_runtime.errors import PestoError
from pesto_runtime.raster import BlockCodec
from pesto_runtime.tiling import BlockIndex, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from pesto_runtime.activities.meter import Meter
    from pesto_runtime.contract import Window
    from pesto_runtime.pipeline import BoundStage, PhaseStages


@dataclass
class Collector:
    """Takes a chunk's tiles and keeps what the run is missing of them.

    Attributes:
        context: Of the run.
        reduces: Reduces that read the phase's rasters.
        source_bands: Source -> the bands that its arrays hold; absent for all.
        missing: Raster, or reduce's id -> blocks (row, col) that the store does not have.
        assemblers: Raster -> where its tiles are put together.
        meter: Of the chunk.
        blocks: Blocks written so far.
    """

    context: RunContext
    reduces: tuple[BoundStage, ...]
    source_bands: Mapping[str, tuple[int, ...]]
    missing: Mapping[str, set[BlockIndex]]
    assemblers: Mapping[str, Assembler]
    meter: Meter
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
        meter: Meter,
    ) -> Self:
        """Look up what a chunk is missing."""
        missing = {
            raster: _missing(context, chunk, raster, f"blocks/{context.plan.keys[raster]}")
            for raster in stages.writes
        }
        for stage in stages.reduces:
            folder = f"partials/{context.plan.keys[stage.id]}"
            missing[stage.id] = _missing(context, chunk, _first_raster(stage), folder)
        wanted: dict[str, set[BlockIndex]] = {
            raster: set(missing[raster]) for raster in stages.writes
        }
        for stage in stages.reduces:
            for reference in stage.rasters.values():
                wanted.setdefault(str(reference), set()).update(missing[stage.id])
        assemblers = {name: _assembler(context, name, blocks) for name, blocks in wanted.items()}
        return cls(context, stages.reduces, source_bands, missing, assemblers, meter)

    @property
    def is_complete(self) -> bool:
        """Whether nothing was missing."""
        return not any(self.missing.values())

    def wanted(self, window: Window) -> dict[str, Window]:
        """Raster -> the window of it that a tile has to make; empty where all blocks are there.

        Args:
            window: The tile, in the grid of the scenes.
        """
        windows = {
            name: scaled_window(window, self.context.raster_type(name).scale)
            for name in self.assemblers
        }
        return {name: each for name, each in windows.items() if self.assemblers[name].wants(each)}

    def add(self, wanted: Mapping[str, Window], arrays: Mapping[str, np.ndarray]) -> None:
        """Take a tile's pixels, and keep every block that is whole now.

        Raises:
            StageFailed: a reduce failed on a block.
            ContractBroken: a raster is of another dtype than its contract says.
            StoreFailed: a block cannot be kept.
        """
        for name, window in wanted.items():
            for block in self.assemblers[name].add(window, arrays[name]):
                self._keep(name, block)

    def spoil(self, wanted: Mapping[str, Window]) -> None:
        """Take note that a tile failed: its pixels are a hole."""
        for name, window in wanted.items():
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
    window = scaled_window(chunk, context.raster_type(raster).scale)
    expected = set(blocks_touching(window))
    there = set()
    for row in {row for row, _ in expected}:
        for name in context.store.names(f"{folder}/{row}"):
            there.add((row, int(name.rpartition("/")[2])))
    return expected - there


def _assembler(context: RunContext, name: str, blocks: set[BlockIndex]) -> Assembler:
    made = context.raster_type(name)
    dtype = made.dtype[0] if len(made.dtype) == 1 else ""
    begun = unfinished_blocks(context, name, blocks)
    return Assembler(name, context.sizes[name], blocks, dtype, made.nodata, begun)
