"""The built-in process `warp`: resamples an image onto the grid of another one, or of another CRS.

A run computes it itself, from windows of its source (`run/warps.py`): which pixels of the source an
output window needs depends on both places.
"""

# ruff: noqa: ARG001  # a run reads its arguments from the contract, and does not call it

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np  # noqa: TC002  # type hints are read at run time

from pesto_runtime.errors import InvalidInput
from pesto_runtime.processor.annotations import Raster
from pesto_runtime.processor.authoring import process


@process(version="1.0.0", margin=0, releases_gil=True)
def warp(
    image: Annotated[np.ndarray, Raster(windows="own")],
    like: Annotated[np.ndarray | None, Raster(windows="none")] = None,
    crs: str | None = None,
    resolution: float | None = None,
    ratio: int | str = 1,
    resampling: Literal["nearest", "bilinear", "cubic"] = "nearest",
    nodata: float | None = None,
) -> Annotated[np.ndarray, Raster(name="image")]:
    """Resample an image onto another grid.

    Args:
        image: The image, with CRS and transform.
        like: An image whose grid the output has.
        crs: CRS of the output, as `EPSG:32631` or WKT; for an output without `like`. By default
            that of the image.
        resolution: Side of a pixel, in units of the CRS; for an output without `like`. By default
            about that of the image.
        ratio: Pixels of the output per pixel of `like`, N or 1/N.
        resampling: `nearest`, `bilinear`, or `cubic` (Keys, a = -1/2).
        nodata: Value of pixels beyond the image, for one without nodata.
    """
    raise InvalidInput(
        "warp needs the place of its image on Earth: use it as a stage of a pipeline (`pesto run`)"
    )
