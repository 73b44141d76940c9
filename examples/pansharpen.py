"""Pansharpening: colours of a coarse image with the detail of a panchromatic one."""

from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process


@process(version="1.0.0", margin=0)
def pansharpen(
    colour: Annotated[np.ndarray, Raster(bands=["blue", "green", "red"])],
    panchromatic: Annotated[np.ndarray, Raster(bands=1, ratio=2)],
    valid: Annotated[np.ndarray, Raster(mask="panchromatic")],
) -> Annotated[np.ndarray, Raster(name="image", dtype="float32", nodata="nan", scale=2)]:
    """Multiply each band by the ratio of the panchromatic value to the mean of the bands.

    The Brovey transform: A. R. Gillespie, A. B. Kahle, R. E. Walker, "Color enhancement of highly
    correlated images. II. Channel ratio and chromaticity transformation techniques", Remote Sensing
    of Environment 22 (3), 1987.
    """
    fine = colour.astype(np.float32).repeat(2, axis=1).repeat(2, axis=2)
    sharpened: np.ndarray = fine * (panchromatic / np.maximum(fine.mean(axis=0), 1))
    sharpened[:, ~valid] = np.nan
    return sharpened
