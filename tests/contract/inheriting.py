"""Processes whose outputs inherit facts of their image, or lose or declare them."""

from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process
from pesto_runtime.contract import TileInfo

Picked = Annotated[np.ndarray, Raster(bands=["nir", "blue"])]
Values = {"scale": 0.5, "offset": -1.0, "unit": "K"}


@process(version="1.0.0", margin=0)
def same(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="out")]:
    """Return the image."""
    return image.copy()


@process(version="1.0.0", margin=0)
def two(image: Picked) -> Annotated[np.ndarray, Raster(name="out")]:
    """Return what its port takes."""
    return image.copy()


@process(version="1.0.0", margin=0)
def other_dtype(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="out", dtype="float64")]:
    """Return other numbers of the same bands."""
    return image.real.astype("float64")


@process(version="1.0.0", margin=0)
def declared(
    image: np.ndarray,
) -> Annotated[np.ndarray, Raster(name="out", dtype="int32", bands=["a"], nodata=3, values=Values)]:
    """Declare all that can be declared."""
    return image[:1].real.astype("int32")


@process(version="1.0.0", margin=0)
def without_nodata(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="out", nodata=None)]:
    """Return the image, in which each number is data."""
    return image.copy()


@process(version="1.0.0", margin=0)
def halved(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="out", scale="1/2")]:
    """Return every second pixel."""
    return image[:, : image.shape[1] // 2 * 2 : 2, : image.shape[2] // 2 * 2 : 2].copy()


@process(version="1.0.0", margin=0)
def physical(
    image: Annotated[np.ndarray, Raster(scaled=True)], tile: TileInfo
) -> Annotated[np.ndarray, Raster(name="out")]:
    """Return physical values; refuse what still has a scale."""
    if set(tile.scales) != {1.0} or set(tile.offsets) != {0.0} or str(tile.nodata) != "nan":
        raise ValueError(f"{tile} is not of physical values")
    return image.copy()


@process(version="1.0.0", margin=0)
def told(image: Picked, tile: TileInfo) -> Annotated[np.ndarray, Raster(name="out")]:
    """Return the image if the tile says what the numbers mean."""
    if (tile.scales, tile.offsets, tile.units) != ((4.0, 1.0), (40.0, 10.0), ("4", "1")):
        raise ValueError(f"{tile} has other scales")
    return image.copy()
