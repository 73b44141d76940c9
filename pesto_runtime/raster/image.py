"""Pixels with what they need to stay where and what they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pesto_runtime.contract import TileInfo, Window
from pesto_runtime.errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping


Transform: TypeAlias = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Image:
    """An array and its georeference.

    Attributes:
        pixels: Array (band, row, col).
        crs: Authority code (`EPSG:32616`) or WKT2; None where there is none.
        transform: Affine coefficients (a, b, c, d, e, f) of the array's first pixel, as rasterio.
        nodata: None where none is declared.
        bands: Band descriptions in order; empty where nothing is known of them.
        scales: Per band; empty for 1 everywhere.
        offsets: Per band; empty for 0 everywhere.
        tags: Dataset tags.
    """

    pixels: np.ndarray
    crs: str | None = None
    transform: Transform | None = None
    nodata: float | None = None
    bands: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_tile(self) -> TileInfo:
        """The tile that is this whole image, with nothing of a scene around it."""
        _, rows, cols = self.pixels.shape
        whole = Window(0, 0, cols, rows)
        return TileInfo(
            read=whole,
            write=whole,
            scene_size=(cols, rows),
            crs=self.crs,
            transform=self.transform,
            nodata=self.nodata,
            tags=dict(self.tags),
        )


def shifted(transform: Transform, col_off: float, row_off: float) -> Transform:
    """The transform of a window that starts `col_off` columns and `row_off` rows further on.

    >>> shifted((30.0, 0.0, 100.0, 0.0, -30.0, 900.0), 2, 1)
    (30.0, 0.0, 160.0, 0.0, -30.0, 870.0)
    """
    a, b, c, d, e, f = transform
    return (a, b, c + a * col_off + b * row_off, d, e, f + d * col_off + e * row_off)


def rescaled(transform: Transform, x: float, y: float) -> Transform:
    """The transform of a grid with `x` and `y` output pixels per input pixel."""
    a, b, c, d, e, f = transform
    return (a / x, b / y, c, d / x, e / y, f)


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
