"""Choose the pixels of a raster that its preview shows: every N-th along both axes.

A sample belongs to exactly one tile, so previews do not depend on the division into tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pesto_runtime.contract import Window

if TYPE_CHECKING:
    from pesto_runtime.tiling.grid import Size

MOST_SAMPLES = 2048
"""Samples along the longest side."""

ALL_SAMPLES = 1024
"""Pixels along the longest side of a raster of which every pixel is a sample."""

LEAST_STEP = 6
"""Pixels per sample of a larger raster, until it has `ALL_SAMPLES`: drawing a sample costs several
times what computing a pixel does, and a report is to cost a twentieth of its run."""

MOST_SAMPLE_BYTES = 8 << 20
"""Bytes of the samples of one raster, all bands."""


@dataclass(frozen=True, slots=True)
class SampleGrid:
    """The samples of a raster, themselves a small raster.

    Attributes:
        size: Width and height of the raster, pixels.
        step: Pixels between two samples, along both axes; 1 if every pixel is one.
    """

    size: Size
    step: int

    @classmethod
    def of(cls, size: Size, *, pixel_bytes: int) -> Self:
        """Return the finest grid within the limits.

        >>> SampleGrid.of((10980, 10980), pixel_bytes=8)
        SampleGrid(size=(10980, 10980), step=11)

        Args:
            size: Width and height of the raster.
            pixel_bytes: Bytes of a pixel, all bands.
        """
        most = min(MOST_SAMPLES, max(ALL_SAMPLES, max(size) // LEAST_STEP))
        grid = cls(size, max(1, -(-max(size) // most)))
        while grid.step < max(size) and grid.width * grid.height * pixel_bytes > MOST_SAMPLE_BYTES:
            grid = cls(size, grid.step + 1)
        return grid

    @property
    def first(self) -> tuple[int, int]:
        """Column and row of the first sample: in the middle of the pixels that it stands for."""
        width, height = self.size
        return (min(self.step // 2, (width - 1) // 2), min(self.step // 2, (height - 1) // 2))

    @property
    def width(self) -> int:
        """Samples in a row."""
        return len(range(self.first[0], self.size[0], self.step))

    @property
    def height(self) -> int:
        """Samples in a column."""
        return len(range(self.first[1], self.size[1], self.step))

    def samples_in(self, window: Window) -> Window:
        """Return the samples in a window of the raster, counted in samples.

        >>> SampleGrid((100, 100), 10).samples_in(Window(0, 5, 16, 20))
        Window(col_off=0, row_off=0, width=2, height=2)
        """
        (col, row), step = self.first, self.step
        left, right = (max(0, -((col - x) // step)) for x in (window.col_off, window.col_stop))
        top, bottom = (max(0, -((row - y) // step)) for y in (window.row_off, window.row_stop))
        return Window.spanning(left, top, max(left, right), max(top, bottom))

    def slices(self, samples: Window, window: Window) -> tuple[slice, slice]:
        """Return slices (row, col) that pick samples from an array of a window of the raster.

        Args:
            samples: Some of the samples in the window.
            window: The window that the array covers.
        """
        (col, row), step = self.first, self.step
        left = col + samples.col_off * step - window.col_off
        top = row + samples.row_off * step - window.row_off
        return (
            slice(top, top + samples.height * step, step),
            slice(left, left + samples.width * step, step),
        )
