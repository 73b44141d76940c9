"""How large an image may be; asked of its header, before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pesto_runtime.errors import TooLarge


@dataclass(frozen=True)
class Bounds:
    """Most that one image may have; None for any.

    Attributes:
        byte_count: Bytes of pixels, decoded.
        pixel_count: Width times height.
        band_count: Bands that are read.
    """

    byte_count: int | None = None
    pixel_count: int | None = None
    band_count: int | None = None

    def require(self, shape: tuple[int, ...], dtype: str) -> None:
        """Do nothing with an image of this shape (band, row, col) and dtype that fits.

        >>> Bounds(byte_count=100).require((1, 5, 10), "uint16")

        Raises:
            TooLarge: it does not fit; names what it has and what is taken.
        """
        bands, height, width = shape
        size = bands * height * width * np.dtype(dtype).itemsize
        told = f"the image has {width} x {height} pixels of {bands} bands, {size} bytes decoded"
        for found, most, unit in (
            (bands, self.band_count, "bands"),
            (width * height, self.pixel_count, "pixels"),
            (size, self.byte_count, "bytes"),
        ):
            if most is not None and found > most:
                raise TooLarge(f"{told}; at most {most} {unit} are taken")


UNBOUNDED = Bounds()
