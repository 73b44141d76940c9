"""A finished product as a cloud-optimised GeoTIFF, overviews and all: the same pixels, recoded."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pesto_runtime.contract import BLOCK
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.read import raster_settings

if TYPE_CHECKING:
    from pathlib import Path


def write_cog(source: Path, path: Path) -> None:
    """Write a cloud-optimised copy of a product; nothing is left where that fails.

    Raises:
        StoreFailed: disk full, or the folder is not writable.
    """
    try:
        with raster_settings():
            rasterio.shutil.copy(
                source,
                path,
                driver="COG",
                compress="DEFLATE",
                level=6,
                predictor="YES",
                blocksize=BLOCK,
                overviews="AUTO",
                resampling="NEAREST",
                num_threads=1,
            )
            _read_last_block(path)
    except (RasterioError, CPLE_BaseError) as error:  # a copy lets GDAL's own errors through
        reason = _disk_full(path.parent, source.stat().st_size) or str(error)
        if path.is_file():
            path.unlink()
        raise StoreFailed(f"{path}: {reason}") from error


def _read_last_block(path: Path) -> None:
    """Find out whether the file is all there: GDAL tells no error of its last flush."""
    with rasterio.open(path) as dataset:
        dataset.read(1, window=Window(dataset.width - 1, dataset.height - 1, 1, 1))


def _disk_full(folder: Path, size: int) -> str:
    """The operating system's word where there is no room left; GDAL's own changes."""
    is_full = folder.is_dir() and shutil.disk_usage(folder).free < size
    return os.strerror(errno.ENOSPC) if is_full else ""
