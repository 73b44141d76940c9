"""The jobs: what is read, computed and written. Names no contestant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


@dataclass(frozen=True)
class Step:
    """A step of a job.

    Attributes:
        process: Name of the process function; its port `image` is the input, `made` the output.
        compute: From a window (band, row, col) to the image, or to counts that add up.
        margin: Pixels that it needs around a tile.
    """

    process: str
    compute: Callable[[np.ndarray], np.ndarray]
    margin: int = 0


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        letter: Its name in tables.
        title: What it is, in words.
        scene: Which scene it reads: `one` (band) or `four`.
        bands: 1-based numbers of the bands that it needs, in the order that the first step takes.
        dtype: Of the image that it makes; None where it makes counts.
        steps: One after another; the next one reads what one makes.
    """

    letter: str
    title: str
    scene: str
    bands: tuple[int, ...]
    dtype: str | None
    steps: tuple[Step, ...]

    @property
    def margin(self) -> int:
        """Pixels that all steps together need around a tile."""
        return sum(step.margin for step in self.steps)

    @property
    def picked(self) -> slice:
        """Its bands, evenly spaced, as a view of all of them."""
        step = self.bands[1] - self.bands[0] if len(self.bands) > 1 else 1
        return slice(self.bands[0] - 1, self.bands[-1], step)

    def compute(self, image: np.ndarray) -> np.ndarray:
        """Return what all steps make of a window (band, row, col)."""
        for step in self.steps:
            image = step.compute(image)
        return image


JOBS = {
    job.letter: job
    for job in (
        Job("A", "gaussian, sigma 3, margin 12, uint16 to uint16, 1 band", "one", (1,), "uint16",
            (Step("gaussian", kernels.gaussian, kernels.MARGIN),)),
        Job("B", "NDVI, int16, from bands 1 and 4 of 4", "four", (1, 4), "int16",
            (Step("ndvi", kernels.ndvi),)),
        Job("C", "exact histograms of 65 536 bins, 4 bands, nothing written", "four",
            (1, 2, 3, 4), None, (Step("exact_histograms", kernels.exact_histograms),)),
        Job("D", "NDVI, float32, gaussian, sigma 2, margin 8, threshold, uint8", "four", (1, 4),
            "uint8", (Step("index", kernels.index),
                      Step("smooth", kernels.smooth, kernels.SMOOTH_MARGIN),
                      Step("bright", kernels.bright))),
        Job("E", "histograms of 1024 bins, 4 bands, nothing written", "four", (1, 2, 3, 4), None,
            (Step("histograms", kernels.histograms),)),
    )
}  # fmt: skip
