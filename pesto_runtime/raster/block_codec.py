"""Compress product blocks with GDAL, and find the table of block offsets and sizes in a TIFF.

Of the format, this file reads only that table, in little-endian classic TIFF and BigTIFF
(https://libtiff.gitlab.io/libtiff/specification/bigtiff.html). Products are written in `product`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from pesto_runtime.contract import BLOCK
from pesto_runtime.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from mmap import mmap

PLAIN_COLOURS = {"photometric": "MINISBLACK", "alpha": "NO"}
"""GDAL's options against its guess that 3 bands of uint8 are RGB, and 4 RGBA."""

_LEVEL = 6
_ANY_TRANSFORM = Affine.scale(2, -2)  # without one, rasterio warns: NotGeoreferencedWarning
_OFFSETS, _SIZES = 324, 325  # tags TileOffsets and TileByteCounts
_FORMATS = {4: "I", 16: "Q"}  # types LONG and LONG8
_BIG = 43  # version number of BigTIFF; 42 in classic TIFF


def creation_options(dtype: str) -> Mapping[str, object]:
    """Return GDAL's options for a product of this dtype: blocks, codec, predictor, interleave."""
    kind = np.dtype(dtype).kind
    return {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": _LEVEL,
        # 3 for floats, 2 for integers, 1 (none) for complex numbers
        "predictor": {"f": 3, "c": 1}.get(kind, 2),
        "interleave": "pixel",
        "num_threads": 1,
        **PLAIN_COLOURS,
    }


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """Compresses blocks of one raster.

    Attributes:
        count: Number of bands.
        dtype: The dtype of all bands.
    """

    count: int
    dtype: str

    def compress(self, block: np.ndarray) -> bytes:
        """Compress one block to the bytes that GDAL writes into a product.

        Args:
            block: Array (band, row, col) of this dtype; at the far edges of the grid it may be
                smaller than 512 x 512, and is padded with 0.
        """
        _, rows, cols = block.shape
        if (rows, cols) != (BLOCK, BLOCK):
            padded = np.zeros((self.count, BLOCK, BLOCK), self.dtype)
            padded[:, :rows, :cols] = block
            block = padded
        data = self._file_of(block)
        table = block_table(data)
        (offset,), (size,) = table.offsets.unpack(data), table.sizes.unpack(data)
        return data[offset : offset + size]

    def _file_of(self, block: np.ndarray) -> bytes:
        """Return a file of one block: its only block has the bytes that it has in any file."""
        with MemoryFile() as memory:
            with memory.open(
                width=BLOCK,
                height=BLOCK,
                count=self.count,
                dtype=self.dtype,
                transform=_ANY_TRANSFORM,
                **creation_options(self.dtype),
            ) as dataset:
                dataset.write(block)
            return bytes(memory.getbuffer())

    def decompress(self, data: bytes) -> np.ndarray:
        """Return the 512 x 512 pixels (band, row, col) of a compressed block.

        Raises:
            StoreFailed: it is no such block.
        """
        file = bytearray(self._file_of(np.zeros((self.count, BLOCK, BLOCK), self.dtype)))
        table = block_table(bytes(file))
        for array, number in ((table.offsets, len(file)), (table.sizes, len(data))):
            packed = array.pack([number])
            file[array.position : array.position + len(packed)] = packed
        try:
            with MemoryFile(bytes(file + data)) as memory, memory.open() as dataset:
                pixels: np.ndarray = dataset.read()
        except RasterioError as error:
            raise StoreFailed(f"a block cannot be decompressed: {error}") from error
        return pixels


@dataclass(frozen=True, slots=True)
class TagArray:
    """Position, count and type (a `struct` code) of the numbers of a tag in the file."""

    position: int
    count: int
    code: str

    def pack(self, numbers: Sequence[int]) -> bytes:
        """Return the numbers as bytes of the file.

        Raises:
            StoreFailed: the tag has another number of values, or one is too large for its type.
        """
        if len(numbers) != self.count:
            raise StoreFailed(f"{len(numbers)} blocks for a file of {self.count}")
        try:
            return struct.pack(f"<{self.count}{self.code}", *numbers)
        except struct.error as error:
            raise StoreFailed(f"a block lies beyond what this TIFF can address: {error}") from error

    def unpack(self, data: bytes | mmap) -> tuple[int, ...]:
        """Return the numbers that are now in the file."""
        return struct.unpack_from(f"<{self.count}{self.code}", data, self.position)


@dataclass(frozen=True, slots=True)
class BlockTable:
    """The two arrays of a tiled TIFF: offsets and sizes of its blocks, in bytes."""

    offsets: TagArray
    sizes: TagArray


def block_table(data: bytes | mmap) -> BlockTable:
    """Find the block offsets and sizes of the first image in a TIFF.

    Raises:
        StoreFailed: it is not a little-endian tiled TIFF, or the arrays have an unknown type.
    """
    if data[:2] != b"II":
        raise StoreFailed("GDAL wrote a TIFF that is not little-endian")
    big = struct.unpack_from("<H", data, 2)[0] == _BIG
    directory = struct.unpack_from("<Q" if big else "<I", data, 8 if big else 4)[0]
    count = struct.unpack_from("<Q" if big else "<H", data, directory)[0]
    first, size = (directory + 8, 20) if big else (directory + 2, 12)
    arrays = {}
    for entry in range(first, first + count * size, size):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (_OFFSETS, _SIZES):
            arrays[tag] = _array(data, entry, kind=kind, big=big)
    if set(arrays) != {_OFFSETS, _SIZES}:
        raise StoreFailed("GDAL wrote a TIFF without block offsets")
    return BlockTable(arrays[_OFFSETS], arrays[_SIZES])


def _array(data: bytes | mmap, entry: int, *, kind: int, big: bool) -> TagArray:
    if kind not in _FORMATS:
        raise StoreFailed(f"the block table has the unknown TIFF type {kind}")
    count = struct.unpack_from("<Q" if big else "<I", data, entry + 4)[0]
    value = entry + (12 if big else 8)
    # Values that fit into the entry are stored in it; otherwise the entry has their position.
    inline = struct.calcsize(f"<{count}{_FORMATS[kind]}") <= (8 if big else 4)
    position = struct.unpack_from("<Q" if big else "<I", data, value)[0]
    return TagArray(value if inline else position, count, _FORMATS[kind])
