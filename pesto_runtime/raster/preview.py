"""Draw the samples of a raster as a picture with its legend, for reports.

No result is computed from a picture. Its pixels are single pixels of the raster, never averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from pesto_runtime.errors import RasterUnreadable
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.histogram import Histogram, histogram_of
from pesto_runtime.raster.picking import band_numbers
from pesto_runtime.raster.png import png
from pesto_runtime.raster.sampled import TRUE_COLOUR, read_subject

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pesto_runtime.contract import RasterClass
    from pesto_runtime.raster.sampled import Subject

Colour: TypeAlias = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

Ramp: TypeAlias = Literal["grey", "viridis"]

CLASS_COLOURS: tuple[Colour, ...] = (
    (43, 54, 66), (243, 239, 228), (230, 159, 0), (86, 180, 233),
    (0, 158, 115), (213, 94, 0), (204, 121, 167), (240, 228, 66),
)  # fmt: skip
"""For values in ascending order: dark, light, then hues that differ also without red or green."""

RAMPS: dict[Ramp, tuple[Colour, ...]] = {
    "grey": ((12, 12, 12), (248, 248, 248)),
    "viridis": (
        (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
        (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
    ),
}  # fmt: skip
"""From the lowest value to the highest, evenly spaced."""

PERCENTILES = (2.0, 98.0)
"""Percentiles of the values that a stretch maps to the darkest and the brightest colour."""

LEVELS = 255
"""Steps of a stretch along a ramp; a picture has one more entry, for nodata."""

_QUALITY = 82
_MOST_CLASSES = 255
_SPARSE = 16  # pixels between those that are looked at first
_ENOUGH = 500_000  # values


@dataclass(frozen=True)
class PreviewClass:
    """One value of a raster with few different values.

    Attributes:
        value: The value in the raster.
        share: Its share of the valid samples, 0 to 1.
        colour: Its colour in the picture.
        meaning: The class that the contract declares for it.
    """

    value: float
    share: float
    colour: Colour
    meaning: RasterClass | None = None


@dataclass(frozen=True)
class Preview:
    """A picture of a raster, with its legend.

    Attributes:
        data: The file of the picture; pixels without data are transparent.
        media_type: `image/webp`, or `image/png`.
        picture: Width and height of the picture, pixels.
        size: Width and height of the raster, pixels.
        step: Pixels of the raster per pixel of the picture, along both axes.
        kind: `colour` (three bands), `ramp` (one band, stretched) or `classes` (few values).
        bands: Names of the bands shown; numbers of unnamed ones.
        of_bands: Number of bands of the raster.
        ramp: Colour ramp of a single band of many values.
        dtype: The dtype of the raster.
        valid: Share of the known samples that are not nodata, 0 to 1.
        limits: Per band shown, the values that the stretch maps to its two ends.
        classes: The classes in ascending order, if the kind is `classes`.
        histograms: Band -> its histogram, of all known samples.
        known: Share of the samples that are known, 0 to 1; the others are transparent.
    """

    data: bytes
    media_type: str
    picture: tuple[int, int]
    size: tuple[int, int]
    step: int
    kind: Literal["colour", "ramp", "classes"]
    bands: tuple[str, ...]
    of_bands: int
    ramp: Ramp
    dtype: str
    valid: float
    limits: tuple[tuple[float, float], ...] = ()
    classes: tuple[PreviewClass, ...] = ()
    histograms: tuple[tuple[str, Histogram], ...] = ()
    known: float = 1.0

    @property
    def is_sampled(self) -> bool:
        """Whether the raster has more pixels than the picture: shares are then estimates."""
        return self.step > 1


def read_preview(
    href: str | Path,
    *,
    max_side: int = 768,
    bands: Sequence[int | str] | None = None,
    ramp: Ramp = "grey",
) -> Preview:
    """Read the samples of a raster, and draw them.

    Args:
        href: `file:///…`, an http(s) URL, or a path.
        max_side: Longest side of the picture, pixels; a smaller raster keeps its size.
        bands: One or three, by name or 1-based number; None for red, green and blue if they are
            named, else all of three, else the first.
        ramp: Colour ramp of a single band of many values.

    Raises:
        RasterUnreadable: the file is missing, empty, corrupt, truncated, or in another format.
        InvalidInput: a band does not exist.
        TooLarge: too much would have to be decoded, as the raster has too few overviews.
    """
    subject = read_subject(href if isinstance(href, str) else file_href(href))
    chosen = None if bands is None else band_numbers(subject.scene.bands, bands, href=str(href))
    return draw(subject, max_side=max_side, ramp=ramp, bands=chosen)


def draw(
    subject: Subject,
    *,
    max_side: int,
    ramp: Ramp = "grey",
    bands: Sequence[int] | None = None,
) -> Preview:
    """Draw a raster: declared classes or few values as classes, else in colour or along a ramp.

    Args:
        subject: The raster.
        max_side: Longest side of the picture, pixels.
        ramp: Colour ramp of a single band of many values.
        bands: 1-based numbers of the bands to show, one or three; None to choose by their names.
    """
    shown = tuple(bands) if bands is not None else shown_bands(subject)
    samples, places = subject.samples, [subject.numbers.index(number) for number in shown]
    every = max(1, -(-max(samples.part.width, samples.part.height) // max_side))
    rows, cols = (
        slice(min(every // 2, (side - 1) // 2), None, every) for side in samples.seen.shape
    )
    seen = samples.seen[rows, cols]
    pixels = samples.pixels[places][:, rows, cols]
    valid = seen & _is_valid(pixels, subject.scene.nodata).any(axis=0)
    drawn = _classes(pixels[0], valid, subject.classes) if len(shown) == 1 else None
    drawn = drawn or (_ramp(pixels[0], valid, ramp) if len(shown) == 1 else _colour(pixels, valid))
    known = int(seen.sum())
    return Preview(
        data=_encoded(drawn),
        media_type="image/webp" if drawn.is_photo and _has_webp() else "image/png",
        picture=(seen.shape[1], seen.shape[0]),
        size=samples.grid.size,
        step=samples.grid.step * every,
        kind=drawn.kind,
        bands=tuple(subject.name(number) for number in shown),
        of_bands=len(subject.scene.bands),
        ramp=ramp,
        dtype=subject.scene.dtype,
        valid=float(valid.sum() / known) if known else 0.0,
        limits=drawn.limits,
        classes=drawn.classes,
        histograms=_histograms(subject),
        known=float(samples.seen.mean()),
    )


def shown_bands(subject: Subject) -> tuple[int, ...]:
    """Return the numbers of red, green and blue if they are named, else of three, or of one."""
    names = {(subject.scene.bands[n - 1] or "").lower(): n for n in subject.numbers}
    if set(TRUE_COLOUR) <= set(names):
        return tuple(names[colour] for colour in TRUE_COLOUR)
    return (
        subject.numbers
        if len(subject.scene.bands) == 3 == len(subject.numbers)
        else (subject.numbers[:1])
    )


@dataclass(frozen=True)
class _Drawn:
    """A picture before it is encoded, with its legend.

    Attributes:
        kind: The kind of the preview.
        pixels: uint8, one band of entries of `colours`, or (4, row, col): red to alpha.
        colours: Entry -> colour; entry 0 is transparent.
        limits: As in the preview.
        classes: As in the preview.
    """

    kind: Literal["colour", "ramp", "classes"]
    pixels: np.ndarray
    colours: tuple[Colour, ...] = ()
    limits: tuple[tuple[float, float], ...] = ()
    classes: tuple[PreviewClass, ...] = ()

    @property
    def is_photo(self) -> bool:
        """Whether small errors of compression do no harm."""
        return not self.colours


def _is_valid(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    valid: np.ndarray = np.isfinite(pixels)
    return valid if nodata is None else valid & (pixels != nodata)


def _classes(band: np.ndarray, valid: np.ndarray, declared: Sequence[RasterClass]) -> _Drawn | None:
    """Draw a band of few values, or of declared classes; None if it has many values."""
    if np.iscomplexobj(band):
        return None
    most = _MOST_CLASSES if declared else len(CLASS_COLOURS)
    if len(np.unique(band[::_SPARSE, ::_SPARSE][valid[::_SPARSE, ::_SPARSE]])) > most:
        return None
    values, counts = _counted(band[valid])
    if len(values) > most:
        return None
    meanings = {each.value: each for each in declared}
    colours = tuple(
        (meaning.colour if (meaning := meanings.get(value)) else None)
        or CLASS_COLOURS[number % len(CLASS_COLOURS)]
        for number, value in enumerate(values.tolist())
    )
    entries = np.zeros(band.shape, np.uint8)
    for entry, value in enumerate(values.tolist(), start=1):
        entries[band == value] = entry
    entries[~valid] = 0
    total = max(1, int(counts.sum()))
    classes = tuple(
        PreviewClass(value, count / total, colour, meanings.get(value))
        for value, count, colour in zip(values.tolist(), counts.tolist(), colours, strict=True)
    )
    return _Drawn("classes", entries, ((0, 0, 0), *colours), classes=classes)


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values in ascending order, and their counts."""
    if values.dtype == np.uint8:  # ten times as fast as sorting
        counts = np.bincount(values)
        found = counts.nonzero()[0]
        return found, counts[found]
    return np.unique(values, return_counts=True)


