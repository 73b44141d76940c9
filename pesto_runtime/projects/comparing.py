"""Compare the outputs of a call with recorded ones: exact, ordered, within a tolerance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Tolerance
from pesto_runtime.errors import BadField, RasterUnreadable, json_pointer, shortened
from pesto_runtime.projects.recorded_cases import ImageFile
from pesto_runtime.raster.codec import decode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALMOST = Tolerance(rtol=1e-6, atol=1e-9)
"""For numbers and float pixels without a tolerance: last digits differ between processors."""


def differences(
    expected: object, found: object, *, pointer: str, tolerance: Tolerance | None = None
) -> Iterator[BadField]:
    """Yield each difference of an output from the recorded one.

    Args:
        expected: JSON value, `ImageFile`, or list of these.
        found: JSON value, `Image`, or list of these.
        pointer: JSON pointer to the output.
        tolerance: Of each number and pixel; None for equal integers and almost equal floats.
    """
    if isinstance(expected, ImageFile):
        yield from _image_differences(expected, found, pointer, tolerance)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield BadField(pointer, f"{len(expected)} items are recorded, {len(found)} returned")
        for index, (left, right) in enumerate(zip(expected, found, strict=False)):
            where = pointer + json_pointer(index)
            yield from differences(left, right, pointer=where, tolerance=tolerance)
    elif isinstance(expected, dict) and isinstance(found, dict):
        yield from _object_differences(expected, found, pointer, tolerance)
    elif not _is_same(expected, found, tolerance):
        yield BadField(pointer, f"{shortened(expected)} is recorded, {shortened(found)} returned")


def _object_differences(
    expected: dict[str, object], found: dict[str, object], pointer: str, tolerance: Tolerance | None
) -> Iterator[BadField]:
    for key, value in expected.items():
        where = pointer + json_pointer(key)
        if key not in found:
            yield BadField(where, "is recorded, and not returned")
        else:
            yield from differences(value, found[key], pointer=where, tolerance=tolerance)
    for key in found:
        if key not in expected:
            yield BadField(pointer + json_pointer(key), "is returned, and not recorded")


def _is_same(expected: object, found: object, tolerance: Tolerance | None) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        are_integers = isinstance(expected, int) and isinstance(found, int)
        if tolerance is None and are_integers:
            return expected == found
        allowed = tolerance or _ALMOST
        is_close = abs(expected - found) <= allowed.atol + allowed.rtol * abs(expected)
        return is_close or (math.isnan(expected) and math.isnan(found))
    return type(expected) is type(found) and expected == found


def _image_differences(
    expected: ImageFile, found: object, pointer: str, tolerance: Tolerance | None
) -> Iterator[BadField]:
    if not isinstance(found, Image):
        yield BadField(pointer, f"an image is recorded, {shortened(found)} returned")
        return
    try:
        recorded = decode_image(expected.data)
    except RasterUnreadable as error:
        yield BadField(pointer, f"{expected.path.name} is no image: {error.detail}")
        return
    yield from _fact_differences(recorded, found, pointer)
    left, right = recorded.pixels, found.pixels
    if left.shape == right.shape and left.dtype == right.dtype:
        yield from _pixel_differences(left, right, pointer, tolerance)


def _fact_differences(recorded: Image, found: Image, pointer: str) -> Iterator[BadField]:
    """Compare what the recorded file states; a PNG states neither CRS nor nodata."""
    for name, left, right in (
        ("shape (band, row, col)", recorded.pixels.shape, found.pixels.shape),
        ("dtype", recorded.pixels.dtype.name, found.pixels.dtype.name),
        ("CRS", recorded.crs, found.crs),
        ("transform", recorded.transform, found.transform),
        ("nodata", recorded.nodata, found.nodata),
    ):
        is_stated = left is not None
        both_nan = left != left and right != right  # noqa: PLR0124  # NaN
        if is_stated and left != right and not both_nan:
            yield BadField(pointer, f"{name} {left} is recorded, {right} returned")


def _pixel_differences(
    left: np.ndarray, right: np.ndarray, pointer: str, tolerance: Tolerance | None
) -> Iterator[BadField]:
    is_float = left.dtype.kind in "fc"
    if tolerance is None and not is_float:
        wrong = left != right
    else:
        allowed = tolerance or _ALMOST
        wide_left, wide_right = (
            each if is_float else each.astype(np.float64) for each in (left, right)
        )
        wrong = ~np.isclose(
            wide_right, wide_left, rtol=allowed.rtol, atol=allowed.atol, equal_nan=True
        )
    if wrong.any():
        band, row, col = (int(each[0]) for each in np.nonzero(wrong))
        yield BadField(
            pointer,
            f"{int(wrong.sum())} of {wrong.size} pixels differ, the first at band {band}, row "
            f"{row}, col {col}: {left[band, row, col]} is recorded, {right[band, row, col]} "
            "returned",
        )
