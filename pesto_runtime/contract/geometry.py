"""Define windows, margins and scales: the integers and ratios of tiling.

Which windows a tile reads is computed in `tiling`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence


Transform: TypeAlias = tuple[float, float, float, float, float, float]
"""Affine coefficients (a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f."""


def rescaled(transform: Transform, x: float, y: float) -> Transform:
    """Return the transform of a grid with `x` and `y` output pixels per input pixel."""
    a, b, c, d, e, f = transform
    return (a / x, b / y, c, d / x, e / y, f)


class Window(NamedTuple):
    """A half-open rectangle of pixels, in rasterio's order.

    Attributes:
        col_off: First column, 0 at the left.
        row_off: First row, 0 at the top.
        width: Columns.
        height: Rows.
    """

    col_off: int
    row_off: int
    width: int
    height: int

    @property
    def col_stop(self) -> int:
        """The first column after the window."""
        return self.col_off + self.width

    @property
    def row_stop(self) -> int:
        """The first row after the window."""
        return self.row_off + self.height

    @property
    def pixels(self) -> int:
        """Number of pixels in the window; 0 for an empty one."""
        return max(self.width, 0) * max(self.height, 0)

    @classmethod
    def spanning(cls, col_off: int, row_off: int, col_stop: int, row_stop: int) -> Self:
        """Return the window between two corners.

        >>> Window.spanning(2, 3, 10, 4)
        Window(col_off=2, row_off=3, width=8, height=1)
        """
        return cls(col_off, row_off, col_stop - col_off, row_stop - row_off)

    def intersection(self, other: Window) -> Window:
        """Return the common part of both windows; its width or height is 0 if there is none."""
        # Without properties and `max`, which take three times as long: a tile has ten of these.
        left, top, width, height = self
        other_left, other_top, other_width, other_height = other
        right, bottom = left + width, top + height
        other_right, other_bottom = other_left + other_width, other_top + other_height
        left = other_left if other_left > left else left
        top = other_top if other_top > top else top
        width = (other_right if other_right < right else right) - left
        height = (other_bottom if other_bottom < bottom else bottom) - top
        return Window(left, top, width if width > 0 else 0, height if height > 0 else 0)

    def union(self, other: Window) -> Window:
        """Return the smallest window that contains both."""
        return Window.spanning(
            min(self.col_off, other.col_off),
            min(self.row_off, other.row_off),
            max(self.col_stop, other.col_stop),
            max(self.row_stop, other.row_stop),
        )

    def contains(self, other: Window) -> bool:
        """Return whether every pixel of the other window is in this one."""
        return self.intersection(other) == other

    def relative_to(self, outer: Window) -> Window:
        """Return the same pixels, counted from the first pixel of the outer window."""
        return Window(
            self.col_off - outer.col_off, self.row_off - outer.row_off, self.width, self.height
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices (row, col) of an array that select this window."""
        return (slice(self.row_off, self.row_stop), slice(self.col_off, self.col_stop))


def parse_window(value: object) -> Window:
    """Parse `[col_off, row_off, width, height]`.

    Raises:
        InvalidInput: the value is not four integers, or has a negative offset or an empty side.
    """
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)]
    if len(numbers) != 4 or len(whole) != 4 or min(whole) < 0 or min(whole[2:]) < 1:
        raise InvalidInput(
            f"window {shortened(value)} is not [col_off, row_off, width, height] with offsets "
            ">= 0 and sizes >= 1"
        )
    return Window(*whole)


