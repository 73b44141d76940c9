"""Processes that give an image of 1, 3, 4 or 13 bands back, and one that takes two and a list."""

from collections.abc import Callable
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process
from pesto_runtime.processor import Named


def _same(count: int) -> Callable[[np.ndarray], np.ndarray]:
    names = [f"b{number}" for number in range(1, count + 1)]

    def same(
        image: Annotated[np.ndarray, Raster(bands=names)],
    ) -> Annotated[np.ndarray, Raster(name="image", bands=names, nodata=7)]:
        """Give the image back."""
        return image

    return process(version="1")(same)


same1, same3, same4, same13 = _same(1), _same(3), _same(4), _same(13)


@process(version="1")
def differ(
    before: Annotated[np.ndarray, Raster(bands=1)],
    after: Annotated[np.ndarray, Raster(bands=1)],
    weight: float = 1.0,
    note: str = "",
) -> Annotated[dict[str, object], Named("told")]:
    """Tell what arrived of two images."""
    change = (after.astype(float) - before).sum() * weight
    return {"change": change, "dtypes": [before.dtype.name, after.dtype.name], "note": note}
