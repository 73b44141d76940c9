"""Write a product: compressed blocks, row-major, after a header that GDAL creates.

The same blocks give the same file, byte for byte, independent of where and in which order they were
compressed. The sizes of all blocks are known before, so that a bucket receives the file in order.
A product has one writer; blocks are never recompressed; half a product never has the final name.
After a kill it is written anew: to verify the first half takes as long as to write it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import rasterio
import rasterio.shutil
from deflate import crc32
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pesto_runtime.contract import Compression
from pesto_runtime.errors import StoreFailed
from pesto_runtime.places import RemotePath
from pesto_runtime.raster.block_codec import block_table, creation_options
from pesto_runtime.raster.image import BandFacts, Georeference
from pesto_runtime.raster.metadata import write_bands, write_georeference
from pesto_runtime.tiling import block_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pesto_runtime.places import AnyPath
    from pesto_runtime.raster.tiff_directory import FileHeader


BIG_BYTES = 3_900_000_000
"""Bytes of pixels above which a file is a BigTIFF; a classic TIFF addresses 4 GiB in all."""
_SYNC_BYTES = 256 << 20
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Layout:
    """Everything that decides a product's header.

    Attributes:
        width: Columns.
        height: Rows.
        count: Bands.
        dtype: The dtype of all bands.
        nodata: None for a product without nodata.
        georeference: Position and dataset tags.
        bands: Facts of every band; empty for none.
        has_mask: Whether the product has a mask: an image of one bit after the first one.
        compression: Codec and level of its blocks.
    """

    width: int
    height: int
    count: int
    dtype: str
    nodata: float | None = None
    georeference: Georeference = Georeference()
    bands: tuple[BandFacts, ...] = ()
    has_mask: bool = False
    compression: Compression = Compression()


@dataclass(frozen=True, slots=True)
class Product:
    """A finished file.

    Attributes:
        sha256: The hash of the whole file, hexadecimal.
        size: Bytes.
        crc32: What `block_checksums` returns for it.
    """

    sha256: str
    size: int
    crc32: str


class Blocks(NamedTuple):
    """Compressed blocks, one after another.

    Attributes:
        data: Their bytes.
        sizes: Bytes of each, array (block,) of int64.
        crc32: CRC-32 of each, array (block,) of uint32.
    """

    data: bytes | memoryview
    sizes: np.ndarray
    crc32: np.ndarray

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return one block."""
        return cls(data, np.array([len(data)]), np.array([crc32(data)], np.uint32))

    def split(self) -> list[bytes]:
        """Return the bytes of each block."""
        stops = np.cumsum(self.sizes).tolist()
        return [bytes(self.data[a:b]) for a, b in zip([0, *stops], stops, strict=False)]


def product_header(layout: Layout) -> bytes:
    """Return the part of the file before its blocks, as GDAL writes it."""
    raw = layout.width * layout.height * layout.count * np.dtype(layout.dtype).itemsize
    options = creation_options(layout.dtype, layout.compression)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(
            width=layout.width,
            height=layout.height,
            count=layout.count,
            dtype=layout.dtype,
            nodata=layout.nodata,
            sparse_ok=True,  # GDAL writes the header and no blocks
            bigtiff="YES" if raw > BIG_BYTES else "NO",
            **options,
        ) as dataset:
            write_georeference(dataset, layout.georeference)
            write_bands(dataset, layout.bands)
            if layout.has_mask:
                dataset.write_mask(np.zeros((1, 1), bool), window=Window(0, 0, 1, 1))
        return bytes(memory.getbuffer())


def write_product(
    path: AnyPath, layout: Layout | FileHeader, blocks: Iterable[Blocks], *, sizes: np.ndarray
) -> Product:
    """Write a product.

    Args:
        path: The finished file, or an object; until a file is complete, it is `path.part`.
        layout: Size, dtype and metadata; or a header, for a file of other images.
        blocks: Compressed blocks, row-major; then those of its mask.
        sizes: Bytes of each block, array (block,).

    Raises:
        StoreFailed: too few or too many blocks, a block of another size, more bytes than a TIFF can
            address, the disk is full, or the folder is not writable.
    """
    header = ProductHeader.of(layout) if isinstance(layout, Layout) else layout
    checksums = np.zeros(header.total, ">u4")
    chunks = _chunks(header, sizes, blocks, checksums)
    if isinstance(path, RemotePath):
        sha256, size = path.write_chunks(chunks, size=len(header.data) + int(sizes.sum()))
    else:
        try:
            sha256, size = _write_file(path, chunks)
        except OSError as error:
            raise StoreFailed(f"{path}: {error.strerror or error}") from error
    return Product(sha256, size, checksums[: header.count].tobytes().hex())


