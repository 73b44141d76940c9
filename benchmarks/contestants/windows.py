"""Tiles of a hand-written program: windows in rows, with a margin that ends at the scene's edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasterio.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


@dataclass(frozen=True)
class Tile:
    """A tile: where it is read, where it is written, and where in what was read that lies."""

    read: Window
    write: Window
    inner: tuple[slice, slice]

    def trim(self, image: np.ndarray) -> np.ndarray:
        """The written part of an image (band, row, col) of the read window."""
        rows, cols = self.inner
        return image[:, rows, cols]


def tiles(width: int, height: int, *, side: int, margin: int) -> Iterator[Tile]:
    """Cut a scene into tiles, row-major."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            right, bottom = min(left + side, width), min(top + side, height)
            x0, y0 = max(left - margin, 0), max(top - margin, 0)
            x1, y1 = min(right + margin, width), min(bottom + margin, height)
            yield Tile(
                read=Window(x0, y0, x1 - x0, y1 - y0),
                write=Window(left, top, right - left, bottom - top),
                inner=(slice(top - y0, bottom - y0), slice(left - x0, right - x0)),
            )