def _ramp(band: np.ndarray, valid: np.ndarray, ramp: Ramp) -> _Drawn:
    """Draw one band along a ramp, stretched between two percentiles."""
    shown = _shown(band)
    low, high = _limits(shown[valid])
    entries = _scaled(shown, low, high, LEVELS - 1).astype(np.uint8) + np.uint8(1)
    entries[~valid] = 0
    return _Drawn("ramp", entries, ((0, 0, 0), *ramp_colours(ramp)), limits=((low, high),))


def _colour(pixels: np.ndarray, valid: np.ndarray) -> _Drawn:
    """Draw three bands as red, green and blue, each stretched between two percentiles."""
    shown = [_shown(band) for band in pixels]
    limits = tuple(_limits(band[valid]) for band in shown)
    channels = [
        _scaled(band, *ends, 255).astype(np.uint8) for band, ends in zip(shown, limits, strict=True)
    ]
    rgba = np.stack([*channels, np.full(valid.shape, 255, np.uint8)])
    rgba[:, ~valid] = 0
    return _Drawn("colour", rgba, limits=limits)


def ramp_colours(ramp: Ramp) -> tuple[Colour, ...]:
    """Return the colours of the levels of a ramp, from the lowest."""
    anchors = np.array(RAMPS[ramp], float)
    places = np.linspace(0, LEVELS - 1, len(anchors))
    channels = [np.interp(np.arange(LEVELS), places, anchors[:, i]).round() for i in range(3)]
    return tuple((int(r), int(g), int(b)) for r, g, b in zip(*channels, strict=True))