def _chunks(
    header: FileHeader, sizes: np.ndarray, blocks: Iterable[Blocks], checksums: np.ndarray
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file in order, and write the CRC-32 of each block into `checksums`."""
    if len(sizes) != header.total:
        raise StoreFailed(f"{len(sizes)} blocks for a file of {header.total}")
    yield header.filled(sizes)
    at = 0
    for each in blocks:
        after = at + len(each.sizes)
        if not np.array_equal(each.sizes, sizes[at:after]) or len(each.data) != each.sizes.sum():
            raise StoreFailed(f"blocks {at} to {after - 1} of {header.total} have other sizes")
        checksums[at:after] = each.crc32
        at = after
        yield each.data
    if at != header.total:
        raise StoreFailed(f"{at} blocks for a file of {header.total}")


def _write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[str, int]:
    """Write a file from its bytes in order, and return its sha256 and its size."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file, ThreadPoolExecutor(1) as pool:
        digest, batch, size = _Digest(pool), list[bytes | memoryview](), 0
        unhashed = unsynced = 0
        for chunk in chunks:
            batch.append(chunk)
            unhashed += len(chunk)
            if unhashed >= _BATCH_BYTES:
                digest.add(batch)
                file.writelines(batch)
                size, unsynced = size + unhashed, unsynced + unhashed
                batch, unhashed = [], 0
            if unsynced >= _SYNC_BYTES:  # so that the last fsync is short
                file.flush()
                os.fsync(file.fileno())
                unsynced = 0
        digest.add(batch)
        file.writelines(batch)
        size += unhashed
        file.flush()
        os.fsync(file.fileno())  # while the last bytes are hashed
    # Replacing is atomic on one file system, so the final name never has an unfinished file.
    part.replace(path)
    return digest.result(), size


def file_sha256(path: AnyPath) -> tuple[str, int]:
    """Return the sha256 (hexadecimal) and size (bytes) of a file."""
    if isinstance(path, RemotePath):
        return path.sha256()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def block_checksums(path: Path) -> str:
    """Return the CRC-32 of every block of a TIFF's first image, each as 8 hexadecimal digits.

    The order is that of the block table: row-major.

    Raises:
        StoreFailed: it is not a tiled TIFF.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            table = block_table(data)
            places = [*zip(table.offsets.unpack(data), table.sizes.unpack(data), strict=True)]
        except (struct.error, IndexError, ValueError) as error:
            raise StoreFailed(f"{path} is not a tiled TIFF: {error}") from error
        with memoryview(data) as view:
            return "".join(f"{crc32(view[at : at + size]):08x}" for at, size in places)


@dataclass(slots=True)
class ProductHeader:
    """The part of a file before its blocks.

    Attributes:
        data: Its bytes, with an empty table of blocks for each image.
        count: Blocks of an image.
        images: 1, or 2 with a mask.
    """

    data: bytes
    count: int
    images: int

    @classmethod
    def of(cls, layout: Layout) -> ProductHeader:
        """Return the header of a product."""
        rows, cols = block_count((layout.width, layout.height))
        return cls(product_header(layout), count=rows * cols, images=1 + layout.has_mask)

    @property
    def total(self) -> int:
        """Blocks of all images."""
        return self.count * self.images

    def filled(self, sizes: np.ndarray) -> bytes:
        """Return it with the offsets and sizes (block,) of blocks that follow without a gap.

        Raises:
            StoreFailed: there are more bytes than a TIFF can address.
        """
        file = bytearray(self.data)
        offsets = len(file) + np.cumsum(sizes) - sizes
        for image in range(self.images):
            table = block_table(self.data, image=image)
            own = slice(image * self.count, (image + 1) * self.count)
            for array, numbers in ((table.offsets, offsets[own]), (table.sizes, sizes[own])):
                packed = array.pack(numbers)
                file[array.position : array.position + len(packed)] = packed
        return bytes(file)


class _Digest:
    """The sha256 of a file, computed in a thread: of its first bytes while the next are written."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._sha256 = hashlib.sha256()
        self._pending: Future[None] | None = None

    def add(self, parts: Sequence[bytes | memoryview]) -> None:
        """Add bytes of the file; waits for those before, so that memory does not grow."""
        if self._pending is not None:
            self._pending.result()
        self._pending = self._pool.submit(self._update, parts)

    def _update(self, parts: Sequence[bytes | memoryview]) -> None:
        for part in parts:
            self._sha256.update(part)

    def result(self) -> str:
        """Return the hash of all bytes, once the thread has ended."""
        return self._sha256.hexdigest()
