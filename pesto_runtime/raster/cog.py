"""A finished product as a cloud-optimised GeoTIFF, overviews and all: the same pixels, recoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rasterio.shutil
from rasterio.errors import RasterioError

from pesto_runtime.contract import BLOCK
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.read import raster_settings

if TYPE_CHECKING:
    from pathlib import Path


def write_cog(source: Path, path: Path) -> None:
    """Write a cloud-optimised copy of a product.

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
    except RasterioError as error:
        raise StoreFailed(f"{path}: {error}") from error
