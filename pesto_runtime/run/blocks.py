"""What a chunk keeps as it comes whole: blocks of rasters, features of blocks, partials."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.errors import ContractBroken, PestoError
from pesto_runtime.pipeline import VectorType
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.run.callers import caller_for
from pesto_runtime.run.context import (
    RunContext,
    block_name,
    feature_name,
    partial_name,
    spoilt_name,
)
from pesto_runtime.run.features import FeatureBlock, FeatureBlocks
from pesto_runtime.run.inputs import Pixels, stage_array, tile_info
from pesto_runtime.run.tile import StageFailed
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pesto_runtime.pipeline import BoundStage, PhaseStages
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.run.tile import Made


@dataclass
class Block:
    """A block that is being put together.

    Attributes:
        index: (row, col) in its raster's grid.
        window: Its pixels.
        pixels: Array (band, row, col).
        lacking: Windows that have no pixels yet; they do not overlap.
        spoilt: Windows of tiles that failed.
    """

    index: BlockIndex
    window: Window
    pixels: np.ndarray
    lacking: tuple[Window, ...]
    spoilt: tuple[Window, ...] = ()

    @property
    def has_hole(self) -> bool:
        """Whether a tile of it failed."""
        return bool(self.spoilt)

    def lacks(self, window: Window) -> bool:
        """Whether a window holds pixels that are not there yet."""
        return any(window.intersection(each).pixels for each in self.lacking)

    def fill(self, window: Window) -> None:
        """Take note that a window has its pixels now."""
        self.lacking = tuple(
            rest for each in self.lacking for rest in without(each, window.intersection(each))
        )


@dataclass
class BlockAssembler:
    """Blocks of one raster within one chunk.

    Attributes:
        name: The raster's reference.
        size: Width and height of its grid.
        wanted: Blocks to put together; pixels of others are let go.
        dtype: What the contract says; empty where it says nothing.
        nodata: What a hole is filled with; None fills it with 0, and such a block is never kept.
        begun: Blocks that an earlier attempt left with holes: only these are lacking.
    """

    name: str
    size: Size
    wanted: set[BlockIndex]
    dtype: str
    nodata: float | None
    begun: Mapping[BlockIndex, Block] = field(default_factory=dict)
    _open: dict[BlockIndex, Block] = field(default_factory=dict)

    def wants(self, window: Window) -> bool:
        """Whether any block that is still wanted lacks a pixel in the window."""
        return any(
            index in self.wanted and (index not in self.begun or self.begun[index].lacks(window))
            for index in blocks_touching(window)
        )

    def add(self, window: Window, pixels: np.ndarray) -> Iterator[Block]:
        """Write a tile's pixels (band, row, col), and yield the blocks that became whole.

        Raises:
            ContractBroken: the pixels are of another dtype than the contract's.
        """
        if self.dtype and pixels.dtype.name != self.dtype:
            raise ContractBroken(
                f"{self.name} must be {self.dtype} (as the image that its process was given, "
                f"where its contract does not say), got {pixels.dtype.name}"
            )
        for block, part in self._parts(window, pixels.shape[0], pixels.dtype):
            source = part.relative_to(window)
            block.pixels[(slice(None), *part.relative_to(block.window).slices)] = pixels[
                (slice(None), *source.slices)
            ]
            yield from self._written(block, part)

    def spoil(self, window: Window, *, bands: int) -> Iterator[Block]:
        """Fill a failed tile's pixels with nodata, and yield the blocks that became whole."""
        fill = 0 if self.nodata is None else self.nodata
        for block, part in self._parts(window, bands, np.dtype(self.dtype or "uint8")):
            hole = tuple(each for lack in block.lacking if (each := part.intersection(lack)).pixels)
            for each in hole:
                block.pixels[(slice(None), *each.relative_to(block.window).slices)] = fill
            block.spoilt += hole
            yield from self._written(block, part)

    def _parts(self, window: Window, bands: int, dtype: np.dtype) -> Iterator[tuple[Block, Window]]:
        for index in blocks_touching(window):
            if index not in self.wanted:
                continue
            block = self._open.get(index)
            if block is None:
                place = block_window(index, self.size)
                pixels = np.empty((bands, place.height, place.width), dtype)
                block = self.begun.get(index) or Block(index, place, pixels, (place,))
                self._open[index] = block
            yield block, block.window.intersection(window)

    def _written(self, block: Block, part: Window) -> Iterator[Block]:
        block.fill(part)
        if not block.lacking:
            del self._open[block.index]
            self.wanted.discard(block.index)
            yield block


def without(window: Window, hole: Window) -> Iterator[Window]:
    """The parts of a window around a hole inside it: above, left, right and below.

    >>> [list(part) for part in without(Window(0, 0, 4, 4), Window(1, 1, 2, 2))]
    [[0, 0, 4, 1], [0, 1, 1, 2], [3, 1, 1, 2], [0, 3, 4, 1]]
    """
    if not hole.pixels:
        yield window
        return
    around = (
        (window.col_off, window.row_off, window.col_stop, hole.row_off),
        (window.col_off, hole.row_off, hole.col_off, hole.row_stop),
        (hole.col_stop, hole.row_off, window.col_stop, hole.row_stop),
        (window.col_off, hole.row_stop, window.col_stop, window.row_stop),
    )
    for left, top, right, bottom in around:
        if right > left and bottom > top:
            yield Window(left, top, right - left, bottom - top)


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
