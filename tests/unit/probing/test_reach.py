"""Differences, distances and profiles: the arithmetic of a measurement."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pesto_runtime.contract import Tolerance, Window
from pesto_runtime.probing.reach import SIDES, Difference, Profile, Side, distances, kept
from pesto_runtime.tiling import covering_window


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(1, 2), Fraction(3), Fraction(2, 3)])
@pytest.mark.parametrize("side", SIDES)
def test_distances_are_those_of_the_pixels_under_an_output_pixel(
    side: Side, ratio: Fraction
) -> None:
    """Counted another way: by the window of input pixels that covers the output pixel."""
    from pesto_runtime.contract import Scale

    boundary, count = 12, 30
    for line, distance in enumerate(
        distances(side, boundary, count, first=5, ratio=ratio), start=5
    ):
        under = covering_window(Window(line, line, 1, 1), Scale(ratio, ratio))
        near = side in ("top", "left")
        expected = under.row_off - boundary if near else boundary - under.row_stop
        assert distance == expected


def test_a_part_is_what_lies_on_the_near_side() -> None:
    """Row 2 and column 2 are the boundary in an image of 5 rows and 7 columns."""
    parts = {side: kept(side, 2, (5, 7)) for side in SIDES}
    assert parts == {
        "top": Window(0, 2, 7, 3),
        "bottom": Window(0, 0, 7, 2),
        "left": Window(2, 0, 5, 5),
        "right": Window(0, 0, 2, 5),
    }


def lines(distance: int, value: float, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    values = np.zeros(count)
    values[distance] = value
    return np.arange(count), values


def test_the_farthest_difference_is_the_reach() -> None:
    """A difference at distance 3 needs a margin of 4; those before the boundary do not count."""
    profile = Profile()
    where, values = lines(3, 5.0)
    profile.add(where, values, values, "noise")
    profile.add(where - 8, values, values, "ramp")
    assert (profile.reach(), profile.loose_reach(), profile.data) == (4, 4, "noise")
    where, values = lines(1, 9.0)
    profile.add(where, values, values, "ramp")
    assert (profile.reach(), profile.data) == (4, "noise")
    assert profile.largest_beyond(0) == 9.0
    assert profile.largest_beyond(2) == 5.0
    assert profile.largest_beyond(4) == 0.0


def test_a_permitted_difference_needs_no_margin() -> None:
    """It is part of the exact reach only."""
    profile = Profile()
    where, values = lines(6, 0.5)
    profile.add(where, values, values, "noise")
    assert (profile.reach(), profile.loose_reach()) == (7, 0)


def image(*values: complex, dtype: str = "float32") -> np.ndarray:
    return np.array([[values]], dtype)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("a", "b", "absolute", "excess_above_1"),
    [
        (image(1, 2), image(1, 2), [0, 0], [False, False]),
        (image(NAN, INF), image(NAN, INF), [0, 0], [False, False]),
        (image(NAN, 1), image(1, NAN), [INF, INF], [True, True]),
        (image(INF, 1), image(1, 1), [INF, 0], [True, False]),
        (image(1000, 1), image(1000, 1.001), [0, 0.001], [False, False]),
        (image(1000, 1), image(1000, 1.1), [0, 0.1], [False, True]),
        (image(3, 4, dtype="uint8"), image(3, 5, dtype="uint8"), [0, 1], [False, True]),
        (image(0, 255, dtype="uint8"), image(255, 0, dtype="uint8"), [255, 255], [True, True]),
        (image(1j, 2, dtype="complex64"), image(-1j, 2, dtype="complex64"), [2, 0], [True, False]),
    ],
)
def test_differences_of_numbers_nan_and_infinity(
    a: np.ndarray, b: np.ndarray, absolute: list[float], excess_above_1: list[bool]
) -> None:
    """Without a tolerance, rounding errors of the largest float are permitted, of integers none."""
    found = Difference.of(a, b, None)
    assert found.absolute[0] == pytest.approx(absolute, rel=1e-3)
    assert (found.excess[0] > 1).tolist() == excess_above_1
    assert found.is_none == (absolute == [0, 0])


def test_the_largest_value_of_both_outputs_decides_on_rounding_errors() -> None:
    """A bright pixel far away, in either call, spreads its rounding error."""
    a, b = image(0, 1), image(0, 1.001)
    assert (Difference.of(a, b, None).excess > 1).any()
    assert not (Difference.of(image(1000, 1), image(1000, 1.001), None).excess > 1).any()
    assert not (Difference.of(a, b, None, whole=image(0, 1.001, 1000)).excess > 1).any()
    assert not (Difference.of(image(1000, 1), image(0, 1.001), None).excess[0, 1:] > 1).any()


def test_large_integers_that_are_one_float_still_differ() -> None:
    """2^60 and 2^60 + 1 are the same float64."""
    a, b = (np.array([[[2**60 + extra]]], np.int64) for extra in (0, 1))
    assert not Difference.of(a, b, None).is_none


def test_a_declared_tolerance_replaces_the_rounding_errors() -> None:
    """As in the contract: atol + rtol * |b|; the largest of all bands counts."""
    exactness = Tolerance(atol=0.5, rtol=0.1)
    a, b = np.array([[[10.0, 0]], [[11.4, 0]]]), np.array([[[10.0, 0.4]], [[10.0, 0.6]]])
    found = Difference.of(a, b, exactness)
    assert found.absolute.tolist() == [pytest.approx([1.4, 0.6])]
    assert found.excess.tolist() == [pytest.approx([1.4 / 1.5, 0.6 / 0.56])]


@pytest.mark.parametrize(("side", "expected"), [("top", [1, 5]), ("left", [5, 2, 0])])
def test_rows_count_for_top_and_columns_for_left(side: Side, expected: list[float]) -> None:
    """Each line has its largest difference."""
    difference = Difference.of(np.array([[[1.0, 0, 0], [5, 2, 0]]]), np.zeros((1, 2, 3)), None)
    assert difference.lines(side)[0].tolist() == expected
