"""Define an image: pixels with georeference, nodata and facts of its bands. No I/O."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from pesto_runtime.contract import TileInfo, Window
from pesto_runtime.contract.geometry import Transform, rescaled
from pesto_runtime.errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rasterio.control import GroundControlPoint
    from rasterio.rpc import RPC


T = TypeVar("T")
Colour: TypeAlias = tuple[int, int, int, int]


@lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype) -> str:
    """Return the name of a dtype, as `uint8`; numpy derives it each time, in 7 microseconds."""
    return str(dtype.name)


@dataclass(frozen=True)
class BandFacts:
    """Facts of one band of a raster.

    Attributes:
        description: Its name.
        scale: Physical value per stored step.
        offset: Physical value of a stored zero.
        unit: Unit of the physical value.
        colour: Colour interpretation, as rasterio names it; None for the driver's default.
        colours: Colour table: stored value -> (red, green, blue, alpha).
        tags: Domain -> tags; the default domain is the empty string.
    """

    description: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    colour: str | None = None
    colours: Mapping[int, Colour] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Georeference:
    """Position of a raster, and its dataset tags.

    Attributes:
        crs: Authority code or WKT2.
        transform: Affine coefficients (a, b, c, d, e, f); None for a raster without them.
        points: Ground control points, if there is no transform.
        points_crs: Their CRS.
        rpc: Rational polynomial coefficients.
        tags: Domain -> tags; the default domain is the empty string.
    """

    crs: str | None = None
    transform: Transform | None = None
    points: tuple[GroundControlPoint, ...] = ()
    points_crs: str | None = None
    rpc: RPC | None = None
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def moved(self, col_off: int, row_off: int) -> Georeference:
        """Return the georeference of a window that starts at this column and row."""
        if not (col_off or row_off):
            return self
        points = tuple(copy(point) for point in self.points)
        for point in points:
            point.col, point.row = point.col - col_off, point.row - row_off
        rpc = copy(self.rpc)
        if rpc is not None:
            rpc.samp_off, rpc.line_off = rpc.samp_off - col_off, rpc.line_off - row_off
        transform = self.transform and shifted(self.transform, col_off, row_off)
        return replace(self, transform=transform, points=points, rpc=rpc)

    def rescaled(self, x: float, y: float) -> Georeference:
        """Return the georeference of a grid with `x` and `y` times as many pixels.

        Control points and coefficients are valid only for their own pixels: a grid of another scale
        has neither.
        """
        if (x, y) == (1, 1):
            return self
        transform = None if self.transform is None else rescaled(self.transform, x, y)
        return Georeference(crs=self.crs, transform=transform, tags=self.tags)


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
        units: Unit of each band's physical values; empty if there are none.
        place: What else is known of its place and its tags: control points, RPC, other domains.
        facts: What else is known of each band: its tags, colour and colour table.
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
    units: tuple[str | None, ...] = ()
    place: Georeference = Georeference()
    facts: tuple[BandFacts, ...] = ()

    @classmethod
    def of_facts(
        cls,
        pixels: np.ndarray,
        place: Georeference,
        bands: tuple[BandFacts, ...],
        *,
        nodata: float | None,
        mask: np.ndarray | None = None,
    ) -> Image:
        """Combine pixels (band, row, col) with their place and the facts of every band."""
        return cls(
            pixels,
            crs=place.crs,
            transform=place.transform,
            nodata=nodata,
            bands=tuple(each.description for each in bands),
            scales=tuple(each.scale for each in bands),
            offsets=tuple(each.offset for each in bands),
            units=tuple(each.unit for each in bands),
            tags=dict(place.tags.get("", {})),
            place=place,
            facts=bands,
            mask=mask,
        )

    @property
    def georeference(self) -> Georeference:
        """Position of the image, and its dataset tags of all domains."""
        others = {domain: tags for domain, tags in self.place.tags.items() if domain}
        tags = {**({"": self.tags} if self.tags else {}), **others}
        return replace(self.place, crs=self.crs, transform=self.transform, tags=tags)

    @property
    def band_facts(self) -> tuple[BandFacts, ...]:
        """All facts of every band."""
        count = len(self.pixels)
        bands = zip(
            self.facts or (BandFacts(),) * count,
            self.bands or (None,) * count,
            self.scales or (1.0,) * count,
            self.offsets or (0.0,) * count,
            self.units or (None,) * count,
            strict=True,
        )
        return tuple(
            replace(each, description=name, scale=scale, offset=offset, unit=unit)
            for each, name, scale, offset, unit in bands
        )

    @property
    def has_alpha(self) -> bool:
        """Whether one of its bands is an alpha band, which marks valid pixels itself."""
        return any(each.colour == "alpha" for each in self.band_facts)

    @property
    def is_bare(self) -> bool:
        """Whether it is only pixels: nothing of what a GeoTIFF can state is known."""
        plain = [BandFacts(colour=colour) for colour in (None, "gray", "undefined")]
        is_plain = all(each in plain for each in self.band_facts)
        return (
            is_plain
            and self.nodata is None
            and self.mask is None
            and self.georeference == Georeference()
        )

    def picked(self, places: Sequence[int]) -> Image:
        """Return the image with only some bands, by 0-based index, in this order."""

        def of(facts: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(facts[i] for i in places) if facts else ()

        return replace(
            self,
            pixels=self.pixels[list(places)],
            bands=of(self.bands),
            scales=of(self.scales),
            offsets=of(self.offsets),
            units=of(self.units),
            facts=of(self.facts),
        )

    def cropped(self, window: Window) -> Image:
        """Return a window of the image."""
        rows, cols = window.slices
        place = self.georeference.moved(window.col_off, window.row_off)
        return replace(
            self,
            pixels=self.pixels[:, rows, cols],
            transform=place.transform,
            place=place,
            mask=None if self.mask is None else self.mask[rows, cols],
        )

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
            scales=tuple(each.scale for each in self.band_facts),
            offsets=tuple(each.offset for each in self.band_facts),
            units=tuple(each.unit for each in self.band_facts),
        )


def shifted(transform: Transform, col_off: float, row_off: float) -> Transform:
    """Return the transform of a window that starts at column `col_off` and row `row_off`.

    >>> shifted((30.0, 0.0, 100.0, 0.0, -30.0, 900.0), 2, 1)
    (30.0, 0.0, 160.0, 0.0, -30.0, 870.0)
    """
    a, b, c, d, e, f = transform
    return (a, b, c + a * col_off + b * row_off, d, e, f + d * col_off + e * row_off)


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
