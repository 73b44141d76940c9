"""Sieve of a cloud mask: clouds of fewer than nine pixels are dropped."""

from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process

CLEAR, CLOUD = 0, 1
SMALLEST = 9
REACH = SMALLEST - 1


def neighbourhood(values: np.ndarray, fill: int) -> list[np.ndarray]:
    """The 3 x 3 around each (row, col), as nine shifted views; `fill` lies beyond the array."""
    rows, cols = values.shape
    padded = np.pad(values, 1, constant_values=fill)
    return [padded[y : y + rows, x : x + cols] for y in range(3) for x in range(3)]


@process(version="1.0.0", margin=REACH, releases_gil=True)
def sieve(
    mask: Annotated[np.ndarray, Raster(bands=["cloud"], dtype="uint8", nodata=255)],
) -> Annotated[np.ndarray, Raster(name="cloud", bands=["cloud"], dtype="uint8", nodata=255)]:
    """Drop clouds of fewer than 9 pixels, corners touching; anything else passes through.

    Every cloudy pixel takes the smallest label among its cloudy neighbours, eight times over. A
    component of fewer than nine pixels then bears one label. Conversely, fewer than nine pixels of
    one label are a whole component if and only if none of them has a neighbour of another label.
    A margin of eight pixels holds what is that small, and shows whether it goes on; seven do not.
    """
    cloudy = mask[0] == CLOUD
    outside = cloudy.size
    labels = np.where(cloudy, np.arange(cloudy.size).reshape(cloudy.shape), outside)
    for _ in range(REACH):
        smallest = np.minimum.reduce(neighbourhood(labels, outside))
        labels = np.where(cloudy, smallest, outside)
    around = neighbourhood(labels, outside)
    touches = np.logical_or.reduce([(each != labels) & (each != outside) for each in around])
    sizes = np.bincount(labels.ravel(), minlength=outside + 1)
    touched = np.bincount(labels.ravel(), weights=touches.ravel(), minlength=outside + 1) > 0
    dropped = cloudy & ((sizes < SMALLEST) & ~touched)[labels]
    return np.where(dropped, CLEAR, mask[0]).astype(np.uint8)[np.newaxis]
