"""The jobs: what is read, computed and written. Names no contestant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        letter: Its name in tables.
        title: What it is, in words.
        scene: Which scene it reads: `one` (band) or `four`.
        bands: 1-based numbers of the bands that it needs, in the order that `compute` takes them.
        margin: Pixels that it needs around a tile.
        dtype: Of the image that it makes; None where it makes counts.
        process: Name of the process function.
        port: Name of its output.
        compute: From a window (band, row, col) to the image, or to counts that add up.
    """

    letter: str
    title: str
    scene: str
    bands: tuple[int, ...]
    margin: int
    dtype: str | None
    process: str
    port: str
    compute: Callable[[np.ndarray], np.ndarray]

    @property
    def picked(self) -> slice:
        """Its bands, evenly spaced, as a view of all of them."""
        step = self.bands[1] - self.bands[0] if len(self.bands) > 1 else 1
        return slice(self.bands[0] - 1, self.bands[-1], step)


def _ndvi(image: np.ndarray) -> np.ndarray:
    return kernels.ndvi(image[0], image[1])


JOBS = {
    job.letter: job
    for job in (
        Job("A", "gaussian, sigma 3, margin 12, uint16 to uint16, 1 band", "one", (1,),
            kernels.MARGIN, "uint16", "gaussian", "smooth", kernels.gaussian),
        Job("B", "NDVI, int16, from bands 1 and 4 of 4", "four", (1, 4),
            0, "int16", "ndvi", "ndvi", _ndvi),
        Job("C", "histograms of 1024 bins, 4 bands, nothing written", "four", (1, 2, 3, 4),
            0, None, "histograms", "counts", kernels.histograms),
    )
}  # fmt: skip
