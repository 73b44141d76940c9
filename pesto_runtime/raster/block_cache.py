"""Share decoded blocks of rasters among the threads of a process.

Windows with a margin overlap, and GDAL's own cache belongs to one open file, hence to one thread:
without this cache, the blocks around a tile are decoded once by each thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from pesto_runtime.tiling import Size

CACHE_BYTES = 64 << 20
"""Decoded blocks of all rasters in a process: two rows of blocks of a large scene."""
_SIDE = 512
"""Smallest side of a cell: blocks of 256 x 256 pixels, and rows, are read several at once."""


@dataclass(frozen=True)
class CellGrid:
    """The grid of cells, each of one block or several, over a raster.

    Attributes:
        cell: Width and height of a cell, pixels.
        bounds: The pixels of the file that belong to the raster.
    """

    cell: Size
    bounds: Window

    @classmethod
    def of(cls, block: Size, bounds: Window) -> CellGrid:
        """Return the grid for a file with blocks of this width and height."""
        width, height = (side * -(-_SIDE // side) for side in block)
        if block[0] >= bounds.col_stop:  # rows: as many pixels as a square cell
            height = block[1] * max(1, _SIDE * _SIDE // (block[0] * block[1]))
        return cls((width, height), bounds)

    def is_aligned(self, window: Window) -> bool:
        """Whether a window of the raster consists of whole cells, so that no other needs them."""
        moved, (width, height) = self._in_file(window), self.cell
        return (
            moved.col_off % width == 0
            and moved.row_off % height == 0
            and (moved.col_stop % width == 0 or moved.col_stop == self.bounds.col_stop)
            and (moved.row_stop % height == 0 or moved.row_stop == self.bounds.row_stop)
        )

    def cells(self, window: Window) -> Iterator[Window]:
        """Yield the cells under a window, row by row, clipped to the raster."""
        moved, (width, height) = self._in_file(window), self.cell
        for row in range(moved.row_off // height * height, moved.row_stop, height):
            for col in range(moved.col_off // width * width, moved.col_stop, width):
                yield (
                    Window(col, row, width, height)
                    .intersection(self.bounds)
                    .relative_to(self.bounds)
                )

    def _in_file(self, window: Window) -> Window:
        col_off, row_off = self.bounds[:2]
        return Window(window.col_off + col_off, window.row_off + row_off, *window[2:])


class BlockCache:
    """Decoded cells of rasters by key; the least recently used leave, so it is bounded in bytes."""

    def __init__(self, most_bytes: int) -> None:
        """Create an empty cache."""
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._cells: OrderedDict[Hashable, Future[np.ndarray]] = OrderedDict()

    def read(
        self,
        raster: Hashable,
        grid: CellGrid,
        window: Window,
        *,
        read: Callable[[Window], np.ndarray],
    ) -> np.ndarray:
        """Return a window as an array (band, row, col) of its own.

        Each cell is decoded by the first thread that needs it; others wait for it.

        Args:
            raster: Key of the raster and of its bands.
            grid: Its cells.
            window: The window, in the raster's pixels.
            read: Reads a window of the raster in the calling thread; its errors are raised.
        """
        first = next(grid.cells(window), None)
        if first is not None and first.contains(window):
            array = self._cell(raster, first, read).result()
            return array[(slice(None), *window.relative_to(first).slices)].copy()
        pixels: np.ndarray | None = None
        for cell, array in self._cells_of(raster, grid, window, read):
            if pixels is None:
                pixels = np.empty((array.shape[0], window.height, window.width), array.dtype)
            part = cell.intersection(window)
            target, source = part.relative_to(window).slices, part.relative_to(cell).slices
            pixels[(slice(None), *target)] = array[(slice(None), *source)]
        if pixels is None:
            raise ValueError(f"window {list(window)} must have pixels")
        return pixels

    def limit(self, most_bytes: int) -> None:
        """Change the maximum size."""
        self._most_bytes = most_bytes

    def clear(self) -> None:
        """Free all cells that are decoded."""
        with self._lock:
            self._cells = OrderedDict((k, f) for k, f in self._cells.items() if not f.done())
            self._bytes = 0

    def _cells_of(
        self,
        raster: Hashable,
        grid: CellGrid,
        window: Window,
        read: Callable[[Window], np.ndarray],
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Yield the cells under a window; those that other threads decode now come last.

        A cell is not kept here once it was yielded: a window can show more than the cache has.
        """
        decoding = []
        for cell in grid.cells(window):
            found = self._cell(raster, cell, read)
            if found.done():
                yield cell, found.result()
            else:
                decoding.append((cell, found))
        for cell, found in decoding:
            yield cell, found.result()

    def _cell(
        self, raster: Hashable, cell: Window, read: Callable[[Window], np.ndarray]
    ) -> Future[np.ndarray]:
        """Return a cell: decoded now, earlier, or at this moment by another thread."""
        key = (raster, cell)
        with self._lock:
            found = self._cells.get(key)
            if found is not None:
                self._cells.move_to_end(key)
                return found
            mine = self._cells[key] = Future()
        try:
            array = read(cell)
        except BaseException as error:
            with self._lock:
                self._cells.pop(key, None)
            mine.set_exception(error)
            raise
        with self._lock:
            mine.set_result(array)
            self._bytes += array.nbytes
            self._evict()
        return mine

    def _evict(self) -> None:
        for key, found in list(self._cells.items()):
            if self._bytes <= self._most_bytes:
                return
            if found.done() and found.exception() is None:
                self._bytes -= found.result().nbytes
                del self._cells[key]
