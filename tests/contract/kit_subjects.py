"""Processes that give each check of the contract kit an occasion."""

from __future__ import annotations

import time
from typing import Annotated, TypedDict

import numpy as np

from pesto_runtime import Raster, process


class Everything(TypedDict):
    """One image of the dtype of its input, one of its own, one number."""

    largest: Annotated[np.ndarray, Raster(scale=1)]
    bright: Annotated[np.ndarray, Raster(bands=["bright"], dtype="uint8", nodata=255)]
    total: float


@process(version="1.0.0", margin=1)
def everything(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype=["uint8", "uint16"])],
    valid: Annotated[np.ndarray, Raster(mask=True)],
    threshold: float = 90,
    seconds: float = 0,
) -> Everything:
    """Find the largest value of 3 x 3 pixels, pixels above a threshold, and the valid ones."""
    time.sleep(seconds)
    rows, cols = image.shape[1:]
    padded = np.pad(np.where(valid, image, 0), ((0, 0), (1, 1), (1, 1)))
    shifts = [padded[:, y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
    return {
        "largest": np.max(shifts, axis=0).astype(image.dtype),
        "bright": (image > threshold).astype(np.uint8),
        "total": float(valid.sum()),
    }


@process(version="1.0.0", examples=[
    {"inputs": {"a": 1, "b": 2}, "outputs": {"result": 3}},
    {"inputs": {"a": 0.1, "b": 0.2}, "outputs": {"result": 0.3}, "tolerance": 1e-9},
])  # fmt: skip
def total(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b
