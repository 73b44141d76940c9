"""Put blocks of a raster together from a cache, also from those of runs over other windows.

The pixels of a movable raster depend on nothing but the pixels within the margins around them. So
those whose margins are inside both windows, or end at the same edges, are equal in both runs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import lcm
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from pesto_runtime.contract import Margin, Window
from pesto_runtime.errors import StoreFailed
from pesto_runtime.pipeline import RasterType, scene_origin, steps_of
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.run.assembling import Block
from pesto_runtime.tiling import Chain, block_window, blocks_touching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pesto_runtime.contract import CachePlace, Scale
    from pesto_runtime.pipeline import PhaseStages
    from pesto_runtime.run.cache_store import CacheStore
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.packs import StoredBlocks
    from pesto_runtime.tiling import BlockIndex, Size

_READERS = 4
_AT_ONCE = 8
"""Blocks in memory; about as many decoded ones are kept for their neighbours."""
_FAR = 1 << 20
"""Pixels between a window and the edges of a grid that it does not reach."""

_Decoder: TypeAlias = "Callable[[int, BlockIndex], tuple[np.ndarray, bytes] | None]"


class _Run(NamedTuple):
    """The cached blocks of a run over some window of the scene.

    Attributes:
        folder: Their folder in the cache.
        window: The window of the run; pixels of the first scene's raster.
        size: Width and height of the grid of the blocks.
        first: The first pixel (column, row) of this run's grid in the grid of the cached blocks.
        blocks: The blocks.
    """

    folder: str
    window: Window
    size: Size
    first: tuple[int, int]
    blocks: StoredBlocks

    def has(self, place: BlockIndex) -> bool:
        """Whether a block (row, col) is stored; False outside of the part that was read."""
        row, col = place[0] - self.blocks.first[0], place[1] - self.blocks.first[1]
        rows = len(self.blocks.places) // max(self.blocks.columns, 1)
        return 0 <= row < rows and 0 <= col < self.blocks.columns and place in self.blocks


class _Piece(NamedTuple):
    """Some pixels of a cached block.

    Attributes:
        run: Number of the run that stored it.
        block: The block (row, col) in the grid of that run.
        window: The pixels that are used, in the grid of this run.
    """

    run: int
    block: BlockIndex
    window: Window


def run_window(context: RunContext) -> Window:
    """Return the window of a run; pixels of the first scene's raster."""
    scene = next(iter(context.plan.scenes.values()))
    return Window(*scene_origin(scene), scene.width, scene.height)


