"""What made the pixels: versions of packages, and the CPU features that decide a float's last bit.

numpy takes other code paths for exp, log and pow with AVX512 than with AVX2, and they differ.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from pesto_runtime.raster import gdal_version

_PACKAGES = ("pesto-workflows", "numpy", "rasterio", "obstore", "pydantic")


def versions() -> dict[str, str]:
    """Package or tool -> version."""
    found = {"python": platform.python_version(), "gdal": gdal_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[name] = "not installed"
    return found


def cpu_features() -> tuple[str, ...]:
    """The machine, and the SIMD extensions that numpy uses on it."""
    config = np.show_config(mode="dicts")
    simd = config.get("SIMD Extensions", {}) if isinstance(config, dict) else {}
    return (platform.machine(), *simd.get("baseline", []), *simd.get("found", []))
