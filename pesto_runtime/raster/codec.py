"""Encode images to GeoTIFF, PNG or .npy, and decode them.

Bytes are opened by their content, only with the drivers of `opening.DRIVERS`; references to other
files (VRT, sidecar files) and pickles are never followed.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.lib import format as npy
from rasterio.errors import CRSError, RasterioError
from rasterio.io import MemoryFile

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.errors import InvalidInput, RasterUnreadable, UnsupportedMedia
from pesto_runtime.raster.block_codec import PLAIN_COLOURS
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.image import UNBOUNDED, Bounds, Image
from pesto_runtime.raster.metadata import write_bands, write_georeference
from pesto_runtime.raster.opening import DRIVERS, dtype_of
from pesto_runtime.raster.picking import band_numbers
from pesto_runtime.raster.read import image_of
from pesto_runtime.raster.validity import dataset_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from mmap import mmap

    from rasterio.io import DatasetReader

TIFF = "image/tiff"
PNG = "image/png"
NPY = "application/x-npy"

_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER_BYTES = 10_000
_NPY_HEAD_BYTES = 70_000  # longer than any version 1 header, whose length field has 16 bits
_MEMORY_NAME = re.compile(r"(/vsimem/[0-9a-f-]+/)?[0-9a-f]{8}-[0-9a-f-]{27}\.\w+")
_PNG_DTYPES = ("uint8", "uint16")
_FIRST_INEXACT_NODATA = 1e17
"""GDAL writes nodata with 17 digits, so a longer one of a 64-bit integer would be read rounded."""


def encode_image(image: Image, media_type: str) -> bytes:
    """Encode an image as bytes; `image_pieces` copies less.

    Raises:
        UnsupportedMedia: the media type is not supported.
        InvalidInput: the format does not support this image.
    """
    file = io.BytesIO()
    for piece in image_pieces(image, media_type):
        file.write(piece)  # a piece is valid only until the next one
    return file.getvalue()


def image_pieces(image: Image, media_type: str) -> Iterator[bytes | memoryview]:
    """Encode an image piece by piece; each piece is valid until the next one is requested.

    Args:
        image: Pixels (band, row, col) with their metadata.
        media_type: `image/tiff` (lossless, with all metadata), `image/png` (only pixels, up to 4
            bands of uint8 or uint16) or `application/x-npy` (only pixels).

    Raises:
        UnsupportedMedia: another media type.
        InvalidInput: the format does not support this image.
    """
    pixels = image.pixels
    if pixels.ndim != 3 or pixels.dtype.name not in NUMERIC_DTYPES or 0 in pixels.shape:
        raise InvalidInput(
            f"an array of shape {pixels.shape} and dtype {pixels.dtype} is not an image "
            f"(band, row, col) of {', '.join(NUMERIC_DTYPES)} with at least one pixel"
        )
    if media_type == NPY:
        yield from _to_npy(pixels)
    elif media_type == PNG:
        yield from _to_png(pixels)
    elif media_type == TIFF:
        yield from _to_tiff(image)
    else:
        raise UnsupportedMedia(f"images are written as {TIFF}, {PNG} or {NPY}, not {media_type}")


def decode_image(
    data: bytes | mmap,
    *,
    media_type: str | None = None,
    bands: Sequence[int | str] | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Image:
    """Decode an image from the bytes of a file in one of the known formats.

    Args:
        data: A whole file; the pixels of a mapped .npy are not copied.
        media_type: The declared type; only `application/x-npy` is compared with the content.
        bands: 1-based numbers or names, in the order wanted; None for all.
        bounds: Maximum size; checked before a pixel is decoded.

    Raises:
        RasterUnreadable: the data are empty, truncated, corrupt, or in another format.
        InvalidInput: a band does not exist.
        TooLarge: the image exceeds the bounds.
    """
    if not data:
        raise RasterUnreadable("the image is empty (0 bytes)")
    is_npy = data[:6] == _NPY_MAGIC
    if media_type == NPY and not is_npy:
        raise RasterUnreadable(f"the bytes sent as {NPY} are not a .npy file")
    if is_npy:
        return _from_npy(data, bands, bounds)
    # Without this option, a truncated JPEG is only a warning and its rest is grey:
    # https://gdal.org/en/stable/drivers/raster/jpeg.html
    with raster_settings(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        return _from_raster(bytes(data), bands, bounds)


def _to_npy(pixels: np.ndarray) -> Iterator[bytes | memoryview]:
    array = np.ascontiguousarray(pixels)
    head = io.BytesIO()
    npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(array))
    yield head.getvalue()
    yield array.reshape(-1).view(np.uint8).data


def _from_npy(data: bytes | mmap, bands: Sequence[int | str] | None, bounds: Bounds) -> Image:
    pixels = _npy_array(data)
    if pixels.ndim == 2:
        pixels = pixels[np.newaxis]
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.dtype.name not in NUMERIC_DTYPES:
        raise RasterUnreadable(
            f"the .npy contains an array of shape {pixels.shape} and dtype {pixels.dtype}; "
            f"an image is (band, row, col) of {', '.join(NUMERIC_DTYPES)}"
        )
    bounds.require(pixels.shape, pixels.dtype.name)
    names = (None,) * len(pixels)
    if bands is not None:
        pixels = pixels[[n - 1 for n in band_numbers(names, bands)]]
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return Image(np.ascontiguousarray(native), bands=(None,) * len(native))


def _npy_array(data: bytes | mmap) -> np.ndarray:
    """Return the array of a .npy file as a view of `data`; no pixel is copied."""
    file = io.BytesIO(data[:_NPY_HEAD_BYTES])
    try:
        major, _ = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        try:
            shape, by_column, dtype = read_header(file, max_header_size=_NPY_HEADER_BYTES)
        except Exception as error:  # numpy has Python's parser read it: any error, of memory too
            raise ValueError(f"its header is no dict of dtype and shape: {error}") from error
        count = int(np.prod(shape, dtype=object))
        flat = np.frombuffer(data, dtype=dtype, count=count, offset=file.tell())
        return flat.reshape(shape, order="F" if by_column else "C")
    except (ValueError, TypeError, OverflowError) as error:
        raise RasterUnreadable(f"the .npy cannot be read: {error}") from error


def _to_png(pixels: np.ndarray) -> Iterator[bytes | memoryview]:
    if pixels.dtype.name not in _PNG_DTYPES or len(pixels) > 4:
        raise InvalidInput(
            f"PNG supports up to 4 bands of {' or '.join(_PNG_DTYPES)}, "
            f"not {len(pixels)} of {pixels.dtype}; request {TIFF}"
        )
    yield from _to_raster(Image(pixels), driver="PNG", zlevel=1)


def _to_tiff(image: Image) -> Iterator[bytes | memoryview]:
    nodata, dtype = image.nodata, image.pixels.dtype.name
    if nodata is not None and "int64" in dtype and abs(nodata) >= _FIRST_INEXACT_NODATA:
        raise InvalidInput(f"GeoTIFF cannot store nodata {nodata} of {dtype} exactly")
    yield from _to_raster(
        image, driver="GTiff", compress="deflate", zlevel=1, bigtiff="IF_SAFER", interleave="band",
        **PLAIN_COLOURS,
    )  # fmt: skip


def _to_raster(image: Image, **options: str | int) -> Iterator[bytes | memoryview]:
    bands, height, width = image.pixels.shape
    try:
        with (
            raster_settings(),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            MemoryFile() as memory,
        ):
            with memory.open(
                width=width,
                height=height,
                count=bands,
                dtype=image.pixels.dtype.name,
                nodata=image.nodata,
                **options,
            ) as dataset:
                write_georeference(dataset, image.georeference)
                write_bands(dataset, image.band_facts)
                dataset.write(image.pixels)
                if image.mask is not None and options["driver"] == "GTiff" and not image.has_alpha:
                    dataset.write_mask(image.mask)
            yield memory.getbuffer()
    except (RasterioError, CRSError, ValueError) as error:
        raise InvalidInput(
            f"the image cannot be written as {options['driver']}: {error}"
        ) from error


def _from_raster(data: bytes, bands: Sequence[int | str] | None, bounds: Bounds) -> Image:
    reasons = []
    for driver in DRIVERS:
        try:
            with MemoryFile(data) as memory, memory.open(driver=driver) as dataset:
                return _image(dataset, bands, bounds)
        except RasterioError as error:
            reasons.append(f"{driver}: {error.__cause__ or error}")
    raise RasterUnreadable(
        f"{len(data)} bytes are not a readable image ({', '.join(DRIVERS)}, .npy), or are "
        f"truncated; {_decoding_reason(reasons)}"
    )


def _decoding_reason(reasons: Iterable[str]) -> str:
    """Return the reason of the driver that recognized the format."""
    recognized = (each for each in reasons if "not recognized" not in each)
    return _MEMORY_NAME.sub("image", next(recognized, "the format is not recognized"))[:200]


def _image(dataset: DatasetReader, bands: Sequence[int | str] | None, bounds: Bounds) -> Image:
    dtype = dtype_of(dataset, "the image")
    numbers = band_numbers(dataset.descriptions, bands)
    bounds.require((len(numbers), dataset.height, dataset.width), dtype)
    found = image_of(dataset, dataset.read(list(numbers)), numbers=numbers)
    return replace(found, mask=dataset_mask(dataset))
