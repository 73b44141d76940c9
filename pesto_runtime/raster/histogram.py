"""Count the values of a band in bins of equal width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 64


@dataclass(frozen=True)
class Histogram:
    """A histogram.

    Attributes:
        least: The least value.
        most: The greatest value.
        mean: The mean of all values.
        counts: Number of values in each bin, from the least; empty without values.
        start: Lower edge of the first bin.
        stop: Upper edge of the last bin.
    """

    least: float = 0.0
    most: float = 0.0
    mean: float = 0.0
    counts: tuple[int, ...] = ()
    start: float = 0.0
    stop: float = 0.0


def histogram_of(values: np.ndarray) -> Histogram:
    """Return the histogram of some values, without not-a-number.

    Integers of a small range have a bin each, others 64 bins at most.
    """
    if not values.size:
        return Histogram()
    least, most, mean = float(values.min()), float(values.max()), float(values.mean(dtype=float))
    if values.dtype.kind in "iu":
        width = -(-(int(values.max()) - int(values.min()) + 1) // BINS)
        bins = -(-(int(values.max()) - int(values.min()) + 1) // width)
        start, stop = least - 0.5, least - 0.5 + width * bins
    else:
        bins, start, stop = BINS, least, most
    if not stop - start > 0:  # a single float value
        bins, start, stop = 1, least, most
        return Histogram(least, most, mean, (int(values.size),), start, stop)
    counts, _ = np.histogram(values, bins=bins, range=(start, stop))
    return Histogram(least, most, mean, tuple(counts.tolist()), start, stop)
