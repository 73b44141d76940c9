"""The arithmetic of the jobs, the same for every contestant; arrays are (band, row, col)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIGMA, TRUNCATE = 3.0, 4.0
MARGIN = 12
"""Pixels that the gaussian reaches: int(TRUNCATE * SIGMA + 0.5)."""
SMOOTH_SIGMA, SMOOTH_MARGIN = 2.0, 8
BINS, BIN_SHIFT = 1024, 6
"""Bins of 64 values each cover uint16."""


def gaussian(image: np.ndarray) -> np.ndarray:
    """Smooth every band of a uint16 image; pixels beyond the array repeat its edge."""
    smooth = np.empty_like(image)
    for band, out in zip(image, smooth, strict=True):
        ndimage.gaussian_filter(band, SIGMA, output=out, mode="nearest", truncate=TRUNCATE)
    return smooth


def ndvi(image: np.ndarray) -> np.ndarray:
    """Normalised difference of two bands, red and nir, times 10000, int16 (1, row, col)."""
    low, high = image.astype(np.float32)
    total = np.maximum(low + high, 1)
    np.subtract(high, low, out=high)
    np.multiply(high, 10000, out=high)
    np.divide(high, total, out=high)
    return np.rint(high, out=high).astype(np.int16)[np.newaxis]


def index(image: np.ndarray) -> np.ndarray:
    """Normalised difference of two bands, red and nir, float32 (1, row, col)."""
    low, high = image.astype(np.float32)
    total = np.maximum(low + high, 1)
    np.subtract(high, low, out=high)
    return np.divide(high, total, out=high)[np.newaxis]


def smooth(image: np.ndarray) -> np.ndarray:
    """Smooth an index (1, row, col); pixels beyond the array repeat its edge."""
    smoothed: np.ndarray = ndimage.gaussian_filter(
        image[0], SMOOTH_SIGMA, mode="nearest", truncate=TRUNCATE
    )
    return smoothed[np.newaxis]


def bright(image: np.ndarray) -> np.ndarray:
    """1 where an index (1, row, col) is above 0.2, uint8."""
    return np.asarray(image > np.float32(0.2), np.uint8)


def histograms(image: np.ndarray) -> np.ndarray:
    """Counts (band, bin), int64, of a uint16 image."""
    return np.stack([np.bincount((band >> BIN_SHIFT).ravel(), minlength=BINS) for band in image])


def exact_histograms(image: np.ndarray) -> np.ndarray:
    """Counts (band, value), int64, of a uint16 image."""
    return np.stack([np.bincount(band.ravel(), minlength=1 << 16) for band in image])
