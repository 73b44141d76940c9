"""Processes that take several payloads per request, and one that does not."""

from typing import Annotated, TypedDict

import numpy as np

from pesto_runtime import Raster, TileInfo, process

Scene = Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint16")]
Doubled = Annotated[np.ndarray, Raster(name="doubled", bands=["grey"], dtype="uint16")]


class Told(TypedDict):
    """An image, and where it lies."""

    doubled: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint16")]
    column: int


@process(version="1", batched=True, max_batch_size=4)
def add(a: int, b: int = 1) -> Annotated[int, "the sum"]:
    """Add two numbers; 13 is not liked."""
    if a == 13:
        raise ValueError("13")
    return a + b


@process(version="1", batched=True, max_batch_size=4, margin=0)
def double(scene: Scene, tile: TileInfo) -> Told:
    """Double an image, and tell the first column of its tile."""
    return {"doubled": scene * 2, "column": int(tile.read.col_off)}


@process(version="1", batched=True, max_batch_size=4, margin=0)
def double_only(scene: Scene) -> Doubled:
    """Double an image; values over 1000 are not liked."""
    if scene.max() > 1000:
        raise ValueError("over 1000")
    return scene * 2


@process(version="1", margin=0)
def double_alone(scene: Scene) -> Doubled:
    """Double an image, one per request."""
    return scene * 2
