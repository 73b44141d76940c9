"""The work of the real runs: scenes of equal size, a process that waits, and its pipeline."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import rasterio

from pesto_runtime import Raster, process
from pesto_runtime.contract import Pipeline


@process(version="1", margin=0)
def waiting(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")],
    pause: Annotated[float, "seconds to wait for each tile"] = 0.0,
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]:
    """Give the image back after a pause, as if a GPU had computed it."""
    time.sleep(pause)
    return np.array(image)


def scenes_of(folder: Path, count: int, side: int) -> list[str]:
    """Return files of so many scenes of `side` x `side` tiles of 512 pixels, compressed 2:1."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"s{number:03d}-{side}.tif" for number in range(count)]
    if not paths[0].exists():
        _write_noise(paths[0], side * 512)
    for path in paths:
        if not path.exists():
            shutil.copy(paths[0], path)
    return [str(path) for path in paths]


def _write_noise(path: Path, side: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 16, (1, side, side), np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", crs="EPSG:32616",
        transform=rasterio.Affine(30, 0, 0, 0, -30, 0),
    ) as scene:  # fmt: skip
        scene.write(pixels)
        scene.set_band_description(1, "grey")


def pipeline_of(pause_s: float, url: str = "") -> Pipeline:
    """Return the pipeline of one stage; its process is a service if there is a URL."""
    return Pipeline.parse(
        {
            "name": "waiting",
            "inputs": {"scene": "image"},
            "services": {"waiting": url or f"{Path(__file__).resolve()}:waiting"},
            "stages": [
                {
                    "id": "w",
                    "process": "waiting",
                    "inputs": {"image": "$inputs.scene", "pause": pause_s},
                }
            ],
            "outputs": {"image": "$w.image"},
        }
    )
