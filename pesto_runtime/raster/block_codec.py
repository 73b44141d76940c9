"""Find where a TIFF keeps its block offsets and sizes: the two arrays that a writer must fill.

Reads classic TIFF and BigTIFF, little-endian, as GDAL makes them here (TIFF 6.0; BigTIFF design,
libtiff). Nothing else of the format is known to this file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from pesto_runtime.contract import BLOCK
from pesto_runtime.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_LEVEL = 6
_SOMEWHERE = Affine.scale(2, -2)  # a raster without a place makes rasterio warn


def creation_options(dtype: str) -> Mapping[str, object]:
    """GDAL's options for a product of this dtype: block size, codec, predictor, interleave."""
    kind = np.dtype(dtype).kind
    return {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": _LEVEL,
        "predictor": {"f": 3, "c": 1}.get(kind, 2),
        "interleave": "pixel",
        "num_threads": 1,
    }


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """Compresses blocks of one raster.

    Attributes:
        count: Bands.
        dtype: Of all bands.
    """

    count: int
    dtype: str

    def compress(self, block: np.ndarray) -> bytes:
        """Compress one block.

        Args:
            block: Array (band, row, col) of this dtype; smaller than 512 x 512 at the grid's far
                edges, where it is padded with 0.
        """
        _, rows, cols = block.shape
        if (rows, cols) != (BLOCK, BLOCK):
            padded = np.zeros((self.count, BLOCK, BLOCK), self.dtype)
            padded[:, :rows, :cols] = block
            block = padded
        with MemoryFile() as memory:
            with memory.open(
                width=BLOCK,
                height=BLOCK,
                count=self.count,
                dtype=self.dtype,
                transform=_SOMEWHERE,
                **creation_options(self.dtype),
            ) as dataset:
                dataset.write(block)
            data = bytes(memory.getbuffer())
        table = block_table(data)
        (offset,), (size,) = table.offsets.unpack(data), table.sizes.unpack(data)
        return data[offset : offset + size]


_OFFSETS, _SIZES = 324, 325
_FORMATS = {4: "I", 16: "Q"}
_BIG = 43


@dataclass(frozen=True, slots=True)
class TagArray:
    """Where a tag's numbers stand in the file, and as what."""

    position: int
    count: int
    code: str

    def pack(self, numbers: Sequence[int]) -> bytes:
        """The numbers as the file holds them.

        Raises:
            StoreFailed: not as many as the tag has, or one too large for its type.
        """
        if len(numbers) != self.count:
            raise StoreFailed(f"{len(numbers)} blocks for a file of {self.count}")
        try:
            return struct.pack(f"<{self.count}{self.code}", *numbers)
        except struct.error as error:
            raise StoreFailed(f"a block lies beyond what this TIFF can address: {error}") from error

    def unpack(self, data: bytes) -> tuple[int, ...]:
        """The numbers that stand there now."""
        return struct.unpack_from(f"<{self.count}{self.code}", data, self.position)


@dataclass(frozen=True, slots=True)
class BlockTable:
    """The two arrays of a tiled TIFF: where its blocks are, and how long."""

    offsets: TagArray
    sizes: TagArray


def block_table(data: bytes) -> BlockTable:
    """Find the block offsets and sizes of the first image in a TIFF.

    Raises:
        StoreFailed: not a little-endian tiled TIFF, or arrays of an unknown type.
    """
    if data[:2] != b"II":
        raise StoreFailed("GDAL made a TIFF that is not little-endian")
    big = struct.unpack_from("<H", data, 2)[0] == _BIG
    directory = struct.unpack_from("<Q" if big else "<I", data, 8 if big else 4)[0]
    count = struct.unpack_from("<Q" if big else "<H", data, directory)[0]
    first, size = (directory + 8, 20) if big else (directory + 2, 12)
    found = {}
    for entry in range(first, first + count * size, size):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (_OFFSETS, _SIZES):
            found[tag] = _array(data, entry, kind=kind, big=big)
    if set(found) != {_OFFSETS, _SIZES}:
        raise StoreFailed("GDAL made a TIFF without block offsets")
    return BlockTable(found[_OFFSETS], found[_SIZES])


def _array(data: bytes, entry: int, *, kind: int, big: bool) -> TagArray:
    if kind not in _FORMATS:
        raise StoreFailed(f"block table of TIFF type {kind}, which is not written here")
    count = struct.unpack_from("<Q" if big else "<I", data, entry + 4)[0]
    value = entry + (12 if big else 8)
    inline = struct.calcsize(f"<{count}{_FORMATS[kind]}") <= (8 if big else 4)
    pointed = struct.unpack_from("<Q" if big else "<I", data, value)[0]
    return TagArray(value if inline else pointed, count, _FORMATS[kind])
