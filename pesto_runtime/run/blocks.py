"""Store the blocks, features and partials of a chunk, each as soon as it is complete.

Tiles have any size, and blocks have a fixed one: this file assembles tiles into blocks. It does not
compute tiles.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.errors import ContractBroken, Damaged, PestoError
from pesto_runtime.pipeline import VectorType
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.run.callers import planned_caller
from pesto_runtime.run.context import (
    RunContext,
    block_name,
    feature_name,
    holed_name,
    partial_name,
    unfinished_name,
)
from pesto_runtime.run.features import FeatureBlock, FeatureBlocks
from pesto_runtime.run.inputs import Pixels, stage_array, tile_info
from pesto_runtime.run.tile import StageFailed
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pesto_runtime.pipeline import BoundStage, PhaseStages
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.run.sampling import ChunkSamples
    from pesto_runtime.run.tile import TileOutput


@dataclass
class Block:
    """A block during its assembly.

    Attributes:
        index: (row, col) in its raster's grid.
        window: Its pixels.
        pixels: Array (band, row, col).
        missing: Windows without pixels so far; they do not overlap.
        holes: Windows of tiles that failed.
    """

    index: BlockIndex
    window: Window
    pixels: np.ndarray
    missing: tuple[Window, ...]
    holes: tuple[Window, ...] = ()

    @property
    def has_hole(self) -> bool:
        """Whether a tile of it failed."""
        return bool(self.holes)

    def lacks(self, window: Window) -> bool:
        """Whether pixels of a window are missing."""
        return any(window.intersection(each).pixels for each in self.missing)

    def fill(self, window: Window) -> None:
        """Record that a window has its pixels."""
        self.missing = tuple(
            rest for each in self.missing for rest in without(each, window.intersection(each))
        )


@dataclass
class BlockAssembler:
    """Assembles the blocks of one raster in one chunk.

    Attributes:
        name: The raster's reference.
        size: Width and height of its grid.
        wanted: Blocks to assemble; pixels of other blocks are dropped.
        dtype: The dtype that the plan requires; empty if it is not known.
        nodata: Fill value of holes; with None they are 0, and such a block is never published.
        unfinished: Blocks of an earlier attempt with holes: only the holes are missing.
    """

    name: str
    size: Size
    wanted: set[BlockIndex]
    dtype: str
    nodata: float | None
    unfinished: Mapping[BlockIndex, Block] = field(default_factory=dict)
    _open: dict[BlockIndex, Block] = field(default_factory=dict)

    def wants(self, window: Window) -> bool:
        """Whether a wanted block lacks a pixel in the window."""
        return any(
            index in self.wanted
            and (index not in self.unfinished or self.unfinished[index].lacks(window))
            for index in blocks_touching(window)
        )

    def add(self, window: Window, pixels: np.ndarray) -> Iterator[Block]:
        """Copy a tile's pixels (band, row, col) into blocks, and yield the complete blocks.

        Raises:
            ContractBroken: the pixels do not have the required dtype.
        """
        if self.dtype and pixels.dtype.name != self.dtype:
            raise ContractBroken(
                f"{self.name} must be {self.dtype} (an undeclared dtype is that of the stage's "
                f"first image), got {pixels.dtype.name}"
            )
        for block, part in self._parts(window, pixels.shape[0], pixels.dtype):
            source = part.relative_to(window)
            block.pixels[(slice(None), *part.relative_to(block.window).slices)] = pixels[
                (slice(None), *source.slices)
            ]
            yield from self._completed(block, part)

    def add_hole(self, window: Window, *, bands: int) -> Iterator[Block]:
        """Fill a failed tile's pixels with nodata, and yield the complete blocks."""
        fill = 0 if self.nodata is None else self.nodata
        for block, part in self._parts(window, bands, np.dtype(self.dtype or "uint8")):
            hole = tuple(each for gap in block.missing if (each := part.intersection(gap)).pixels)
            for each in hole:
                block.pixels[(slice(None), *each.relative_to(block.window).slices)] = fill
            block.holes += hole
            yield from self._completed(block, part)

    def _parts(self, window: Window, bands: int, dtype: np.dtype) -> Iterator[tuple[Block, Window]]:
        for index in blocks_touching(window):
            if index not in self.wanted:
                continue
            block = self._open.get(index)
            if block is None:
                place = block_window(index, self.size)
                # Not zeroed: a block leaves only when every pixel is written or filled as a hole.
                pixels = np.empty((bands, place.height, place.width), dtype)
                block = self.unfinished.get(index) or Block(index, place, pixels, (place,))
                self._open[index] = block
            yield block, block.window.intersection(window)

    def _completed(self, block: Block, part: Window) -> Iterator[Block]:
        block.fill(part)
        if not block.missing:
            del self._open[block.index]
            self.wanted.discard(block.index)
            yield block


