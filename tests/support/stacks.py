"""Processes that take a list of images, and rasters for them."""

from typing import Annotated

import numpy as np
from pydantic import Field

from pesto_runtime import Raster, process


@process(version="1", margin=1, align=2, fill="edge")
def spread_of_means(
    first: np.ndarray,
    dates: Annotated[list[np.ndarray], Raster(edge="reflect", fill="reflect"), Field(max_length=4)],
) -> Annotated[np.ndarray, Raster(name="image", dtype="float32")]:
    """Return the largest mean of 3 x 3 pixels of the dates, minus the pixel of `first`."""
    means = []
    for date in dates:
        padded = np.pad(date.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
        rows, cols = date.shape[1:]
        near = [padded[:, y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
        means.append(np.sum(near, axis=0))
    return np.asarray(np.max(means, axis=0) / np.float32(9) - first)


@process(version="1", margin=0)
def order_matters(dates: list[np.ndarray]) -> Annotated[np.ndarray, Raster(name="image")]:
    """Return the dates, each times its place in the list."""
    total = sum((n + 1) * date.astype(np.uint32) for n, date in enumerate(dates))
    return np.asarray(total).astype(dates[0].dtype)


@process(version="1", margin=0)
def plus_one(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="image")]:
    """Return the image plus one."""
    return np.asarray(image + image.dtype.type(1))
