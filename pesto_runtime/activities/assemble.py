"""Put the tiles of a chunk together into product blocks; a block leaves as soon as it is whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import ContractBroken
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Window


@dataclass
class Block:
    """A block that is being put together.

    Attributes:
        index: (row, col) in its raster's grid.
        window: Its pixels.
        pixels: Array (band, row, col).
        missing: Pixels not yet written.
        has_hole: Whether a tile of it failed.
    """

    index: BlockIndex
    window: Window
    pixels: np.ndarray
    missing: int
    has_hole: bool = False


@dataclass
class Assembler:
    """Blocks of one raster within one chunk.

    Attributes:
        name: The raster's reference.
        size: Width and height of its grid.
        wanted: Blocks to put together; pixels of others are let go.
        dtype: What the contract says; empty where it says nothing.
        nodata: What a hole is filled with; None fills it with 0, and such a block is never kept.
    """

    name: str
    size: Size
    wanted: set[BlockIndex]
    dtype: str
    nodata: float | None
    _open: dict[BlockIndex, Block] = field(default_factory=dict)

    def wants(self, window: Window) -> bool:
        """Whether any block that is still wanted has a pixel in the window."""
        return any(index in self.wanted for index in blocks_touching(window))

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
            block.pixels[(slice(None), *part.relative_to(block.window).slices)] = fill
            block.has_hole = True
            yield from self._written(block, part)

    def _parts(self, window: Window, bands: int, dtype: np.dtype) -> Iterator[tuple[Block, Window]]:
        for index in blocks_touching(window):
            if index not in self.wanted:
                continue
            block = self._open.get(index)
            if block is None:
                place = block_window(index, self.size)
                pixels = np.empty((bands, place.height, place.width), dtype)
                block = self._open[index] = Block(index, place, pixels, place.pixels)
            yield block, block.window.intersection(window)

    def _written(self, block: Block, part: Window) -> Iterator[Block]:
        block.missing -= part.pixels
        if not block.missing:
            del self._open[block.index]
            self.wanted.discard(block.index)
            yield block