def without(window: Window, hole: Window) -> Iterator[Window]:
    """Yield the parts of a window around a hole inside it: above, left, right and below.

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
    """Stores the missing blocks, features and partials of a chunk.

    Attributes:
        context: The run.
        reduces: Reduces that read the phase's rasters.
        source_bands: Source -> the bands of its arrays; absent for all.
        missing: Raster, vector, or reduce's id -> blocks (row, col) that are not in the store.
        assemblers: Raster -> its block assembler.
        collectors: Vector -> its collector of features.
        meter: Cost of the calls of the chunk.
        samples: Collects the samples of complete blocks, for the report.
        blocks: Number of blocks stored so far.
    """

    context: RunContext
    reduces: tuple[BoundStage, ...]
    source_bands: Mapping[str, tuple[int, ...]]
    missing: Mapping[str, set[BlockIndex]]
    assemblers: Mapping[str, BlockAssembler]
    collectors: Mapping[str, FeatureBlocks]
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
        """Create the writer of a chunk; lists its missing objects in the run store."""
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
        collectors = {
            name: FeatureBlocks(name, context.sizes[name], set(missing[name])) for name in vectors
        }
        return cls(
            context, stages.reduces, source_bands, missing, assemblers, collectors, meter, samples
        )

    @property
    def is_complete(self) -> bool:
        """Whether the store had all objects of the chunk before."""
        return not any(self.missing.values())

    def wanted(self, window: Window) -> dict[str, Window]:
        """Return raster or vector -> window that a tile must compute; empty if none is missing.

        Args:
            window: The tile, in the grid of the scenes.
        """
        parts: dict[str, BlockAssembler | FeatureBlocks] = {**self.assemblers, **self.collectors}
        windows = {
            name: scaled_window(window, self.context.grid_type(name).scale) for name in parts
        }
        return {name: each for name, each in windows.items() if parts[name].wants(each)}

    def add(self, wanted: Mapping[str, Window], results: Mapping[str, TileOutput]) -> None:
        """Add the pixels and features of a tile, and store every block that is now complete.

        Raises:
            StageFailed: a reduce failed on a block.
            ContractBroken: a raster does not have the required dtype.
            StoreFailed: a block cannot be stored.
        """
        for name, window in wanted.items():
            result = results[name]
            if isinstance(result, tuple):
                for features in self.collectors[name].add(window, result):
                    self._store_features(name, features)
                continue
            for block in self.assemblers[name].add(window, result):
                self._store(name, block)

    def add_hole(self, wanted: Mapping[str, Window]) -> None:
        """Add a failed tile: its pixels are a hole."""
        for name, window in wanted.items():
            if name in self.collectors:
                for features in self.collectors[name].add_hole(window):
                    self._store_features(name, features)
                continue
            bands = self.context.raster_type(name).bands or (None,)
            for block in self.assemblers[name].add_hole(window, bands=len(bands)):
                self._store(name, block)

    def _store(self, name: str, block: Block) -> None:
        if block.has_hole and name in self.context.plan.keys:
            # With its pixels, the next attempt computes the failed tile alone, not the whole block.
            save_unfinished(self.context, name, block)
        if block.index in self.missing.get(name, ()):
            codec = BlockCodec(
                block.pixels.shape[0], block.pixels.dtype.name, self.context.plan.compression
            )
            name_of = holed_name if block.has_hole else block_name
            data = codec.compress(block.pixels)
            self.context.store.put(name_of(self.context, name, block.index), data)
            self.blocks += not block.has_hole
        if not block.has_hole:
            self.samples.add(name, block.window, block.pixels)
            for stage in self.reduces:
                self._reduce(stage, name, block)

    def _store_features(self, name: str, block: FeatureBlock) -> None:
        name_of = holed_name if block.has_hole else feature_name
        self.context.store.put(name_of(self.context, name, block.index), block.encode())
        self.blocks += not block.has_hole

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
        for port, pixels in images.items():
            inputs[port] = stage_array(self.context, stage, port, pixels)
        tile = tile_info(self.context, stage, block.window, block.window)
        caller = planned_caller(self.context.plan, stage.stage.process)
        with self.meter.call(stage.id):
            partial = caller.partial(inputs, tile=tile)
        self.context.store.put_json(
            partial_name(self.context, stage.id, block.index), dict(partial)
        )


def save_unfinished(context: RunContext, raster: str, block: Block) -> None:
    """Store the pixels of a block and the windows of its holes, for the next attempt.

    Raises:
        StoreFailed: the store cannot be written.
    """
    data = io.BytesIO()
    holes = np.array([list(window) for window in block.holes])
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


def _first_raster(stage: BoundStage) -> str:
    return str(next(iter(stage.rasters.values())))


def _missing(context: RunContext, chunk: Window, raster: str, folder: str) -> set[BlockIndex]:
    """Return the blocks of a chunk without an undamaged object `ROW/COL` in a folder."""
    window = scaled_window(chunk, context.grid_type(raster).scale)
    expected = set(blocks_touching(window))
    stored = set()
    # Listed row by row: the whole raster may have many more objects than the chunk.
    for row in {row for row, _ in expected}:
        for name in context.store.names(f"{folder}/{row}"):
            index = (row, int(name.rpartition("/")[2]))
            if index in expected and context.store.has(name):
                stored.add(index)
    return expected - stored


def _assembler(context: RunContext, name: str, blocks: set[BlockIndex]) -> BlockAssembler:
    planned = context.raster_type(name)
    dtype = planned.dtype[0] if len(planned.dtype) == 1 else ""
    unfinished = unfinished_blocks(context, name, blocks)
    return BlockAssembler(name, context.sizes[name], blocks, dtype, planned.nodata, unfinished)
