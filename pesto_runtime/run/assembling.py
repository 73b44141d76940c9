"""Assemble tiles, which have any size, into the blocks of a raster, which have a fixed one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.errors import ContractBroken
from pesto_runtime.raster.image import dtype_name
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
        left: list[Window] = []
        for each in self.missing:
            part = window.intersection(each)
            left.extend(without(each, part) if part.pixels else (each,))
        self.missing = tuple(left)


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
        if self.dtype and dtype_name(pixels.dtype) != self.dtype:
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
