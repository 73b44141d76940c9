"""Define an image: pixels with georeference, nodata and band names. No I/O."""

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
        crs: Authority code (`EPSG:32616`) or WKT2; None without a CRS.
        transform: Affine coefficients (a, b, c, d, e, f) of the array's first pixel, as rasterio.
        nodata: None if none is declared.
        bands: Band descriptions in order; empty if they are unknown.
        scales: Scale of each band; empty if all are 1.
        offsets: Offset of each band; empty if all are 0.
        tags: Dataset tags.
        mask: The mask of the dataset, or its alpha band: bool (row, col), True for valid; None for
            an image that has neither.
    """

    pixels: np.ndarray
    crs: str | None = None
    transform: Transform | None = None
    nodata: float | None = None
    bands: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    mask: np.ndarray | None = None

    @property
    def whole_tile(self) -> TileInfo:
        """The tile information of this image as a whole scene."""
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
    """Return the transform of a window that starts at column `col_off` and row `row_off`.

    >>> shifted((30.0, 0.0, 100.0, 0.0, -30.0, 900.0), 2, 1)
    (30.0, 0.0, 160.0, 0.0, -30.0, 870.0)
    """
    a, b, c, d, e, f = transform
    return (a, b, c + a * col_off + b * row_off, d, e, f + d * col_off + e * row_off)


def rescaled(transform: Transform, x: float, y: float) -> Transform:
    """Return the transform of a grid with `x` and `y` output pixels per input pixel."""
    a, b, c, d, e, f = transform
    return (a / x, b / y, c, d / x, e / y, f)


@dataclass(frozen=True)
class Bounds:
    """Maximum size of one image; None for any.

    Attributes:
        byte_count: Bytes of the decoded pixels.
        pixel_count: Width times height.
        band_count: Number of bands that are read.
    """

    byte_count: int | None = None
    pixel_count: int | None = None
    band_count: int | None = None

    def require(self, shape: tuple[int, ...], dtype: str) -> None:
        """Do nothing if an image of this shape (band, row, col) and dtype is within the bounds.

        >>> Bounds(byte_count=100).require((1, 5, 10), "uint16")

        Raises:
            TooLarge: it is not; names its size and the maximum.
        """
        bands, height, width = shape
        size = bands * height * width * np.dtype(dtype).itemsize
        actual = f"the image has {width} x {height} pixels of {bands} bands, {size} bytes decoded"
        for count, most, unit in (
            (bands, self.band_count, "bands"),
            (width * height, self.pixel_count, "pixels"),
            (size, self.byte_count, "bytes"),
        ):
            if most is not None and count > most:
                raise TooLarge(f"{actual}; at most {most} {unit} are accepted")


UNBOUNDED = Bounds()
