"""The answer to `workflows/cloud_cover.json` over the Landsat scene, by scipy and without tiles."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import rasterio
from scipy import ndimage

from tests.support.runs import SCENE

_CLOUD, _NODATA = 1, 255


@dataclass(frozen=True)
class Answer:
    """What a right run gives.

    Attributes:
        mask: Array (row, col).
        cover: Cloudy part of the valid pixels.
    """

    mask: np.ndarray
    cover: float


@functools.cache
def expected_answer() -> Answer:
    """Thresholds, a convolution and connected components, over the whole scene at once."""
    with rasterio.open(SCENE) as file:
        bands = {name: file.read(n) for n, name in enumerate(file.descriptions, start=1)}
    numbers = np.stack([bands[name] for name in ("blue", "green", "red", "swir22")])
    blue, green, red, swir22 = np.float64(2.0e-5) * numbers - 0.1
    visible = np.stack([blue, green, red])
    average = visible.mean(axis=0)
    whiteness = (np.abs(visible - average) / average).sum(axis=0)
    candidate = (blue - 0.5 * red - 0.08 > 0) & (whiteness < 0.7) & (swir22 > 0.03)
    around = ndimage.convolve(candidate.astype(int), np.ones((5, 5), int), mode="constant")
    mask = (candidate & (around >= 7)).astype(np.uint8)
    mask[(numbers == 0).all(axis=0)] = _NODATA
    labels, _ = ndimage.label(mask == _CLOUD, structure=np.ones((3, 3)))
    small = np.bincount(labels.ravel()) < 9
    small[0] = False
    mask = np.where(small[labels], 0, mask).astype(np.uint8)
    cover = np.count_nonzero(mask == _CLOUD) / np.count_nonzero(mask != _NODATA)
    return Answer(mask, float(cover))
