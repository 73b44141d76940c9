"""Turn stored numbers into physical values, for image ports that are `scaled`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from pesto_runtime.contract import BandValues
from pesto_runtime.errors import InvalidInput, RasterUnreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.raster.image import BandFacts, Image


def physical(pixels: np.ndarray, values: Sequence[BandValues], nodata: float | None) -> np.ndarray:
    """Return physical values as float32: `number * scale + offset`, and NaN for nodata.

    They are computed in float64 and rounded once. An array of physical values is returned as it is.

    Args:
        pixels: Array (band, row, col).
        values: Meaning of each band's numbers; empty if they are the physical values.
        nodata: The number of pixels without data; None for none.

    Raises:
        InvalidInput: the pixels are complex.
    """
    if pixels.dtype.kind == "c":
        raise InvalidInput(f"is {pixels.dtype}, and the port is `scaled`: complex numbers have no "
                           "scale; send another image")  # fmt: skip
    is_plain = all((each.scale, each.offset) == (1, 0) for each in values)
    if pixels.dtype == np.float32 and is_plain and (nodata is None or np.isnan(nodata)):
        return pixels
    made = np.empty(pixels.shape, np.float32)
    for index, stored in enumerate(pixels):
        value = values[index] if values else BandValues()
        with np.errstate(over="ignore"):  # a value that float32 cannot hold is infinite
            made[index] = stored * np.float64(value.scale) + np.float64(value.offset)
        if nodata is not None:
            made[index][stored == nodata] = np.nan
    return made


def values_of(bands: Sequence[BandFacts], href: str) -> tuple[BandValues, ...]:
    """Return the meaning of each band's numbers; empty if they are the physical values.

    Raises:
        RasterUnreadable: a scale or an offset is not a finite number.
    """
    try:
        values = tuple(
            BandValues(scale=band.scale, offset=band.offset, unit=band.unit) for band in bands
        )
    except ValidationError as error:
        raise RasterUnreadable(
            f"{href} has a band whose scale or offset is not a finite number; correct it, for "
            "example by gdal_edit.py -scale 1 -offset 0"
        ) from error
    return values if any(each != BandValues() for each in values) else ()


def scaled_image(image: Image) -> Image:
    """Return an image of physical values, with nodata NaN and the units that it had.

    Raises:
        InvalidInput: the pixels are complex.
    """
    values = [
        BandValues.model_construct(scale=each.scale, offset=each.offset)
        for each in image.band_facts
    ]
    pixels = physical(image.pixels, values, image.nodata)
    return replace(image, pixels=pixels, nodata=np.nan, scales=(), offsets=())
