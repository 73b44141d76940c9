"""A process that keeps what it is given, and one that returns it."""

from __future__ import annotations

from typing import Annotated

import numpy as np

import pesto_runtime
from pesto_runtime import Raster

_KEPT: list[np.ndarray] = []
Pixels = Annotated[np.ndarray, Raster(dtype="uint16", margin=0)]


@pesto_runtime.process(version="1.0.0")
def keep(image: Pixels) -> list[int]:
    """Return the largest pixel of each image since the first call."""
    _KEPT.append(image)
    return [int(each.max()) for each in _KEPT]


@pesto_runtime.process(version="1.0.0")
def same(image: Pixels) -> Annotated[np.ndarray, Raster(dtype="uint16")]:
    """Return the image."""
    return image
