"""Compress product blocks to the bytes that GDAL writes, and find the block table in a TIFF.

Predictors are numpy's arithmetic, codecs are libdeflate and zstd; GDAL only writes the header, in
`product`. Of the format, this file reads only the table of block offsets and sizes, in
little-endian classic TIFF and BigTIFF (https://libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import deflate
import numpy as np

from pesto_runtime.contract import BLOCK, Compression
from pesto_runtime.errors import StoreFailed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

PLAIN_COLOURS = {"photometric": "MINISBLACK", "alpha": "NO"}
"""GDAL's options against its guess that 3 bands of uint8 are RGB, and 4 RGBA."""

_OFFSETS, _SIZES = 324, 325  # tags TileOffsets and TileByteCounts
_FORMATS = {4: "I", 16: "Q"}  # types LONG and LONG8
_BIG = 43  # version number of BigTIFF; 42 in classic TIFF
_HORIZONTAL, _FLOATING_POINT = 2, 3  # values of the tag Predictor; 1 is none


def creation_options(dtype: str, compression: Compression) -> Mapping[str, object]:
    """Return GDAL's options for the header of a product of this dtype; a header has no level."""
    return {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": compression.codec,
        "predictor": _predictor(dtype, compression),
        "interleave": "pixel",
        "num_threads": 1,
        **PLAIN_COLOURS,
    }


def _predictor(dtype: str, compression: Compression) -> int:
    if compression.codec == "none":
        return 1
    return {"f": _FLOATING_POINT, "c": 1}.get(np.dtype(dtype).kind, _HORIZONTAL)


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """Compresses blocks of one raster.

    Attributes:
        count: Number of bands.
        dtype: The dtype of all bands.
        compression: Codec and level.
    """

    count: int
    dtype: str
    compression: Compression = Compression()

    def compress(self, block: np.ndarray) -> bytes:
        """Compress one block; its deflate bytes at level 7 are those of GDAL's default level.

        Args:
            block: Array (band, row, col) of this dtype; at the far edges of the grid it may be
                smaller than 512 x 512, and is padded with 0.
        """
        _, rows, cols = block.shape
        pixels = np.zeros((BLOCK, BLOCK, self.count), self._stored)
        pixels[:rows, :cols] = np.moveaxis(block, 0, -1)
        predictor = _predictor(self.dtype, self.compression)
        if predictor == _HORIZONTAL:
            pixels[:, 1:] -= pixels[:, :-1]
        elif predictor == _FLOATING_POINT:
            # Of each row the most significant bytes of all values, then the next ones, and so on.
            planes = np.moveaxis(self._bytes(pixels), -1, 1)[:, ::-1]
            pixels = np.ascontiguousarray(planes).reshape(BLOCK, -1, self.count)
            pixels[:, 1:] -= pixels[:, :-1]
        return _compressed(pixels, self.compression)

    def decompress(self, data: bytes) -> np.ndarray:
        """Return the 512 x 512 pixels (band, row, col) of a compressed block.

        Raises:
            StoreFailed: it is no such block.
        """
        shape = (BLOCK, BLOCK, self.count)
        raw = _decompressed(
            data, BLOCK * BLOCK * self.count * self._stored.itemsize, self.compression
        )
        predictor = _predictor(self.dtype, self.compression)
        if predictor == _FLOATING_POINT:
            rows = np.frombuffer(raw, np.uint8).reshape(BLOCK, -1, self.count)
            planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(
                BLOCK, self._stored.itemsize, -1
            )
            pixels = np.ascontiguousarray(np.moveaxis(planes[:, ::-1], 1, -1)).view(self._stored)
        else:
            pixels = np.frombuffer(raw, self._stored)
        pixels = pixels.reshape(shape)
        if predictor == _HORIZONTAL:
            pixels = np.cumsum(pixels, axis=1, dtype=self._stored)
        return np.moveaxis(pixels, -1, 0).astype(self.dtype, order="C")

    @property
    def _stored(self) -> np.dtype:
        return np.dtype(self.dtype).newbyteorder("<")

    def _bytes(self, pixels: np.ndarray) -> np.ndarray:
        """Return the bytes of values (row, col, band) as an array (row, col x band, byte)."""
        return pixels.view(np.uint8).reshape(BLOCK, -1, self._stored.itemsize)


def compress_mask(valid: np.ndarray, compression: Compression = Compression()) -> bytes:
    """Compress a block of a mask, bool (row, col), padded with 0 to 512 x 512, one bit a pixel.

    GDAL gives every mask the codec deflate, whatever that of the image.
    """
    padded = np.zeros((BLOCK, BLOCK), bool)
    padded[: valid.shape[0], : valid.shape[1]] = valid
    by_deflate = compression if compression.codec == "deflate" else Compression()
    return _compressed(np.packbits(padded, axis=1), by_deflate)


