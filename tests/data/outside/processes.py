"""Processes whose products are frozen. Every byte of this file is part of the frozen block keys."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, TileInfo, Vector, process

Grey = Raster(bands=["grey"], dtype="uint16")
NODATA = {
    "uint8": 255,
    "int8": -128,
    "uint16": 65535,
    "int16": -32768,
    "uint32": 4294967295,
    "int32": -2147483648,
    "uint64": 7,
    "int64": -9,
    "float32": float("nan"),
    "float64": -9999.0,
    "complex64": -1.0,
    "complex128": -2.0,
}


def spread(image: np.ndarray, dtype: str) -> np.ndarray:
    """Spread pixels of 16 bits over what a dtype can be; exact, and the same on every machine."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return ((image.astype(np.float64) - 30_000) / 7).astype(dtype)
    if kind == "c":
        return (image / 8 - 1j * (image % 251)).astype(dtype)
    return (image.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(dtype)


def copied(name: str, dtype: str, nodata: float | None):
    """Make the process that gives an image in a dtype; its first 8 x 8 pixels are nodata."""

    def copy(
        image: Annotated[np.ndarray, Grey],
    ) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype=dtype, nodata=nodata)]:
        """Give the image in another dtype."""
        made = spread(image, dtype)
        if nodata is not None:
            made[:, :8, :8] = nodata
        return made

    copy.__name__ = copy.__qualname__ = name
    return process(version="1", margin=0)(copy)


for each, value in NODATA.items():
    globals()[f"plain_{each}"] = copied(f"plain_{each}", each, None)
    globals()[f"void_{each}"] = copied(f"void_{each}", each, value)


@process(version="1", margin=1)
def colours(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[
    np.ndarray, Raster(name="image", bands=["low", "high", "peak"], dtype="uint8", nodata=0)
]:
    """Give low byte, high byte and the maximum of the 3 x 3 around every pixel."""
    _, rows, cols = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    around = [padded[0, y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
    peak = np.maximum.reduce(around) >> 8
    return np.stack([image[0] & 255, image[0] >> 8, peak]).astype(np.uint8)


@process(version="1", margin=0)
def fragile(
    image: Annotated[np.ndarray, Grey], tile: TileInfo
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="int16", nodata=-1)]:
    """Give the image, but fail in the tile of the first pixel."""
    if tile.read.col_off == tile.read.row_off == 0:
        raise ZeroDivisionError("frozen")
    return (image >> 1).astype(np.int16)


@process(version="1", margin=0)
def marks(
    image: Annotated[np.ndarray, Grey], every: int = 499
) -> Annotated[dict[str, object], Vector(name="marks", geometry=["Point", "Polygon"])]:
    """Put a point (even rows) or a triangle (odd rows) on multiples of a number."""
    features = []
    for row, col in np.argwhere(image[0] % every == 1).tolist():
        corners = [[col, row], [col + 1 / 3, row + 0.7], [col + 0.9, row], [col, row]]
        geometry = (
            {"type": "Polygon", "coordinates": [corners]}
            if row % 2
            else {"type": "Point", "coordinates": [col + 0.5, row + 0.1]}
        )
        found = {"value": int(image[0, row, col]), "name": "é"}
        features.append({"type": "Feature", "geometry": geometry, "properties": found})
    return {"type": "FeatureCollection", "features": features}


def finish(partial: dict[str, int]) -> Annotated[float, Named("mean")]:
    """Divide the sums."""
    return partial["sum"] / partial["count"]


@process(version="1", reduce={"sum": "sum", "count": "sum", "top": "max"}, finish=finish)
def mean(image: Annotated[np.ndarray, Grey]) -> dict[str, int]:
    """Take the mean of a raster."""
    return {"sum": int(image.sum(dtype=np.int64)), "count": image.size, "top": int(image.max())}


@process(version="1", tileable="whole")
def ranked(
    image: Annotated[np.ndarray, Grey], mean: float
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint16")]:
    """Halve what is above the mean: a second phase."""
    return np.where(image > mean, image >> 1, image)


@process(version="1", margin=0)
def held(
    image: Annotated[np.ndarray, Grey], until: str = ""
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint16")]:
    """Give the image back, where a file is named only once it exists."""
    while until and not Path(until).exists():
        time.sleep(0.01)
    return image.copy()
