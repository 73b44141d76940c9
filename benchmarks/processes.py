"""The jobs as processes: what an author writes to have them run by the local engine."""

from typing import Annotated

import numpy as np

from benchmarks import kernels
from pesto_runtime import Named, Raster, process

Index = Annotated[np.ndarray, Raster(bands=["ndvi"], dtype="float32")]
NewIndex = Annotated[np.ndarray, Raster(name="made", bands=["ndvi"], dtype="float32")]
Four = Annotated[np.ndarray, Raster(bands=["red", "green", "swir", "nir"], dtype="uint16")]
RedAndNir = Annotated[np.ndarray, Raster(bands=["red", "nir"], dtype="uint16")]


@process(version="1.0.0", margin=kernels.MARGIN, releases_gil=True)
def gaussian(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint16")],
) -> Annotated[np.ndarray, Raster(name="made", bands=["grey"], dtype="uint16")]:
    """Smooth with a gaussian of 3 pixels."""
    return kernels.gaussian(image)


@process(version="1.0.0", margin=0, releases_gil=True)
def ndvi(
    image: RedAndNir,
) -> Annotated[np.ndarray, Raster(name="made", bands=["ndvi"], dtype="int16")]:
    """Normalised difference vegetation index, times 10000.

    A margin of 0 is declared, as only a process that declares one is cut into tiles.
    """
    return kernels.ndvi(image)


@process(version="1.0.0", margin=0, releases_gil=True)
def index(image: RedAndNir) -> NewIndex:
    """Normalised difference vegetation index."""
    return kernels.index(image)


@process(version="1.0.0", margin=kernels.SMOOTH_MARGIN, releases_gil=True)
def smooth(image: Index) -> NewIndex:
    """Smooth with a gaussian of 2 pixels."""
    return kernels.smooth(image)


@process(version="1.0.0", margin=0, releases_gil=True)
def bright(
    image: Index,
) -> Annotated[np.ndarray, Raster(name="made", bands=["bright"], dtype="uint8")]:
    """Mark what is above a threshold."""
    return kernels.bright(image)


def finish(partial: dict[str, np.ndarray]) -> Annotated[list[list[int]], Named("made")]:
    """Answer the counts by band and bin."""
    counts: list[list[int]] = partial["counts"].tolist()
    return counts


@process(version="1.0.0", reduce={"counts": "sum"}, finish=finish, releases_gil=True)
def histograms(image: Four) -> dict[str, np.ndarray]:
    """Histogram of every band."""
    return {"counts": kernels.histograms(image)}


@process(version="1.0.0", reduce={"counts": "sum"}, finish=finish, releases_gil=True)
def exact_histograms(image: Four) -> dict[str, np.ndarray]:
    """Number of pixels of every value, by band."""
    return {"counts": kernels.exact_histograms(image)}