def decompress_mask(data: bytes, compression: Compression = Compression()) -> np.ndarray:
    """Return the 512 x 512 pixels, bool (row, col), of a compressed block of a mask.

    Raises:
        StoreFailed: it is no such block.
    """
    by_deflate = compression if compression.codec == "deflate" else Compression()
    bits = np.frombuffer(_decompressed(data, BLOCK * BLOCK // 8, by_deflate), np.uint8)
    return np.unpackbits(bits).reshape(BLOCK, BLOCK).astype(bool)


def _compressed(raw: np.ndarray, compression: Compression) -> bytes:
    if compression.codec == "deflate":
        return bytes(deflate.zlib_compress(raw, compression.level))
    if compression.codec == "zstd":
        return zstd.compress(raw.data, compression.level)
    return raw.tobytes()


def _decompressed(data: bytes, size: int, compression: Compression) -> bytes | bytearray:
    raw: bytes | bytearray = data
    try:
        if compression.codec == "deflate":
            raw = deflate.zlib_decompress(data, size)
        elif compression.codec == "zstd":
            raw = zstd.ZstdDecompressor().decompress(data, max_length=size + 1)
    except (deflate.DeflateError, zstd.ZstdError) as error:
        raise StoreFailed(f"a block cannot be decompressed: {error}") from error
    if len(raw) != size:
        raise StoreFailed(f"a block has {len(raw)} bytes of pixels, not {size}")
    return raw


@dataclass(frozen=True, slots=True)
class TagArray:
    """Position, count and type (a `struct` code) of the numbers of a tag in the file."""

    position: int
    count: int
    code: str

    def pack(self, numbers: np.ndarray) -> bytes:
        """Return numbers (block,) as bytes of the file.

        Raises:
            StoreFailed: the tag has another number of values, or one is too large for its type.
        """
        if len(numbers) != self.count:
            raise StoreFailed(f"{len(numbers)} blocks for a file of {self.count}")
        packed = numbers.astype(f"<{self.code}")
        if not np.array_equal(packed, numbers):
            raise StoreFailed("a block lies beyond what this TIFF can address")
        return packed.tobytes()

    def unpack(self, data: bytes | mmap) -> tuple[int, ...]:
        """Return the numbers that are now in the file."""
        return struct.unpack_from(f"<{self.count}{self.code}", data, self.position)


@dataclass(frozen=True, slots=True)
class BlockTable:
    """The two arrays of a tiled TIFF: offsets and sizes of its blocks, in bytes."""

    offsets: TagArray
    sizes: TagArray


def block_table(data: bytes | mmap, *, image: int = 0) -> BlockTable:
    """Find the block offsets and sizes of an image in a TIFF: 0 is the first one, 1 its mask.

    Raises:
        StoreFailed: it is not a little-endian tiled TIFF, or the arrays have an unknown type.
    """
    if data[:2] != b"II":
        raise StoreFailed("GDAL wrote a TIFF that is not little-endian")
    big = struct.unpack_from("<H", data, 2)[0] == _BIG
    word, size = ("<Q", 20) if big else ("<I", 12)
    directory = struct.unpack_from(word, data, 8 if big else 4)[0]
    for _ in range(image):
        first, count = _entries(data, directory, big=big)
        directory = struct.unpack_from(word, data, first + count * size)[0]
    first, count = _entries(data, directory, big=big)
    arrays = {}
    for entry in range(first, first + count * size, size):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (_OFFSETS, _SIZES):
            arrays[tag] = _array(data, entry, kind=kind, big=big)
    if set(arrays) != {_OFFSETS, _SIZES}:
        raise StoreFailed("GDAL wrote a TIFF without block offsets")
    return BlockTable(arrays[_OFFSETS], arrays[_SIZES])


def _entries(data: bytes | mmap, directory: int, *, big: bool) -> tuple[int, int]:
    """Return the position of the first entry of a directory, and their number."""
    if big:
        return directory + 8, struct.unpack_from("<Q", data, directory)[0]
    return directory + 2, struct.unpack_from("<H", data, directory)[0]


def _array(data: bytes | mmap, entry: int, *, kind: int, big: bool) -> TagArray:
    if kind not in _FORMATS:
        raise StoreFailed(f"the block table has the unknown TIFF type {kind}")
    count = struct.unpack_from("<Q" if big else "<I", data, entry + 4)[0]
    value = entry + (12 if big else 8)
    # Values that fit into the entry are stored in it; otherwise the entry has their position.
    inline = struct.calcsize(f"<{count}{_FORMATS[kind]}") <= (8 if big else 4)
    position = struct.unpack_from("<Q" if big else "<I", data, value)[0]
    return TagArray(value if inline else position, count, _FORMATS[kind])
