"""Scenes of the benchmark, the same bytes every time: noise of many scales that compresses 2:1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy import ndimage

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 512
PROFILE = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": BLOCK,
    "blockysize": BLOCK,
    "compress": "deflate",
    "zlevel": 4,
    "predictor": 2,
    "interleave": "pixel",
}
"""How every scene and every product is stored."""
BANDS = {"one": ("grey",), "four": ("red", "green", "swir", "nir")}
_MEAN, _FINEST = 9000, 28
_OCTAVES = ((1024, 2500), (256, 1200), (64, 400), (16, 120), (4, 40))  # pixels, amplitude


def scene(folder: Path, name: str, *, size: int) -> Path:
    """The scene of this name, made where it is missing.

    Args:
        folder: Of the cache.
        name: `one` or `four` (bands).
        size: Width and height, pixels.
    """
    path = folder / f"{name}-{size}.tif"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        _write(part, BANDS[name], size)
        part.replace(path)
    return path


def _write(path: Path, names: tuple[str, ...], size: int) -> None:
    with rasterio.open(
        path,
        "w",
        width=size,
        height=size,
        count=len(names),
        dtype="uint16",
        crs="EPSG:32631",
        transform=from_origin(300000, 4900000, 10, 10),
        num_threads="all_cpus",
        **PROFILE,
    ) as file:
        file.write(np.stack([_band(number, size) for number in range(len(names))]))
        file.descriptions = names


def _band(number: int, size: int) -> np.ndarray:
    total = np.full((size, size), _MEAN + 1500 * number, np.float32)
    for pixels, amplitude in _OCTAVES:
        random = np.random.default_rng([number, pixels])
        coarse = random.standard_normal((size // pixels + 2,) * 2, np.float32)
        total += amplitude * _grown(coarse, pixels, size)
    random = np.random.default_rng([number, 1])
    total += _FINEST * random.standard_normal((size, size), np.float32)
    return np.clip(total, 1, 65535).astype(np.uint16)


def _grown(coarse: np.ndarray, pixels: int, size: int) -> np.ndarray:
    side = coarse.shape[0]
    grown = ndimage.zoom(coarse, pixels, order=1, output=np.float32, grid_mode=True, mode="nearest")
    start = (side * pixels - size) // 2
    return np.asarray(grown[start : start + size, start : start + size])
