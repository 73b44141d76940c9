"""Make the pixels beyond an image: mirrored, those of its edge, or a number.

A pixel at a place beyond the image depends on the image and the place, and not on the window that
shows it. Which windows are shown is computed in `tiling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import InvalidInput
from pesto_runtime.tiling import whole

if TYPE_CHECKING:
    from pesto_runtime.contract import Fill, Window
    from pesto_runtime.tiling import Size


def extended(
    pixels: np.ndarray, source: Window, shown: Window, *, size: Size, fill: Fill
) -> np.ndarray:
    """Return a window of an image that may extend beyond it.

    Args:
        pixels: Array (band, row, col) of the window `source`.
        source: A window of the image, with all pixels that `shown` shows.
        shown: The window to return, in pixels of the image.
        size: Width and height of the image.
        fill: `reflect` mirrors the image without repeating its edge (as `np.pad`), `edge` repeats
            its edge, a number is the value of every pixel beyond it.

    Raises:
        InvalidInput: the number is not a value of the dtype of the pixels.
    """
    if whole(size).contains(shown):
        return pixels[(slice(None), *shown.relative_to(source).slices)]
    cols = _places(shown.col_off, shown.col_stop, size[0], fill)
    rows = _places(shown.row_off, shown.row_stop, size[1], fill)
    taken: np.ndarray = pixels[:, rows[:, np.newaxis] - source.row_off, cols - source.col_off]
    if not isinstance(fill, str):
        inside = shown.intersection(whole(size)).relative_to(shown)
        beyond = np.ones(taken.shape[1:], bool)
        beyond[inside.slices] = False
        taken[:, beyond] = _value(fill, pixels.dtype)
    return taken


def _places(start: int, stop: int, size: int, fill: Fill) -> np.ndarray:
    """Return the index in the image of each pixel from start to stop along one axis."""
    places = np.arange(start, stop)
    if fill != "reflect":
        return np.clip(places, 0, size - 1)
    period = max(2 * (size - 1), 1)
    places = places % period
    return np.minimum(places, period - places) if size > 1 else np.zeros_like(places)


def _value(fill: Fill, dtype: np.dtype) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        value = np.asarray(fill).astype(dtype)
    if dtype.kind in "iu" and value != fill:
        raise InvalidInput(
            f"fill {fill} is not a value of {dtype}: declare 'reflect', 'edge' or another number"
        )
    return value
