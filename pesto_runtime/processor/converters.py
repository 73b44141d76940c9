"""Processes that convert a raster for the stage after them: number type, physical values, grid.

`pipeline/conversions.py` proposes them where no information is lost.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from pesto_runtime.contract import TileInfo  # noqa: TC001  # type hints are read at run time
from pesto_runtime.processor.annotations import Raster
from pesto_runtime.processor.authoring import process

Source = Annotated[np.ndarray, Raster()]
Doubled = Annotated[np.ndarray, Raster(name="image", scale=2)]
Tripled = Annotated[np.ndarray, Raster(name="image", scale=3)]
Single = Annotated[np.ndarray, Raster(name="image", dtype="float32", nodata=float("nan"))]
Double = Annotated[np.ndarray, Raster(name="image", dtype="float64", nodata=float("nan"))]
Physical = Annotated[np.ndarray, Raster(scaled=True)]


def _floats(image: np.ndarray, dtype: str, nodata: float | None) -> np.ndarray:
    converted = image.astype(dtype)
    if nodata is not None:
        converted[image == nodata] = np.nan
    return converted


@process(version="1.0.0", margin=0, releases_gil=True)
def to_float32(image: Source, tile: TileInfo) -> Single:
    """Convert numbers to float32, and nodata to NaN."""
    return _floats(image, "float32", tile.nodata)


@process(version="1.0.0", margin=0, releases_gil=True)
def to_float64(image: Source, tile: TileInfo) -> Double:
    """Convert numbers to float64, and nodata to NaN."""
    return _floats(image, "float64", tile.nodata)


@process(version="1.0.0", margin=0, releases_gil=True)
def physical_values(image: Physical) -> Single:
    """Convert stored numbers to the values that they mean, as float32, and nodata to NaN."""
    return image


@process(version="1.0.0", margin=0, releases_gil=True)
def enlarge_2(image: Source) -> Doubled:
    """Repeat each pixel 2 x 2 times."""
    return image.repeat(2, axis=1).repeat(2, axis=2)


@process(version="1.0.0", margin=0, releases_gil=True)
def enlarge_3(image: Source) -> Tripled:
    """Repeat each pixel 3 x 3 times."""
    return image.repeat(3, axis=1).repeat(3, axis=2)
