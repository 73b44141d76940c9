"""Set GDAL up: cache, environment, warnings."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from pesto_runtime.remote import gdal_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


# `check` reports a raster without a CRS once. A filter around each call is not possible, because
# warnings.catch_warnings is not thread-safe: https://docs.python.org/3/library/warnings.html
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

GDAL_CACHE_BYTES = 8 << 20
"""GDAL's own cache of decoded blocks, in each process. Decoded blocks that several windows show are
in `block_cache.py`: with 4 MiB instead of 80 MiB here, no read was slower.
"""
_NOT_CACHED = "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"
"""Remote files whose bytes GDAL discards when they are closed. By default it keeps 16 MB of them
per process, and returns them for another scene at the same URL:
https://gdal.org/en/stable/user/virtual_file_systems.html#vsicurl-http-https-ftp-files-random-access
"""


@contextmanager
def raster_settings(*, cache_bytes: int = GDAL_CACHE_BYTES) -> Iterator[None]:
    """Set GDAL up for windowed reading in this thread: bounded cache, no directory listing.

    Args:
        cache_bytes: Size of GDAL's block cache, which all threads of the process share.
    """
    with rasterio.Env(
        GDAL_CACHEMAX=cache_bytes,
        GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
        GDAL_PAM_ENABLED="NO",
        CPL_VSIL_CURL_NON_CACHED=_NOT_CACHED,
        **gdal_settings(),
    ):
        yield


def limit_cache() -> None:
    """Limit GDAL's block cache of this process; a worker calls it before it opens a raster.

    GDAL uses the first value that it reads until the process ends, by default 5 % of the memory:
    https://gdal.org/en/stable/user/configoptions.html#performance-and-caching
    """
    os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_BYTES >> 20))  # GDAL's own unit: MiB


def gdal_version() -> str:
    """Return the version of GDAL."""
    return str(rasterio.__gdal_version__)