@dataclass(frozen=True)
class CachedBlocks:
    """The cached blocks of one raster in a part of its grid.

    Attributes:
        context: The run.
        stages: The phase that writes the raster.
        place: The keys of the run in the cache.
        cache: The cache.
        name: The raster.
        part: The part of its grid.
    """

    context: RunContext
    stages: PhaseStages
    place: CachePlace
    cache: CacheStore
    name: str
    part: Window

    def restored(self, wanted: Sequence[BlockIndex]) -> Iterator[tuple[Block, bytes | None]]:
        """Yield those of the wanted blocks (row, col) that the cache has, and their bytes.

        The bytes are None for a block that was put together from others.
        """
        if not self._runs:
            return
        decoded = lru_cache(maxsize=_AT_ONCE)(self._decoded)
        with ThreadPoolExecutor(_READERS, "pesto-cache") as pool:
            for start in range(0, len(wanted), _AT_ONCE):
                tasks = [
                    pool.submit(copy_context().run, self._block, index, decoded)
                    for index in wanted[start : start + _AT_ONCE]
                ]
                yield from (block for each in tasks if (block := each.result()))

    @cached_property
    def _codec(self) -> BlockCodec:
        planned = self.context.raster_type(self.name)
        compression = self.context.plan.compression
        return BlockCodec(len(planned.bands or ()), planned.dtype[0], compression)

    def _decoded(self, number: int, index: BlockIndex) -> tuple[np.ndarray, bytes] | None:
        """Return pixels (band, row, col) and bytes of a cached block; None if it is damaged."""
        run = self._runs[number]
        data = self.cache.read(run.folder, run.blocks, index)
        try:
            return None if data is None else (self._codec.decompress(data), data)
        except StoreFailed:  # sealed, and not of this codec
            return None

    def _block(self, index: BlockIndex, decoded: _Decoder) -> tuple[Block, bytes | None] | None:
        """Return a block whose pixels are all in the cache, and its bytes if it is there whole."""
        place = block_window(index, self.context.sizes[self.name])
        pieces = self._pieces(place)
        pixels = np.empty((self._codec.count, place.height, place.width), self._codec.dtype)
        data = None
        for number, other, window in pieces:
            found = decoded(number, other)
            if found is None:
                return None
            run = self._runs[number]
            source = _moved(window, run.first).relative_to(block_window(other, run.size)).slices
            target = window.relative_to(place).slices
            pixels[(slice(None), *target)] = found[0][(slice(None), *source)]
            data = found[1] if run.window == self._window and window == place else None
        return (Block(index, place, pixels, ()), data) if pieces else None

    def _pieces(self, place: Window) -> list[_Piece]:
        """Return pieces with all pixels of a block (window `place`); none if some are missing."""
        cover, pieces = Block((0, 0), place, np.empty(0), (place,)), list[_Piece]()
        for number, run in enumerate(self._runs):
            inside = _moved(place, run.first).intersection(Window(0, 0, *run.size))
            for index in filter(run.has, blocks_touching(inside)):
                block = block_window(index, run.size).intersection(inside)
                window = _moved(block, (-run.first[0], -run.first[1]))
                if cover.lacks(window) and self._is_equal(run, window):
                    pieces.append(_Piece(number, index, window))
                    cover.fill(window)
        return [] if cover.missing else pieces

    @cached_property
    def _runs(self) -> tuple[_Run, ...]:
        """The runs with blocks in the part, this run's own window first."""
        windows = [self._window]
        if self.name in self.place.movable:
            windows += [each for each in self.cache.windows(self.place.keys[self.name])
                        if each != self._window and self._is_aligned(each)]  # fmt: skip
        return tuple(found for window in windows if (found := self._run(window)))

    def _run(self, window: Window) -> _Run | None:
        across, down = _offset(self._window, window)
        first = (int(across * self._scale.x), int(down * self._scale.y))
        is_own = window == self._window
        sizes = self.context.sizes if is_own else self._chain_over(window[2:]).sizes
        size = sizes[self.name]
        near = _moved(self.part, first).intersection(Window(0, 0, *size))
        folder = cache_folder(self.place, "blocks", self.name, window)
        blocks = self.cache.blocks(folder, near) if near.pixels else None
        if blocks is None or len(blocks.missing) == len(blocks.places):
            return None
        return _Run(folder, window, size, first, blocks)

    def _is_aligned(self, window: Window) -> bool:
        across, down = _offset(window, self._window)
        return not across % self._quantum[0] and not down % self._quantum[1]

    def _is_equal(self, run: _Run, window: Window) -> bool:
        """Whether a run over another window computes the same pixels, by their margins."""
        if run.window == self._window:
            return True
        base = (int(self._base[0] * self._scale.x), int(self._base[1] * self._scale.y))
        sources = self._chain.windows({self.name: _moved(window, base)}).sources.values()
        origin = _offset(self._window, Window(*self._base, 0, 0))
        return all(self._is_inside(_moved(each, origin), run.window) for each in sources)

    def _is_inside(self, reach: Window, theirs: Window) -> bool:
        """Whether two runs have the same pixels of a part of the raster of the scene."""
        # Pixels beyond the edges are made from those before them: then no edge is in reach.
        is_extended = any(each.is_filled or each.mirror != Margin() for each in self._chain.steps)
        mine = self._window
        edges = (
            (reach.col_off, mine.col_off, theirs.col_off),
            (reach.row_off, mine.row_off, theirs.row_off),
            (-reach.col_stop, -mine.col_stop, -theirs.col_stop),
            (-reach.row_stop, -mine.row_stop, -theirs.row_stop),
        )
        return all(
            first >= max(edge, other) or (edge == other and not is_extended)
            for first, edge, other in edges
        )

    @cached_property
    def _window(self) -> Window:
        return run_window(self.context)

    @cached_property
    def _scale(self) -> Scale:
        return self.context.grid_type(self.name).scale

    @cached_property
    def _quantum(self) -> tuple[int, int]:
        """The pixels of the scenes by which a grid may be moved: every step stays aligned."""
        width = height = 1
        for step in steps_of(self.stages.stages):
            scale = self.context.grid_type(step.reads[0]).scale
            width = lcm(width, step.quantum[0] * scale.x.denominator)
            height = lcm(height, step.quantum[1] * scale.y.denominator)
        return width, height

    @cached_property
    def _base(self) -> tuple[int, int]:
        """A pixel (column, row) far from the edges of `_chain`, and aligned."""
        across, down = self._quantum
        return -(-_FAR // across) * across, -(-_FAR // down) * down

    @cached_property
    def _chain(self) -> Chain:
        """The chain of the phase on a grid whose edges are far."""
        side = 4 * max(self._base)
        return self._chain_over((side, side))

    def _chain_over(self, size: Size) -> Chain:
        types = self.context.types
        rasters = [name for name in self.stages.sources if isinstance(types[name], RasterType)]
        return Chain.over(dict.fromkeys(rasters, size), steps_of(self.stages.stages))


def cache_folder(place: CachePlace, kind: str, name: str, window: Window) -> str:
    """Return the folder of the blocks of a raster, or of features, of runs over a window."""
    return f"{kind}/{place.keys[name]}/{'-'.join(map(str, window))}"


def _offset(window: Window, other: Window) -> tuple[int, int]:
    """Return columns and rows from the first pixel of another window to that of this one."""
    return window.col_off - other.col_off, window.row_off - other.row_off


def _moved(window: Window, by: tuple[int, int]) -> Window:
    """Return a window moved by columns and rows."""
    return window._replace(col_off=window.col_off + by[0], row_off=window.row_off + by[1])
