"""Processes of images with several resolutions, whose margins and alignments matter."""

from __future__ import annotations

from typing import Annotated, TypedDict

import numpy as np

from pesto_runtime import Named, Raster, TileInfo, process

Fine = Annotated[np.ndarray, Raster(name="image", dtype="float32", scale=2)]
Same = Annotated[np.ndarray, Raster(name="image", dtype="float32")]


def smooth(image: np.ndarray, radius: int) -> np.ndarray:
    """Return the mean of a square around each pixel, in float64; edges are repeated."""
    side = 2 * radius + 1
    padded = np.pad(image.astype("float64"), ((0, 0), (radius, radius), (radius, radius)), "edge")
    _, height, width = image.shape
    parts = [padded[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    made: np.ndarray = np.asarray(sum(parts)) / side**2
    return made


@process(version="1.0.0")
def sharpened(
    colour: Annotated[np.ndarray, Raster(margin=1)],
    grey: Annotated[np.ndarray, Raster(ratio=2, bands=1, margin=3)],
    valid: Annotated[np.ndarray, Raster(mask="grey")],
) -> Fine:
    """Multiply smoothed colours with smoothed grey values of twice the resolution."""
    coarse = smooth(colour, 1).repeat(2, axis=1).repeat(2, axis=2)
    made: np.ndarray = (coarse * smooth(grey, 3) * valid).astype("float32")
    return made


@process(version="1.0.0")
def combined(
    fine: Annotated[np.ndarray, Raster(margin=1)],
    coarse: Annotated[np.ndarray, Raster(ratio="1/2", margin=1)],
    tile: TileInfo,
) -> Same:
    """Add smoothed values of half the resolution, and the place of each pixel in the scene."""
    rows = np.arange(tile.read.row_off, tile.read.row_stop)[:, np.newaxis] % 7
    mean = smooth(coarse, 1).mean(axis=0, keepdims=True)
    added = mean.repeat(2, axis=1).repeat(2, axis=2)
    made: np.ndarray = (smooth(fine, 1) + added + rows).astype("float32")
    return made


@process(version="1.0.0")
def mirrored(
    colour: Annotated[np.ndarray, Raster(margin=2, edge="reflect")],
    grey: Annotated[np.ndarray, Raster(ratio=2, margin=4, align=4, edge="reflect")],
) -> Fine:
    """Look beyond the scene, which both images mirror."""
    coarse = smooth(colour, 2).repeat(2, axis=1).repeat(2, axis=2)
    made: np.ndarray = (coarse - smooth(grey, 4)).astype("float32")
    return made


@process(version="1.0.0")
def smoothed(
    image: Annotated[np.ndarray, Raster(margin=1, dtype="float32")],
) -> Annotated[np.ndarray, Raster(name="image", dtype="float32")]:
    """Return the mean of 3 x 3 pixels."""
    return smooth(image, 1).astype("float32")


class Counted(TypedDict):
    """An image, and values of the scene."""

    image: Annotated[np.ndarray, Raster(dtype="float32")]
    pixels: Annotated[int, Named(fold="sum")]
    total: Annotated[float, Named(fold="sum")]
    brightest: Annotated[float | None, Named(fold="max")]
    corners: Annotated[list[list[int]], Named(fold="concat")]


@process(version="1.0.0", margin=1)
def counted(image: Annotated[np.ndarray, Raster()], tile: TileInfo) -> Counted:
    """Smooth an image, and count over its pixels; the margin counts for nothing."""
    made = smooth(image, 1).astype("float32")
    rows, cols = tile.own_slices
    own = made[:, rows, cols]
    return {
        "image": made,
        "pixels": int(own[0].size),
        "total": float(own.sum(dtype="float64")),
        "brightest": float(own.max()) if own.max() > 0 else None,
        "corners": [[tile.own.row_off, tile.own.col_off]] if tile.own else [],
    }


@process(version="1.0.0", margin=0)
def bright(
    image: Annotated[np.ndarray, Raster()], tile: TileInfo, above: float = 0
) -> Annotated[int, Named("pixels", fold="sum")]:
    """Count bright pixels; no image is returned."""
    return int((image[(slice(None), *tile.own_slices)] > above).sum())
