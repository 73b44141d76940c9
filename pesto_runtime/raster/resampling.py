"""Resample pixels onto another grid; every output pixel depends on its place alone.

The place of output pixels in the source is computed at the nodes of a lattice that is fixed to the
output grid, and interpolated between them where that is precise enough, cell by cell. So it does
not depend on the window that is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from pesto_runtime.contract import Grid, Window
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Resampling: TypeAlias = Literal["nearest", "bilinear", "cubic"]

_STEP = 16  # pixels of the output between two nodes
_CHECKED = ((4, 4), (4, 12), (8, 8), (12, 4), (12, 12))  # pixels (row, col) of each cell
_PRECISE = 1 / 512  # pixels of the source
_REACH = {"nearest": 1, "bilinear": 1, "cubic": 2}
_SAMPLES = 33  # points along each side of an image whose place is checked
_TORN = 20.0  # times the usual distance of two of them
MOST_SIDE = 10**6
"""Most pixels of the longer side of a warped image."""
_LEAST = 0.5
_TOUCH = 1e-3  # pixels of the source


def target_grid(source: Grid, *, crs: str | None, resolution: float | None) -> Grid:
    """Return the grid of a warped image that covers its source.

    With a resolution, the edges are multiples of it: images of one resolution share a grid.

    Args:
        source: Grid of the image.
        crs: CRS of the output; None for that of the source.
        resolution: Side of a pixel in units of the CRS; None for about that of the source.

    Raises:
        InvalidInput: the source has no place, a part of it has none in the CRS, or the grid would
            be absurd.
    """
    if source.transform is None or source.crs is None:
        raise InvalidInput("has no CRS or no transform, so its place in another grid is not known")
    to = crs or source.crs
    xs, ys = _moved(source.crs, to, *_applied(Affine(*source.transform), *_samples(source)))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise InvalidInput(f"has parts without a place in {to}: bind `like`, or cut the image")
    if _is_torn(xs) or _is_torn(ys):
        raise InvalidInput(
            f"is torn apart in {to}, as at the antimeridian or a pole: bind `like`, or cut the "
            "image"
        )
    left, right, bottom, top = xs.min(), xs.max(), ys.min(), ys.max()
    step = resolution
    if step is None:  # as many pixels along the diagonal as the source has
        step = math.hypot(right - left, top - bottom) / math.hypot(source.width, source.height)
    sides = ((right - left) / step, (top - bottom) / step)
    if not _LEAST < max(sides) < MOST_SIDE:
        raise InvalidInput(
            f"would have {sides[0]:.3g} x {sides[1]:.3g} pixels in {to}: `resolution` {step:g} is "
            "in units of this CRS"
        )
    if resolution is not None:
        left, bottom = (math.floor(each / step) * step for each in (left, bottom))
        right, top = (math.ceil(each / step) * step for each in (right, top))
    width, height = (max(1, math.ceil(side / step - 1e-6)) for side in (right - left, top - bottom))
    place = (step, 0.0, float(left), 0.0, -step, float(top))
    return Grid(width=width, height=height, crs=to, transform=place)


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

    def touches(self) -> bool:
        """Return False if no pixel of the output can have a place in the source."""
        found = self._exact(*_samples(self.target))
        if not np.isfinite(found).all():  # what lies around places that are not known?
            return True
        is_curved = self.source.crs != self.target.crs
        sizes = (self.source.width, self.source.height)
        return all(map(_overlaps, found, sizes, (is_curved, is_curved)))

    def places(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the centres of a window's pixels in the source.

        Args:
            window: In pixels of the output grid.

        Returns:
            Columns and rows as float64 arrays (row, col): 0.5 is the centre of the first pixel.
            They are not finite where a pixel has no place.
        """
        # Whole cells, so that the choice for a cell does not depend on the window.
        left, top = window.col_off // _STEP * _STEP, window.row_off // _STEP * _STEP
        right, bottom = -(-window.col_stop // _STEP) * _STEP, -(-window.row_stop // _STEP) * _STEP
        cols, rows = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
        nodes = np.meshgrid(
            np.arange(left, right + 1, _STEP) * 1.0, np.arange(top, bottom + 1, _STEP) * 1.0
        )
        found = [_between(each) for each in self._exact(*nodes)]
        wrong = self._wrong_cells(found, left, top)
        if wrong.any():
            inside = wrong.repeat(_STEP, axis=0).repeat(_STEP, axis=1)
            exact = self._exact(*(each[inside] for each in np.meshgrid(cols, rows)))
            for values, right_ones in zip(found, exact, strict=True):
                values[inside] = right_ones
        part = window.relative_to(Window(left, top, 0, 0)).slices
        return found[0][part], found[1][part]

    def _wrong_cells(self, found: Sequence[np.ndarray], left: int, top: int) -> np.ndarray:
        """Return the cells (row, col) in which interpolated places are wrong, at one of 5 points.

        Args:
            found: Interpolated columns and rows.
            left: Column of the first pixel.
            top: Its row.
        """
        wrong = np.zeros(tuple(side // _STEP for side in found[0].shape), bool)
        near, far = _STEP // 4, 3 * _STEP // 4
        for row, col in (
            (near, near),
            (near, far),
            (_STEP // 2, _STEP // 2),
            (far, near),
            (far, far),
        ):
            picked = [values[row::_STEP, col::_STEP] for values in found]
            height, width = wrong.shape
            exact = self._exact(
                *np.meshgrid(
                    left + col + 0.5 + np.arange(width) * float(_STEP),
                    top + row + 0.5 + np.arange(height) * float(_STEP),
                )
            )
            for one, other in zip(picked, exact, strict=True):
                with np.errstate(invalid="ignore"):  # of places that are not finite
                    wrong |= ~(np.abs(one - other) <= _PRECISE)
        return wrong

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

    def _exact(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of points of the output grid in the source, by PROJ."""
        target = Affine(*(self.target.transform or Affine.identity()[:6]))
        source = Affine(*(self.source.transform or Affine.identity()[:6]))
        xs, ys = _applied(target, cols, rows)
        if self.source.crs != self.target.crs:
            xs, ys = _moved(self.target.crs or "", self.source.crs or "", xs, ys)
        return _applied(~source, xs, ys)


def _samples(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and rows of points of a grid, with its edges."""
    cols, rows = np.meshgrid(
        np.linspace(0, grid.width, _SAMPLES), np.linspace(0, grid.height, _SAMPLES)
    )
    return cols, rows


def _overlaps(values: np.ndarray, size: int, is_curved: bool) -> bool:  # positional: for `map`
    """Whether the span of samples has a part between 0 and a size; it may be longer if curved."""
    first, last = float(values.min()), float(values.max())
    # Between two samples, as around a pole, may be values beyond both: by about their difference.
    jumps = [np.abs(np.diff(values, axis=axis)).max() for axis in (0, 1)]
    more = float(max(jumps)) if is_curved else 0.0
    return last + more > _TOUCH and first - more < size - _TOUCH


def _between(nodes: np.ndarray) -> np.ndarray:
    """Return values at the centres of pixels, from those at nodes at every `_STEP` pixels."""
    share = (np.arange(_STEP) + 0.5) / _STEP
    x = np.tile(share, nodes.shape[1] - 1)[np.newaxis, :]
    y = np.tile(share, nodes.shape[0] - 1)[:, np.newaxis]
    left = np.arange(nodes.shape[1] - 1).repeat(_STEP)
    upper = np.arange(nodes.shape[0] - 1).repeat(_STEP)[:, np.newaxis]
    with np.errstate(invalid="ignore"):  # of nodes without a place
        above = nodes[upper, left] * (1 - x) + nodes[upper, left + 1] * x
        below = nodes[upper + 1, left] * (1 - x) + nodes[upper + 1, left + 1] * x
        made: np.ndarray = above * (1 - y) + below * y
    return made


def _applied(
    transform: Affine, cols: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = transform[:6]
    with np.errstate(invalid="ignore"):  # of infinite coordinates
        return a * cols + b * rows + c, d * cols + e * rows + f


def _moved(of: str, to: str, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in another CRS, infinite where they have none.

    Raises:
        InvalidInput: a CRS is not known, or is neither geographic nor projected.
    """
    moved = transformer(of, to).transform(xs, ys)
    return np.asarray(moved[0]), np.asarray(moved[1])


@lru_cache(maxsize=64)
def transformer(of: str, to: str) -> Transformer:
    """Return what transforms (x, y) of one CRS to another; x is the longitude of degrees.

    Raises:
        InvalidInput: a CRS is not known, or no plane of two axes.
    """
    return Transformer.from_crs(_crs(of), _crs(to), always_xy=True)


def _crs(text: str) -> CRS:
    try:
        found = CRS.from_user_input(text)
    except CRSError as error:
        raise InvalidInput(
            f"CRS {text!r} is not known: write an authority's code as EPSG:32631, or WKT"
        ) from error
    if not (found.is_geographic or found.is_projected) or len(found.axis_info) > 2:
        raise InvalidInput(
            f"CRS {text!r} is no plane of two axes: state a geographic or projected one"
        )
    return found


def _is_torn(values: np.ndarray) -> bool:
    """Whether neighbours of a grid of coordinates are far apart somewhere."""
    jumps = np.concatenate([np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)])
    usual = np.median(jumps[jumps > 0]) if (jumps > 0).any() else 0.0
    return bool(jumps.max() > _TORN * usual > 0)


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
    rounded = np.rint(finite)
    # A float64 has no 2**64 - 1: limits are compared, and set as integers.
    is_low, is_high = rounded <= float(limits.min), rounded >= float(limits.max)
    made: np.ndarray = np.where(is_low | is_high, 0, rounded).astype(dtype)
    made[is_low], made[is_high] = limits.min, limits.max
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
