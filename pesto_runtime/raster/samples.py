"""Collect the samples of a raster for its preview: from arrays in memory, or by reading windows.

Which pixels are samples is decided in `tiling/sample_grid.py`; they are drawn in `preview.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.tiling import block_window, blocks_of, whole

if TYPE_CHECKING:
    from pesto_runtime.raster.read import RasterReader
    from pesto_runtime.tiling import SampleGrid

MOST_BYTES, MOST_REMOTE_BYTES = 256 << 20, 32 << 20
"""Bytes that may be decoded to read samples of a local raster without overviews, and of a remote
one: previews must not cost much of a run."""


@dataclass
class Samples:
    """The samples of a raster, or of a part of it.

    Attributes:
        grid: Which pixels are samples.
        part: The window of samples that the arrays have, counted in samples.
        pixels: Array (band, row, col) in the dtype of the raster.
        seen: Array (row, col): which samples are known.
    """

    grid: SampleGrid
    part: Window
    pixels: np.ndarray
    seen: np.ndarray

    @classmethod
    def empty(cls, grid: SampleGrid, part: Window, *, bands: int, dtype: str) -> Self:
        """Create the samples of a part, none of which is known."""
        shape = (part.height, part.width)
        return cls(grid, part, np.zeros((bands, *shape), dtype), np.zeros(shape, bool))

    @classmethod
    def of_all(cls, grid: SampleGrid, *, bands: int, dtype: str) -> Self:
        """Create the samples of the whole raster, none of which is known."""
        return cls.empty(grid, Window(0, 0, grid.width, grid.height), bands=bands, dtype=dtype)

    @classmethod
    def decode(cls, grid: SampleGrid, data: bytes, *, bands: int, dtype: str) -> Self:
        """Create samples from the bytes that `encode` returned."""
        part = Window(*map(int, np.frombuffer(data, "<i8", 4)))
        shape, start = (part.height, part.width), 4 * 8
        seen = np.frombuffer(data, bool, part.pixels, start).reshape(shape)
        values = np.frombuffer(
            data, np.dtype(dtype).newbyteorder("<"), bands * part.pixels, start + part.pixels
        )
        return cls(grid, part, values.reshape(bands, *shape).astype(dtype), seen.copy())

    def encode(self) -> bytes:
        """Return the samples as bytes; compressing them would cost more time than it saves."""
        values = self.pixels.astype(self.pixels.dtype.newbyteorder("<"), copy=False)
        return np.array(self.part, "<i8").tobytes() + self.seen.tobytes() + values.tobytes()

    @property
    def is_complete(self) -> bool:
        """Whether every sample is known."""
        return bool(self.seen.all())

    def add(self, window: Window, array: np.ndarray) -> None:
        """Take the samples of a window of the raster, as far as they are in this part.

        Args:
            window: The window, in pixels of the raster.
            array: Its pixels (band, row, col).
        """
        wanted = self.grid.samples_in(window).intersection(self.part)
        if wanted.pixels:
            rows, cols = self.grid.slices(wanted, window)
            self._put(wanted, array[:, rows, cols])

    def merge(self, other: Samples) -> None:
        """Take all known samples of another part of the same raster."""
        common = other.part.intersection(self.part)
        if common.pixels:
            theirs = common.relative_to(other.part).slices
            known = other.seen[theirs]
            ours = common.relative_to(self.part).slices
            if known.all():
                self.pixels[:, *ours] = other.pixels[:, *theirs]
            else:
                np.copyto(self.pixels[:, *ours], other.pixels[:, *theirs], where=known)
            self.seen[ours] |= known

    def _put(self, samples: Window, pixels: np.ndarray) -> None:
        place = samples.relative_to(self.part).slices
        self.pixels[:, *place] = pixels
        self.seen[place] = True


def read_missing(reader: RasterReader, samples: Samples, bands: tuple[int, ...]) -> None:
    """Read the samples that are not known yet, as long as that is cheap.

    From a raster without overviews, only blocks without samples are decoded. If they are too many,
    none is.

    Args:
        reader: The raster.
        samples: All its samples.
        bands: 1-based numbers of the bands of the samples.

    Raises:
        RasterUnreadable: the raster is truncated or corrupt.
    """
    if samples.is_complete:
        return
    grid, scene = samples.grid, reader.scene()
    pixel_bytes = len(scene.bands) * samples.pixels.itemsize
    most = MOST_BYTES if _is_local(scene.href) else MOST_REMOTE_BYTES
    if overview_bytes(reader, grid.step) <= most:
        shape = (grid.height, grid.width)
        pixels = reader.read(whole(grid.size), bands=bands, shape=shape)
        samples.merge(Samples(grid, samples.part, pixels, np.ones(shape, bool)))
        return
    windows = [block_window(index, grid.size) for index in blocks_of(grid.size)]
    lacking = [
        window
        for window in windows
        if not samples.seen[grid.samples_in(window).relative_to(samples.part).slices].all()
    ]
    if sum(window.pixels for window in lacking) * pixel_bytes <= most:
        for window in lacking:
            samples.add(window, reader.read(window, bands=bands))


def overview_bytes(reader: RasterReader, step: int) -> float:
    """Return the bytes to decode for every `step`-th pixel; infinite without such an overview."""
    factor = max((each for each in reader.overviews if each <= step), default=1)
    scene = reader.scene()
    raw = scene.width * scene.height * len(scene.bands) * np.dtype(scene.dtype).itemsize
    return raw / factor**2 if factor > 1 else math.inf


def _is_local(href: str) -> bool:
    return href.startswith("file:") or "://" not in href
