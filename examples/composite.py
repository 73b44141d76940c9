"""Median of many dates of one place: clouds and gaps of single dates vanish."""

from typing import Annotated

import numpy as np
from pydantic import Field

from pesto_runtime import Raster, process


@process(version="1.0.0", margin=0)
def median_composite(
    dates: Annotated[list[np.ndarray], Raster(), Field(min_length=1)],
    valid: Annotated[list[np.ndarray], Raster(mask=True)],
) -> Annotated[np.ndarray, Raster(name="composite", dtype="float32", nodata="nan")]:
    """Return the median of every band and pixel over the dates on which the pixel is valid.

    A pixel without any valid date is not-a-number. Of an even number of dates it is the mean of the
    two in the middle.
    """
    stack = np.stack(dates).astype(np.float32)
    has_data = np.broadcast_to(np.stack(valid)[:, np.newaxis], stack.shape)
    stack[~has_data] = np.nan
    stack.sort(axis=0)  # not-a-number comes last
    count = has_data.sum(axis=0, keepdims=True)
    lower = np.take_along_axis(stack, np.maximum(count - 1, 0) // 2, axis=0)
    upper = np.take_along_axis(stack, np.minimum(count // 2, len(stack) - 1), axis=0)
    median: np.ndarray = (lower + upper)[0] / 2
    return median
