"""Put the tiles of a chunk together into product blocks; a block leaves as soon as it is whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.errors import ContractBroken
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
