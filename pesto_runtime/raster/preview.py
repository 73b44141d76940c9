"""Draw small previews of large rasters, for reports. No result is computed from them.

A raster is read at reduced size, from its overviews if it has them, and is never in memory as a
whole. If too many bytes would have to be decoded, it is an error.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import rasterio
from rasterio.enums import Interleaving, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window as RasterioWindow

from pesto_runtime.errors import RasterUnreadable, TooLarge
from pesto_runtime.hrefs import file_href, path_of
from pesto_runtime.raster.opening import DRIVERS
from pesto_runtime.raster.picking import band_numbers
from pesto_runtime.raster.read import raster_settings, read_scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pesto_runtime.contract import Scene

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

_MOST_BYTES, _MOST_REMOTE_BYTES = 1 << 30, 64 << 20
_WORTH_THREADS = 16 << 20  # bytes to decode
_MOST_THREADS = 8
_PROBE = 128  # side of the probed window, pixels
_QUALITY = 82
_TRUE_COLOUR = ("red", "green", "blue")


@dataclass(frozen=True)
class PreviewClass:
    """One value of a raster with few different values.

    Attributes:
        value: The value in the raster.
        share: Its share of the valid pixels that were read, 0 to 1.
        colour: Its colour in the picture.
    """

    value: float
    share: float
    colour: Colour


@dataclass(frozen=True)
class Preview:
    """A picture of a raster, with its legend.

    Attributes:
        data: The file of the picture; pixels without data are transparent.
        media_type: `image/webp`, or `image/png`.
        picture: Width and height of the picture, pixels.
        size: Width and height of the raster, pixels.
        kind: `colour` (three bands), `ramp` (one band, stretched) or `classes` (few values).
        bands: Names of the bands shown; numbers of unnamed ones.
        of_bands: Number of bands of the raster.
        ramp: Colour ramp of a single band of many values.
        dtype: The dtype of the raster.
        valid: Share of its pixels that are not nodata, 0 to 1.
        limits: Per band shown, the values that the stretch maps to its two ends.
        classes: The classes in ascending order, if the kind is `classes`.
        is_sampled: Whether the raster has more pixels than the picture: shares are then estimates.
    """

    data: bytes
    media_type: str
    picture: tuple[int, int]
    size: tuple[int, int]
    kind: Literal["colour", "ramp", "classes"]
    bands: tuple[str, ...]
    of_bands: int
    ramp: Ramp
    dtype: str
    valid: float
    limits: tuple[tuple[float, float], ...] = ()
    classes: tuple[PreviewClass, ...] = ()
    is_sampled: bool = False


@dataclass(frozen=True)
class _Source:
    """The bands of a raster that are drawn, and the size of the picture."""

    path: str
    scene: Scene
    numbers: tuple[int, ...]
    width: int
    height: int
    decoded_bytes: int


@dataclass(frozen=True)
class _Drawn:
    """A picture before it is encoded, uint8 (4, row, col), with its legend."""

    rgba: np.ndarray
    limits: tuple[tuple[float, float], ...] = ()
    classes: tuple[PreviewClass, ...] = ()


def read_preview(
    href: str | Path,
    *,
    max_side: int = 768,
    bands: Sequence[int | str] | None = None,
    ramp: Ramp = "grey",
) -> Preview:
    """Draw a raster: few values as classes, else in colour or along a ramp.

    Args:
        href: `file:///…`, an http(s) URL, or a path.
        max_side: Longest side of the picture, pixels; a smaller raster keeps its size.
        bands: One or three, by name or 1-based number; None for red, green and blue if they are
            named, else all of three, else the first.
        ramp: Colour ramp of a single band of many values.

    Raises:
        RasterUnreadable: the file is missing, empty, corrupt, truncated, or in another format.
        InvalidInput: a band does not exist.
        TooLarge: more than 1 GiB would have to be decoded, or 64 MiB of a remote raster, because it
            has too few overviews.
    """
    name = href if isinstance(href, str) else file_href(href)
    scene = read_scene(name)
    path = str(path_of(name)) if name.startswith("file:") else name
    try:
        with raster_settings(), DatasetReader(path, driver=list(DRIVERS)) as dataset:
            source = _source(dataset, scene, bands, max_side=max_side)
            maybe_classes = len(source.numbers) == 1 and _is_few(
                _probe(dataset, source), scene.nodata
            )
        drawn = (_classes(source) if maybe_classes else None) or _stretched(source, ramp)
        return _preview(source, drawn, ramp)
    except RasterioError as error:
        reason = error.__cause__ or error
        raise RasterUnreadable(f"{name} cannot be read for a preview: {reason}") from error


def _source(
    dataset: DatasetReader, scene: Scene, bands: Sequence[int | str] | None, *, max_side: int
) -> _Source:
    """Choose the bands to show and the size of the picture.

    Raises:
        InvalidInput: a band does not exist.
        TooLarge: too many bytes would have to be decoded.
    """
    names = [
        (text or meaning.name).lower()
        for text, meaning in zip(dataset.descriptions, dataset.colorinterp, strict=True)
    ]
    if bands is not None:
        numbers = band_numbers(scene.bands, bands, href=scene.href)
    elif set(_TRUE_COLOUR) <= set(names):
        numbers = tuple(names.index(colour) + 1 for colour in _TRUE_COLOUR)
    else:
        numbers = (1, 2, 3) if len(names) == 3 else (1,)
    shrink = max(1.0, max(scene.width, scene.height) / max_side)
    factor = max((f for f in dataset.overviews(numbers[0]) if f <= shrink), default=1)
    # With pixel interleaving, all bands are in one block and are decoded together.
    read = len(names) if dataset.interleaving == Interleaving.pixel else len(numbers)
    decoded = scene.width * scene.height // factor**2 * read * np.dtype(scene.dtype).itemsize
    is_local = scene.href.startswith("file:") or "://" not in scene.href
    if decoded > (_MOST_BYTES if is_local else _MOST_REMOTE_BYTES):
        raise TooLarge(
            f"a preview would decode {decoded >> 20} MiB of {scene.href}, as it has too few "
            "overviews; add them (gdaladdo), or write a COG"
        )
    width, height = (max(1, round(side / shrink)) for side in (scene.width, scene.height))
    return _Source(str(dataset.name), scene, numbers, width, height, decoded)


def _probe(dataset: DatasetReader, source: _Source) -> np.ndarray:
    """Read the middle of the raster, (row, col); many values there rule out classes cheaply."""
    scene = source.scene
    width, height = min(scene.width, _PROBE), min(scene.height, _PROBE)
    window = RasterioWindow((scene.width - width) // 2, (scene.height - height) // 2, width, height)
    pixels: np.ndarray = dataset.read(source.numbers[0], window=window)
    return pixels


def _is_few(pixels: np.ndarray, nodata: float | None) -> bool:
    values = np.unique(pixels[_is_valid(pixels, nodata)])
    return len(values) <= len(CLASS_COLOURS) and not np.iscomplexobj(pixels)


def _is_valid(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    valid: np.ndarray = np.isfinite(pixels)
    return valid if nodata is None else valid & (pixels != nodata)


def _read(source: _Source, resampling: Resampling) -> np.ndarray:
    """Read the bands at the picture's size, (band, row, col), in strips side by side."""
    count = min(_MOST_THREADS, os.cpu_count() or 1, source.height)
    count = count if source.decoded_bytes > _WORTH_THREADS else 1
    edges = [source.height * n // count for n in range(count + 1)]

    def strip(rows: tuple[int, int]) -> np.ndarray:
        step = source.scene.height / source.height
        window = RasterioWindow(0, rows[0] * step, source.scene.width, (rows[1] - rows[0]) * step)
        shape = (len(source.numbers), rows[1] - rows[0], source.width)
        # GDAL datasets are not thread-safe, so each thread opens its own:
        # https://gdal.org/en/stable/user/multithreading.html
        with raster_settings(), DatasetReader(source.path, driver=list(DRIVERS)) as dataset:
            pixels: np.ndarray = dataset.read(
                list(source.numbers), window=window, out_shape=shape, resampling=resampling
            )
        return pixels

    with ThreadPoolExecutor(count) as pool:
        return np.concatenate(list(pool.map(strip, pairwise(edges))), axis=1)


def _classes(source: _Source) -> _Drawn | None:
    """Draw a band of few values; None if it has many after all."""
    band = _read(source, Resampling.nearest)[0]
    valid = _is_valid(band, source.scene.nodata)
    values, counts = np.unique(band[valid], return_counts=True)
    if len(values) > len(CLASS_COLOURS):
        return None
    rgba = np.zeros((4, *band.shape), np.uint8)
    for value, colour in zip(values, CLASS_COLOURS, strict=False):
        rgba[:, valid & (band == value)] = np.array([[*colour, 255]], np.uint8).T
    total = max(1, int(counts.sum()))
    found = zip(values.tolist(), counts.tolist(), CLASS_COLOURS, strict=False)
    return _Drawn(rgba, classes=tuple(PreviewClass(v, n / total, c) for v, n, c in found))


def _stretched(source: _Source, ramp: Ramp) -> _Drawn:
    """Draw one band along a ramp, or three in colour, stretched between two percentiles."""
    is_complex = source.scene.dtype.startswith("complex")
    pixels = _read(source, Resampling.nearest if is_complex else Resampling.average)
    valid = _is_valid(pixels, source.scene.nodata).any(axis=0)
    shown = np.nan_to_num(np.abs(pixels) if is_complex else pixels.astype(np.float64))
    limits = tuple(_limits(band[valid]) for band in shown)
    grey = np.stack([_scaled(band, *ends) for band, ends in zip(shown, limits, strict=True)])
    colours = _ramp_table(ramp)[grey[0]].transpose(2, 0, 1) if len(grey) == 1 else grey[:3]
    alpha = np.where(valid, 255, 0).astype(np.uint8)
    return _Drawn(np.concatenate([colours * (alpha > 0), alpha[np.newaxis]]), limits)


def _ramp_table(ramp: Ramp) -> np.ndarray:
    """Return the ramp in 256 steps: uint8, shape (256, 3)."""
    anchors = np.array(RAMPS[ramp], float)
    places = np.linspace(0, 255, len(anchors))
    channels = [np.interp(np.arange(256), places, anchors[:, i]) for i in range(3)]
    table: np.ndarray = np.stack(channels, axis=1).round().astype(np.uint8)
    return table


def _limits(values: np.ndarray) -> tuple[float, float]:
    if not values.size:
        return (0.0, 0.0)
    low, high = np.percentile(values, PERCENTILES)
    return (float(low), float(high))


def _scaled(band: np.ndarray, low: float, high: float) -> np.ndarray:
    span = high - low or 1.0
    scaled: np.ndarray = (np.clip((band - low) / span, 0, 1) * 255).round().astype(np.uint8)
    return scaled


def _preview(source: _Source, drawn: _Drawn, ramp: Ramp) -> Preview:
    scene = source.scene
    kind: Literal["colour", "ramp"] = "colour" if len(source.numbers) > 1 else "ramp"
    data, media_type = _encoded(drawn)
    return Preview(
        data=data,
        media_type=media_type,
        picture=(source.width, source.height),
        size=(scene.width, scene.height),
        kind=kind if drawn.limits else "classes",
        bands=tuple(scene.bands[n - 1] or str(n) for n in source.numbers),
        of_bands=len(scene.bands),
        ramp=ramp,
        dtype=scene.dtype,
        valid=float((drawn.rgba[3] > 0).mean()),
        limits=drawn.limits,
        classes=drawn.classes,
        is_sampled=(source.width, source.height) != (scene.width, scene.height),
    )


def _encoded(drawn: _Drawn) -> tuple[bytes, str]:
    """Encode classes as PNG, and continuous values as lossy WebP with a fifth of the bytes."""
    with rasterio.Env() as env:
        is_webp = bool(drawn.limits) and "WEBP" in env.drivers()
    _, height, width = drawn.rgba.shape
    options = {"driver": "WEBP", "QUALITY": _QUALITY} if is_webp else {"driver": "PNG"}
    with raster_settings(), MemoryFile() as memory:
        with memory.open(width=width, height=height, count=4, dtype="uint8", **options) as dataset:
            dataset.write(drawn.rgba)
        return memory.read(), "image/webp" if is_webp else "image/png"