@dataclass(frozen=True, slots=True)
class Margin:
    """Input pixels that a process needs around an output pixel, side by side.

    >>> Margin.of(2) + Margin(top=1)
    Margin(top=3, right=2, bottom=2, left=2)
    """

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0

    def __post_init__(self) -> None:
        if min(self.top, self.right, self.bottom, self.left) < 0:
            raise ValueError(f"margin {self} has a negative side; a margin is >= 0")

    @classmethod
    def of(cls, value: object) -> Margin:
        """Parse one number for all sides, a mapping of sides, or a margin.

        Raises:
            ValueError: the value is none of these, or a side is negative.
        """
        if isinstance(value, Margin):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(value, value, value, value)
        if (
            isinstance(value, dict)
            and set(value) <= {"top", "right", "bottom", "left"}
            and all(isinstance(n, int) and not isinstance(n, bool) for n in value.values())
        ):
            return cls(**value)
        raise ValueError(
            f"margin {shortened(value)} is neither a whole number of pixels nor "
            "{top, right, bottom, left}"
        )

    def __add__(self, other: Margin) -> Margin:
        return Margin(
            self.top + other.top,
            self.right + other.right,
            self.bottom + other.bottom,
            self.left + other.left,
        )

    def at(self, ratio: Scale) -> Margin:
        """Return the same margin in pixels of a grid that has `ratio` of these for one of its own.

        >>> Margin.of(3).at(Scale.of(2)), Margin.of(3).at(Scale.of("1/2"))
        (Margin(top=2, right=2, bottom=2, left=2), Margin(top=6, right=6, bottom=6, left=6))
        """
        if ratio.is_one:
            return self
        (top, bottom), (left, right) = (
            (math.ceil(before / axis), math.ceil(after / axis))
            for before, after, axis in (
                (self.top, self.bottom, ratio.y),
                (self.left, self.right, ratio.x),
            )
        )
        return Margin(top, right, bottom, left)

    def union(self, other: Margin) -> Margin:
        """Return the larger of both on every side."""
        return Margin(
            max(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            max(self.left, other.left),
        )

    def to_json(self) -> int | dict[str, int]:
        """Return one number if the sides are equal, otherwise all four sides."""
        sides = {"top": self.top, "right": self.right, "bottom": self.bottom, "left": self.left}
        return self.top if len(set(sides.values())) == 1 else sides


@dataclass(frozen=True)
class Scale:
    """Output pixels per input pixel, one ratio per axis.

    >>> Scale.of("1/4")
    Scale(x=Fraction(1, 4), y=Fraction(1, 4))
    """

    x: Fraction = Fraction(1)
    y: Fraction = Fraction(1)

    @cached_property
    def is_one(self) -> bool:
        """Whether output and input have one grid; computed once, as Fractions are slow."""
        return self.x == 1 == self.y

    @classmethod
    def of(cls, value: object) -> Scale:
        """Parse a number, a ratio such as `"1/4"`, or a pair `[x, y]` of them.

        Raises:
            ValueError: the value is none of these, or a ratio is not positive.
        """
        if isinstance(value, Scale):
            return value
        pair: Sequence[object] = value if isinstance(value, (list, tuple)) else (value, value)
        if len(pair) != 2:
            raise ValueError(f"scale {shortened(value)} is neither a ratio nor a pair [x, y]")
        return cls(_ratio(pair[0]), _ratio(pair[1]))

    def __mul__(self, other: Scale) -> Scale:
        return Scale(self.x * other.x, self.y * other.y)

    def __truediv__(self, other: Scale) -> Scale:
        return Scale(self.x / other.x, self.y / other.y)

    def to_json(self) -> str | list[str]:
        """Return one ratio if both axes are equal, otherwise the pair."""
        return str(self.x) if self.x == self.y else [str(self.x), str(self.y)]


def _ratio(value: object) -> Fraction:
    try:
        ratio = Fraction(value) if isinstance(value, (int, float, str, Fraction)) else Fraction(0)
    except (ValueError, ZeroDivisionError, OverflowError):
        ratio = Fraction(0)
    # A float is rarely the ratio that was meant: 0.1 is 3602879701896397 / 36028797018963968.
    ratio = ratio.limit_denominator(1 << 16)
    if ratio <= 0 or isinstance(value, bool):
        raise ValueError(f"{shortened(value)} is not a positive ratio such as 2, 0.25 or '1/4'")
    return ratio


def _read_window(value: object) -> Window:
    """Parse a window as `parse_window` does; its offsets may be negative."""
    if isinstance(value, (list, tuple)) and len(value) == 4:
        offsets = [n for n in value[:2] if isinstance(n, int) and not isinstance(n, bool)]
        if len(offsets) == 2:
            size = _window_field([0, 0, *value[2:]])
            return Window(offsets[0], offsets[1], size.width, size.height)
    return _window_field(value)


def _window_field(value: object) -> Window:
    try:
        return parse_window(value)
    except InvalidInput as error:  # as a ValueError, pydantic reports it with the other fields
        raise ValueError(error.detail) from error


_SIDE = {"type": "integer", "minimum": 0}
_LENGTH = {"type": "integer", "minimum": 1}
MarginField = Annotated[
    Margin,
    BeforeValidator(Margin.of),
    PlainSerializer(Margin.to_json),
    WithJsonSchema(
        {
            "description": "Input pixels needed around an output pixel; one number for all sides.",
            "oneOf": [
                _SIDE,
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": dict.fromkeys(("top", "right", "bottom", "left"), _SIDE),
                },
            ],
        }
    ),
]
_RATIO = {"oneOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
ScaleField = Annotated[
    Scale,
    BeforeValidator(Scale.of),
    PlainSerializer(Scale.to_json),
    WithJsonSchema(
        {
            "description": "Output pixels per input pixel: a ratio, or one per axis [x, y].",
            "oneOf": [
                *_RATIO["oneOf"],
                {"type": "array", "minItems": 2, "maxItems": 2, "items": _RATIO},
            ],
        }
    ),
]
WindowField = Annotated[
    Window,
    BeforeValidator(_window_field),
    PlainSerializer(list),
    WithJsonSchema(
        {
            "description": "[col_off, row_off, width, height] in pixels, half-open.",
            "type": "array",
            "minItems": 4,
            "maxItems": 4,
            "prefixItems": [_SIDE, _SIDE, _LENGTH, _LENGTH],
        }
    ),
]
_OFFSET = {"type": "integer"}
ReadWindowField = Annotated[
    Window,
    BeforeValidator(_read_window),
    PlainSerializer(list),
    WithJsonSchema(
        {
            "description": "[col_off, row_off, width, height] in pixels, half-open; it extends "
            "beyond the scene where pixels are mirrored or filled.",
            "type": "array",
            "minItems": 4,
            "maxItems": 4,
            "prefixItems": [_OFFSET, _OFFSET, _LENGTH, _LENGTH],
        }
    ),
]
