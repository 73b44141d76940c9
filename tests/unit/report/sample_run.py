"""Made rasters and runs for the tests of reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.enums import Resampling

from pesto_runtime.contract import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic import JsonValue

PIPELINE: dict[str, JsonValue] = {
    "name": "cloud-cover",
    "inputs": {"scene": "image"},
    "stages": [
        {"id": "mask", "process": "cloud-mask", "inputs": {"scene": "$inputs.scene"}},
        {"id": "clean", "process": "sieve", "inputs": {"mask": "$mask.cloud", "smallest": 9}},
        {"id": "cover", "process": "cloud-cover", "inputs": {"mask": "$clean.cloud"}},
    ],
    "outputs": {"mask": "$clean.cloud", "cover": "$cover.fraction"},
}

RESULT: dict[str, JsonValue] = {
    "status": "COMPLETE",
    "pipeline": "cloud-cover",
    "run": "0123abcd",
    "engine": {"name": "local", "run": "77aa", "executor": "threads", "workers": 3},
    "started": "2024-05-06T07:08:09+00:00",
    "seconds": 12.34,
    "inputs": {"scene": {"href": "file:///scene.tif", "identity": "1-2"}},
    "tiles": {"computed": 4, "reused": 0, "holes": 0},
    "chunks": 1,
    "bytes_read": 5_000_000,
    "phases": [
        {
            "kind": "map",
            "stages": ["mask", "clean", "cover"],
            "chunks": 1,
            "tile": [32, 32],
            "seconds": 12.0,
        }
    ],
    "stages": {
        name: {
            "process": process,
            "version": "1.0.0",
            "where": ["http://127.0.0.1:8000"],
            "calls": 4,
            "seconds": 3.0,
            "cpu_seconds": 2.0,
        }
        for name, process in (("mask", "cloud-mask"), ("clean", "sieve"), ("cover", "cloud-cover"))
    },
    "outputs": {
        "mask": {"path": "mask.tif", "sha256": "ab" * 32, "bytes": 999, "blocks_with_holes": 0},
        "cover": {"path": "cover.json", "sha256": "cd" * 32, "value": 0.0529886},
    },
    "skipped": [],
    "warnings": [],
    "versions": {"python": "3.11.7", "gdal": "3.10.3"},
    "cpu": ["x86_64", "AVX2"],
}


@dataclass(frozen=True)
class MadeTile:
    """A tile and what became of it."""

    window: Window
    seconds: float
    state: str = "done"


def tiles_over(size: tuple[int, int], side: int, *, state: str = "done") -> Iterator[MadeTile]:
    """Tiles of a scene, row-major, each a little slower than the one before."""
    width, height = size
    windows = (
        Window(x, y, min(side, width - x), min(side, height - y))
        for y in range(0, height, side)
        for x in range(0, width, side)
    )
    for number, window in enumerate(windows, start=1):
        yield MadeTile(window, 0.0 if state == "reused" else number / 1000, state)


def write_raster(
    path: Path,
    pixels: np.ndarray,
    *,
    nodata: float | None = None,
    names: Sequence[str] = (),
    overviews: Sequence[int] = (),
) -> Path:
    """Write an array (row, col) or (band, row, col) as a tiled GeoTIFF."""
    bands = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = bands.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=count,
        dtype=bands.dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    ) as dataset:
        dataset.write(bands)
        for number, name in enumerate(names, start=1):
            dataset.set_band_description(number, name)
        if overviews:
            dataset.build_overviews(list(overviews), Resampling.average)
    return path
