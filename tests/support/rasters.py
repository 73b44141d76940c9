"""Makes GeoTIFFs that the tests read, and reads back what a run wrote."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.transform import Affine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

UTM = (30.0, 0.0, 452475.0, 0.0, -30.0, 3408645.0)


def noise(width: int, height: int, *, bands: int = 1, dtype: str = "uint8", seed: int = 0,
          below: int = 200) -> np.ndarray:  # fmt: skip
    """Pixels (band, row, col) of a fixed seed, from 0 to below a limit."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, below, (bands, height, width)).astype(dtype)


def write_scene(
    path: Path,
    pixels: np.ndarray,
    *,
    names: Sequence[str] = ("grey",),
    crs: str | None = "EPSG:32616",
    transform: Sequence[float] | None = UTM,
    nodata: float | None = None,
    options: Mapping[str, object] | None = None,
) -> Path:
    """Write pixels (band, row, col) as a GeoTIFF; answers its path."""
    bands, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands,
        dtype=pixels.dtype.name, crs=crs, nodata=nodata,
        transform=None if transform is None else Affine(*transform), **(options or {}),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        for number, name in enumerate(names[:bands], start=1):
            dataset.set_band_description(number, name)
    return path


class ReplaceableScene:
    """A scene that can be replaced by another one of its size and times, and put back."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        """Write both: noise of seed 0, and of seed 1."""
        self.path = write_scene(path, noise(width, height))
        self._aside = path.with_name("aside.tif")
        self._other = write_scene(path.with_name("other.tif"), noise(width, height, seed=1))
        shutil.copystat(self.path, self._other)

    def replace(self) -> None:
        """Replace it atomically."""
        self._aside.hardlink_to(self.path)
        new = self._other.with_suffix(".new")
        shutil.copy2(self._other, new)
        new.replace(self.path)

    def put_back(self) -> None:
        """Put the old one back: the same inode, the same times."""
        self._aside.replace(self.path)

    def delete(self) -> None:
        """Delete it."""
        self._aside.hardlink_to(self.path)
        self.path.unlink()


def pixels_of(path: Path) -> np.ndarray:
    """All pixels (band, row, col) of a raster."""
    with rasterio.open(path) as dataset:
        pixels: np.ndarray = dataset.read()
    return pixels


def sha256_of(path: Path) -> str:
    """Of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamps(folder: Path) -> dict[str, int]:
    """Every file below a folder, by its path in it, and when it was written, nanoseconds."""
    return {name: (folder / name).stat().st_mtime_ns for name in tree(folder)}


def tree(folder: Path) -> set[str]:
    """Every file below a folder, by its path in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
