"""Compare two outputs of a process, and record how far from a boundary they differ.

A boundary is a line between input pixels: on one side the pixels of both calls are equal, on the
other side they are replaced or absent. An output that differs at distance d needs a margin of d + 1
pixels to that side. Distances are input pixels; output pixels are converted by the scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pesto_runtime.contract import Scale, Tolerance, Window

if TYPE_CHECKING:
    from fractions import Fraction

Side: TypeAlias = Literal["top", "right", "bottom", "left"]
SIDES: tuple[Side, ...] = ("top", "right", "bottom", "left")
Size: TypeAlias = "tuple[int, int]"

_NOISE = 256
"""Rounding errors of a float process, in units of the last place of its largest output."""


@dataclass
class Profile:
    """The differences of one output, towards one side, by distance.

    Attributes:
        absolute: Largest |a - b| by distance.
        excess: Largest difference in units of the permitted one by distance; above 1 it is no
            rounding error.
        data: Kind of the data that showed the farthest difference.
    """

    absolute: np.ndarray = field(default_factory=lambda: np.zeros(0))
    excess: np.ndarray = field(default_factory=lambda: np.zeros(0))
    data: str = ""

    def add(self, distances: np.ndarray, absolute: np.ndarray, excess: np.ndarray, data: str
            ) -> None:  # fmt: skip
        """Add differences of lines of pixels; those at a negative distance are ignored."""
        kept = distances >= 0
        if not kept.any():
            return
        before = self.reach()
        length = max(self.absolute.size, int(distances.max()) + 1)
        for name, values in (("absolute", absolute), ("excess", excess)):
            grown = np.zeros(length)
            grown[: getattr(self, name).size] = getattr(self, name)
            np.maximum.at(grown, distances[kept], values[kept])
            setattr(self, name, grown)
        if self.reach() > before:
            self.data = data

    def reach(self) -> int:
        """Return the margin beyond which outputs are equal, bit for bit."""
        return _last(self.absolute > 0)

    def loose_reach(self) -> int:
        """Return the margin beyond which outputs are equal but for permitted differences."""
        return _last(self.excess > 1)

    def largest_beyond(self, margin: int) -> float:
        """Return the largest difference beyond a margin; 0 if there is none."""
        return float(self.absolute[margin:].max(initial=0))


def _last(differs: np.ndarray) -> int:
    found = np.flatnonzero(differs)
    return int(found[-1]) + 1 if found.size else 0


@dataclass(frozen=True)
class Difference:
    """Where two outputs differ.

    Attributes:
        absolute: |a - b|, the largest of all bands (row, col); infinite for NaN against a number.
        excess: The same in units of the permitted difference.
    """

    absolute: np.ndarray
    excess: np.ndarray

    @classmethod
    def of(
        cls,
        a: np.ndarray,
        b: np.ndarray,
        exactness: Tolerance | None,
        *,
        whole: np.ndarray | None = None,
    ) -> Difference:
        """Compare two arrays (band, row, col) of one shape; NaN equals NaN.

        Args:
            a: The output of a window.
            b: The output of the whole image.
            exactness: The permitted difference; None for rounding errors of floats.
            whole: The output that `b` is a part of: its largest value decides on rounding errors.
        """
        differs = ~((a == b) | ((a != a) & (b != b)))  # noqa: PLR0124  # NaN differs from itself
        wide = np.complex128 if a.dtype.kind == "c" else np.float64
        with np.errstate(all="ignore"):
            absolute = np.abs(a.astype(wide) - b.astype(wide))
            absolute = np.where(np.isfinite(absolute), absolute, np.inf)
            # Integers above 2^53 may be equal as floats.
            absolute = np.where(differs, np.maximum(absolute, np.finfo(float).tiny), 0)
            if exactness is None:
                excess = absolute / _rounding(a, b if whole is None else whole)
            else:
                excess = absolute / (exactness.atol + exactness.rtol * np.abs(b.astype(wide)))
        excess = np.where(differs, np.where(np.isnan(excess), np.inf, excess), 0)
        return cls(absolute.max(axis=0), excess.max(axis=0))

    @property
    def is_none(self) -> bool:
        """Whether the outputs are equal, bit for bit."""
        return not self.absolute.any()

    def lines(self, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest differences of every row for top and bottom, else of every column."""
        axis = 1 if side in ("top", "bottom") else 0
        return self.absolute.max(axis=axis), self.excess.max(axis=axis)


def _rounding(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest rounding error of two float outputs; 0 for integers.

    A Fourier transform spreads the rounding error of the largest value over the image.
    """
    if b.dtype.kind not in "fc":
        return 0.0
    largest = (np.abs(each[np.isfinite(each)]).max(initial=0) for each in (a, b))
    return float(_NOISE * np.finfo(b.dtype).eps * max(largest))


def distances(side: Side, boundary: int, count: int, *, first: int, ratio: Fraction) -> np.ndarray:
    """Return the distance of lines of output pixels from a boundary, in input pixels.

    Args:
        side: The side of the outputs on which the boundary is.
        boundary: Input pixel at the boundary: first one after it (top, left), or first one beyond
            it (bottom, right).
        count: Number of lines.
        first: Number of the first line in the whole output.
        ratio: Output pixels per input pixel along the axis.

    Returns:
        Negative for lines of which a pixel is on the other side.

    >>> from fractions import Fraction
    >>> distances("top", 4, 3, first=1, ratio=Fraction(1, 2)).tolist()
    [-2, 0, 2]
    """
    lines = np.arange(first, first + count)
    if side in ("top", "left"):
        starts: np.ndarray = lines * ratio.denominator // ratio.numerator
        return starts - boundary
    stops: np.ndarray = -(-(lines + 1) * ratio.denominator // ratio.numerator)
    return boundary - stops


def ratio_of(scale: Scale, side: Side) -> Fraction:
    """Return the scale along the axis of a side."""
    return scale.y if side in ("top", "bottom") else scale.x


def kept(side: Side, boundary: int, size: Size) -> Window:
    """Return the part of an image on the near side of a boundary.

    Args:
        side: The side that is cut off.
        boundary: As for `distances`.
        size: Rows and columns of the image.
    """
    rows, cols = size
    match side:
        case "top":
            return Window(0, boundary, cols, rows - boundary)
        case "bottom":
            return Window(0, 0, cols, boundary)
        case "left":
            return Window(boundary, 0, cols - boundary, rows)
        case "right":
            return Window(0, 0, boundary, rows)
