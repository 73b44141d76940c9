"""The processes of the disturbed pipeline: a map, a reduce, and a map that needs its value."""

from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, process

Grey = Raster(bands=["grey"], dtype="uint8")
Image = Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]


@process(version="1", margin=1)
def grow(image: Annotated[np.ndarray, Grey]) -> Image:
    """Maximum of the 3 x 3 around every pixel."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    rows, cols = image.shape[1:]
    shifts = [padded[:, y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
    return np.maximum.reduce(shifts)


def finish_mean(partial: dict[str, int]) -> Annotated[float, Named("mean")]:
    """Divide the sums."""
    return partial["sum"] / partial["count"]


@process(version="1", reduce={"sum": "sum", "count": "sum"}, finish=finish_mean)
def mean(image: Annotated[np.ndarray, Grey]) -> dict[str, int]:
    """Mean of a raster."""
    return {"sum": int(image.sum(dtype=np.int64)), "count": image.size}


@process(version="1", margin=0)
def above(image: Annotated[np.ndarray, Grey], level: float) -> Image:
    """1 where a pixel is above a level, else 0."""
    return (image > level).astype(np.uint8)
