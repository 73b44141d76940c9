"""Write the cloud-optimised copy of a product: GDAL copies it, and adds overviews."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pesto_runtime.contract import BLOCK, Compression
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.gdal import raster_settings

if TYPE_CHECKING:
    from pathlib import Path


_CACHE_BYTES = 80 << 20  # GDAL reads blocks several times for overviews: with 16 MiB, 2.2 x the CPU


def write_cog(source: Path, path: Path, compression: Compression = Compression()) -> None:
    """Write a cloud-optimised copy of a product; if that fails, no file remains.

    Its blocks are compressed by GDAL, which has no deflate level 6, and writes level 7 for it.

    Raises:
        StoreFailed: the disk is full, or the folder is not writable.
    """
    try:
        with raster_settings(cache_bytes=_CACHE_BYTES):
            rasterio.shutil.copy(
                source,
                path,
                driver="COG",
                compress=compression.codec,
                **_cog_level(compression),
                predictor="YES",
                blocksize=BLOCK,
                overviews="AUTO",
                resampling="NEAREST",
                num_threads=1,
            )
            _read_last_block(path)
    except (
        RasterioError,
        CPLE_BaseError,
    ) as error:  # rasterio does not wrap GDAL's errors of a copy
        reason = _disk_full(path.parent, source.stat().st_size) or str(error)
        if path.is_file():
            path.unlink()
        raise StoreFailed(f"{path}: {reason}") from error


def _cog_level(compression: Compression) -> dict[str, int]:
    """Return GDAL's level: libtiff gives libdeflate's levels 7 to 10 the numbers 6 to 9."""
    is_shifted = compression.codec == "deflate" and compression.level in range(7, 10)
    level = compression.level - is_shifted
    return {"level": level} if level else {}


def _read_last_block(path: Path) -> None:
    """Check that the file is complete: GDAL does not report an error of its last flush."""
    with rasterio.open(path) as dataset:
        dataset.read(1, window=Window(dataset.width - 1, dataset.height - 1, 1, 1))


def _disk_full(folder: Path, size: int) -> str:
    """Return the operating system's message if the disk is full; GDAL's own message varies."""
    is_full = folder.is_dir() and shutil.disk_usage(folder).free < size
    return os.strerror(errno.ENOSPC) if is_full else ""