def _shown(band: np.ndarray) -> np.ndarray:
    """Return the values to draw; magnitudes of complex numbers."""
    real = np.abs(band) if np.iscomplexobj(band) else band
    return real if real.dtype.kind in "iu" else np.nan_to_num(real)


def _limits(values: np.ndarray) -> tuple[float, float]:
    if not values.size:
        return (0.0, 0.0)
    low, high = np.percentile(_thinned(values), PERCENTILES)
    return (float(low), float(high))


def _thinned(values: np.ndarray) -> np.ndarray:
    """Return about a million of many values: enough for percentiles and histograms."""
    return values[:: max(1, values.size // _ENOUGH)]


def _scaled(band: np.ndarray, low: float, high: float, most: int) -> np.ndarray:
    """Return integers from 0 for `low` to `most` for `high`."""
    span = high - low or 1.0
    dtype = np.float32 if band.itemsize < 4 else np.float64
    scaled: np.ndarray = (band - dtype(low)) * dtype(most / span)
    return np.clip(scaled, 0, most, out=scaled).round(out=scaled)


def _histograms(subject: Subject) -> tuple[tuple[str, Histogram], ...]:
    samples, nodata = subject.samples, subject.scene.nodata
    found = []
    for number, band in zip(subject.numbers, samples.pixels, strict=True):
        values = _shown(band[samples.seen & _is_valid(band, nodata)])
        found.append((subject.name(number), histogram_of(_thinned(values))))
    return tuple(found)


def _has_webp() -> bool:
    with rasterio.Env() as env:
        return "WEBP" in env.drivers()


def _encoded(drawn: _Drawn) -> bytes:
    """Encode photos as lossy WebP, a fifth of the bytes, and all else as PNG."""
    if not drawn.is_photo:
        return png(drawn.pixels, drawn.colours, smooth=drawn.kind == "ramp")
    if not _has_webp():
        return png(np.moveaxis(drawn.pixels, 0, -1), smooth=True)
    count, height, width = drawn.pixels.shape
    # The slower methods of WebP save a tenth of the bytes, and take three times as long.
    options = {"driver": "WEBP", "QUALITY": _QUALITY, "METHOD": 0}
    shape = {"width": width, "height": height, "count": count}
    try:
        with raster_settings(), MemoryFile() as memory:
            with memory.open(dtype="uint8", **shape, **options) as dataset:
                dataset.write(drawn.pixels)
            data: bytes = memory.read()
    except RasterioError as error:
        raise RasterUnreadable(f"a preview cannot be encoded: {error}") from error
    return data
