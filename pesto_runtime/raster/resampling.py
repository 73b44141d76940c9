"""Resample pixels onto another grid; every output pixel depends on its place alone.

The place of output pixels in the source is computed at the nodes of a lattice that is fixed to the
output grid, and interpolated between them. So it does not depend on the window that is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import aligned_target, calculate_default_transform, transform

from pesto_runtime.contract import Grid, Window
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Resampling: TypeAlias = Literal["nearest", "bilinear", "cubic"]

_STEPS = (32, 16, 8, 4, 2, 1)
_PRECISE = 1 / 512  # pixels of the source
_REACH = {"nearest": 1, "bilinear": 1, "cubic": 2}


def target_grid(source: Grid, *, crs: str | None, resolution: float | None) -> Grid:
    """Return the grid of a warped image that covers its source.

    With a resolution, the edges are multiples of it: images of one resolution share a grid.

    Args:
        source: Grid of the image.
        crs: CRS of the output; None for that of the source.
        resolution: Side of a pixel in units of the CRS; None for about that of the source.

    Raises:
        InvalidInput: the source has no place, or the CRS is not known.
    """
    if source.transform is None or source.crs is None:
        raise InvalidInput("has no CRS or no transform, so its place in another grid is not known")
    to = _crs(crs or source.crs)
    corners = [Affine(*source.transform) * (x, y)
               for x in (0, source.width) for y in (0, source.height)]  # fmt: skip
    xs, ys = zip(*corners, strict=True)
    try:
        made, width, height = calculate_default_transform(
            _crs(source.crs), to, source.width, source.height,
            left=min(xs), bottom=min(ys), right=max(xs), top=max(ys), resolution=resolution,
        )  # fmt: skip
        if resolution is not None:
            made, width, height = aligned_target(made, width, height, resolution)
    except RasterioError as error:
        raise InvalidInput(f"cannot be placed in {crs}: {error}") from error
    return Grid(width=width, height=height, crs=crs or source.crs, transform=tuple(made)[:6])


def _crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise InvalidInput(
            f"CRS {text!r} is not known: write an authority's code as EPSG:32631, or WKT"
        ) from error


@dataclass(frozen=True)
class Warp:
    """The places of an output grid's pixels in a source.

    Attributes:
        source: Grid of the source.
        target: Grid of the output; both have a transform.
        resampling: How pixels between those of the source are computed.
    """

    source: Grid
    target: Grid
    resampling: Resampling

    @cached_property
    def step(self) -> int:
        """Pixels of the output between two nodes: so few that places are right to 1/512 pixel."""
        return next((step for step in _STEPS if self._error(step) <= _PRECISE), 1)

    def places(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the centres of a window's pixels in the source.

        Args:
            window: In pixels of the output grid.

        Returns:
            Columns and rows as float64 arrays (row, col): 0.5 is the centre of the first pixel.
            They are not finite where a pixel has no place.
        """
        return self._interpolated(window, self.step)

    def source_window(self, places: tuple[np.ndarray, np.ndarray]) -> Window:
        """Return the pixels of the source that places need; empty for none."""
        reach = _REACH[self.resampling]
        spans = []
        for values, size in zip(places, (self.source.width, self.source.height), strict=True):
            finite = values[np.isfinite(values)]
            if not finite.size:
                return Window(0, 0, 0, 0)
            first = min(max(math.floor(finite.min()) - reach, 0), size)
            last = min(max(math.floor(finite.max()) + reach + 1, first), size)
            spans.append((first, last))
        (left, right), (top, bottom) = spans
        return Window.spanning(left, top, right, bottom)

    def resampled(
        self,
        pixels: np.ndarray,
        valid: np.ndarray,
        window: Window,
        places: tuple[np.ndarray, np.ndarray],
        *,
        nodata: complex,
    ) -> np.ndarray:
        """Return the values at places.

        A pixel is valid where the nearest pixel of the source is. Other pixels without data are
        left out: bilinear weights are those of the valid ones, and cubic ones become bilinear.

        Args:
            pixels: Array (band, row, col) of a window of the source.
            valid: Its valid pixels, bool (band, row, col).
            window: That window.
            places: As `places` returns them.
            nodata: Value of pixels that are not valid; a valid one that would have it gets the next
                number.
        """
        cols, rows = places[0] - window.col_off, places[1] - window.row_off
        height, width = pixels.shape[1:]
        with np.errstate(invalid="ignore"):  # of places that are not finite
            inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
        made = np.full((pixels.shape[0], *cols.shape), nodata, pixels.dtype)
        if not inside.any():
            return made
        cols, rows = cols[inside], rows[inside]
        near = (np.floor(rows).astype(np.intp), np.floor(cols).astype(np.intp))
        for band, mask, out in zip(pixels, valid, made, strict=True):
            has_data = mask[near]
            if self.resampling == "nearest":
                values = band[near]
            else:
                values = _rounded(self._mean(band, mask, rows, cols), band.dtype)
                values = _without(values, nodata)
            out[inside] = np.where(has_data, values, out[inside])
        return made

    def _mean(
        self, band: np.ndarray, mask: np.ndarray, rows: np.ndarray, cols: np.ndarray
    ) -> np.ndarray:
        linear, _ = _weighted(band, mask, rows, cols, _linear, (0, 1))
        if self.resampling == "bilinear":
            return linear
        cubic, is_whole = _weighted(band, mask, rows, cols, _cubic, (-1, 0, 1, 2))
        return np.where(is_whole, cubic, linear)

    def _interpolated(self, window: Window, step: int) -> tuple[np.ndarray, np.ndarray]:
        first_col, first_row = window.col_off // step, window.row_off // step
        node_cols = np.arange(first_col, (window.col_stop - 1) // step + 2)
        node_rows = np.arange(first_row, (window.row_stop - 1) // step + 2)
        nodes = self._exact(*np.meshgrid(node_cols * float(step), node_rows * float(step)))
        cols = (np.arange(window.col_off, window.col_stop) + 0.5) / step
        rows = (np.arange(window.row_off, window.row_stop) + 0.5) / step
        left, upper = np.floor(cols).astype(np.intp), np.floor(rows).astype(np.intp)
        x, y = (cols - left)[np.newaxis, :], (rows - upper)[:, np.newaxis]
        left, upper = left - first_col, (upper - first_row)[:, np.newaxis]

        def between(values: np.ndarray) -> np.ndarray:
            above = values[upper, left] * (1 - x) + values[upper, left + 1] * x
            below = values[upper + 1, left] * (1 - x) + values[upper + 1, left + 1] * x
            made: np.ndarray = above * (1 - y) + below * y
            return made

        with np.errstate(invalid="ignore"):  # of nodes without a place
            return between(nodes[0]), between(nodes[1])

    def _exact(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of points of the output grid in the source, by PROJ."""
        a, b, c, d, e, f = self.target.transform or (1, 0, 0, 0, 1, 0)
        xs, ys = a * cols + b * rows + c, d * cols + e * rows + f
        if self.source.crs != self.target.crs:
            to, of = _crs(self.target.crs or ""), _crs(self.source.crs or "")
            if to != of:
                moved = transform(to, of, xs.ravel().tolist(), ys.ravel().tolist())
                xs, ys = (np.asarray(each).reshape(cols.shape) for each in moved[:2])
        a, b, c, d, e, f = (~Affine(*(self.source.transform or (1, 0, 0, 0, 1, 0))))[:6]
        return a * xs + b * ys + c, d * xs + e * ys + f

    def _error(self, step: int) -> float:
        """Return the largest error of places within some cells of the lattice, in pixels."""
        if step == 1:
            return 0.0
        worst = 0.0
        for window in self._cells(step):
            found = self._interpolated(window, step)
            rows, cols = (np.arange(step) + 0.5 for _ in range(2))
            exact = self._exact(*np.meshgrid(window.col_off + cols, window.row_off + rows))
            for one, other in zip(found, exact, strict=True):
                difference = np.abs(one - other)
                worst = max(worst, float(difference[np.isfinite(difference)].max(initial=0.0)))
        return worst

    def _cells(self, step: int) -> Iterator[Window]:
        """Yield the cells at the corners, the edges and the middle of the output grid."""
        for row in {0, self.target.height // 2, self.target.height - 1}:
            for col in {0, self.target.width // 2, self.target.width - 1}:
                yield Window(col // step * step, row // step * step, step, step)


def _weighted(
    band: np.ndarray,
    mask: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    kernel: Callable[[np.ndarray], np.ndarray],
    offsets: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean of the valid pixels around places, and where all are valid.

    Pixels beyond the image are those of its edge.
    """
    height, width = band.shape
    is_complex = np.iscomplexobj(band)
    total = np.zeros(rows.shape, complex if is_complex else float)
    weight, is_whole = np.zeros(rows.shape), np.ones(rows.shape, bool)
    upper, left = np.floor(rows - 0.5), np.floor(cols - 0.5)
    y, x = rows - 0.5 - upper, cols - 0.5 - left
    for i in offsets:
        row = np.clip(upper.astype(np.intp) + i, 0, height - 1)
        of_row = kernel(np.abs(y - i))
        for j in offsets:
            col = np.clip(left.astype(np.intp) + j, 0, width - 1)
            share = of_row * kernel(np.abs(x - j))
            is_valid = mask[row, col]
            is_whole &= is_valid | (share == 0)
            share = np.where(is_valid, share, 0.0)
            total += share * np.where(is_valid, band[row, col], 0)
            weight += share
    with np.errstate(invalid="ignore", divide="ignore"):  # of places without a valid pixel
        return total / weight, is_whole


def _linear(distance: np.ndarray) -> np.ndarray:
    made: np.ndarray = np.maximum(1 - distance, 0)
    return made


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return the cubic convolution kernel with a = -1/2.

    R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 29 (6), 1981, equation 15.
    """
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values in a dtype; integers are rounded to the nearest, and limited to its range."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    finite = np.nan_to_num(values, nan=0.0)
    made: np.ndarray = np.clip(np.rint(finite), limits.min, limits.max).astype(dtype)
    return made


def _without(values: np.ndarray, nodata: complex) -> np.ndarray:
    """Return values with the next number in place of nodata."""
    same = values == nodata
    if not same.any():
        return values
    if values.dtype.kind in "iu":
        step = 1 if nodata.real < np.iinfo(values.dtype).max else -1
        following = np.asarray(int(nodata.real) + step, values.dtype)
    else:
        one = values.real.dtype.type
        following = np.nextafter(one(nodata.real), one(np.inf))
    made: np.ndarray = np.where(same, following, values)
    return made
