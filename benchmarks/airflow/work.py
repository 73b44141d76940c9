"""The work that everybody does: a scene of N tiles, one block each, and a cheap stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import rasterio

from pesto_runtime import Raster, process

if TYPE_CHECKING:
    from pydantic import JsonValue

SIDE = 512


@process(version="1", margin=1)
def shade(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]:
    """Difference of every pixel to the one above: work of a millisecond or two a tile."""
    return np.asarray(image - np.roll(image, 1, axis=1))


@dataclass(frozen=True)
class Work:
    """A scene and the pipeline over it.

    Attributes:
        tiles: How many.
        scene: The scene's file.
        pipeline: One stage.
    """

    tiles: int
    scene: Path
    pipeline: dict[str, JsonValue]


def work_of(tiles: int, folder: Path) -> Work:
    """A square scene of so many tiles (a square number), a gradient in it."""
    across = int(tiles**0.5)
    path = folder / f"{tiles}.tif"
    row = (np.arange(across * SIDE) // 8 % 251).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=across * SIDE, height=across * SIDE, count=1,
        dtype="uint8", tiled=True, blockxsize=SIDE, blockysize=SIDE, compress="deflate",
        crs="EPSG:32616", transform=rasterio.Affine(30, 0, 0, 0, -30, 0),
    ) as scene:  # fmt: skip
        scene.write(np.broadcast_to(row, (1, across * SIDE, across * SIDE)))
        scene.set_band_description(1, "grey")
    return Work(tiles, path, _pipeline())


def _pipeline() -> dict[str, JsonValue]:
    return {
        "name": "shade",
        "inputs": {"scene": "image"},
        "services": {"shade": f"{Path(__file__).resolve()}:shade"},
        "stages": [{"id": "shade", "process": "shade", "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$shade.image"},
    }
