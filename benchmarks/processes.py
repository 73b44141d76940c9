"""The jobs as processes: what an author writes to have them run by the local engine."""

from typing import Annotated

import numpy as np

from benchmarks import kernels
from pesto_runtime import Named, Raster, process


@process(version="1.0.0", margin=kernels.MARGIN, releases_gil=True)
def gaussian(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint16")],
) -> Annotated[np.ndarray, Raster(name="smooth", bands=["grey"], dtype="uint16")]:
    """Smooth with a gaussian of 3 pixels."""
    return kernels.gaussian(image)


@process(version="1.0.0", margin=0, releases_gil=True)
def ndvi(
    image: Annotated[np.ndarray, Raster(bands=["red", "nir"], dtype="uint16")],
) -> Annotated[np.ndarray, Raster(name="ndvi", bands=["ndvi"], dtype="int16")]:
    """Normalised difference vegetation index, times 10000.

    A margin of 0 is declared, as only a process that declares one is cut into tiles.
    """
    return kernels.ndvi(image[0], image[1])


def finish(partial: dict[str, np.ndarray]) -> Annotated[list[list[int]], Named("counts")]:
    """Answer the counts by band and bin."""
    counts: list[list[int]] = partial["counts"].tolist()
    return counts


@process(version="1.0.0", reduce={"counts": "sum"}, finish=finish, releases_gil=True)
def histograms(
    image: Annotated[np.ndarray, Raster(bands=["red", "green", "swir", "nir"], dtype="uint16")],
) -> dict[str, np.ndarray]:
    """Histogram of every band."""
    return {"counts": kernels.histograms(image)}
