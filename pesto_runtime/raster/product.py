"""Write a product: compressed blocks, row-major, after a header that GDAL creates.

The same blocks give the same file, byte for byte, independent of where and in which order they were
compressed. After a kill, the next writer continues from a journal beside the unfinished file. A
product has one writer; blocks are never recompressed; half a product never has the final name.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, BinaryIO, TextIO

import numpy as np
import rasterio
import rasterio.shutil
from deflate import crc32
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pesto_runtime.contract import PRODUCT_FORMAT, Compression
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
        appended: Blocks that this call wrote; the others are from an interrupted one.
        crc32: What `block_checksums` returns for it.
    """

    sha256: str
    size: int
    appended: int
    crc32: str


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
    path: Path,
    layout: Layout | FileHeader,
    blocks: Iterable[bytes],
    *,
    key: str,
    sizes: Sequence[int] = (),
) -> Product:
    """Write a product, or finish one that was interrupted.

    Args:
        path: The finished file; until then, `path.part` and `path.journal` are beside it.
        layout: Size, dtype and metadata; or a header, for a file of other images.
        blocks: Compressed blocks, row-major, as many as the layout has; then those of its mask.
        key: Identity of the pixels; an unfinished file with another key is written anew.
        sizes: Bytes of each block, where all are known before: then the file is hashed while it
            is written. Wrong ones cost time, and never change the file.

    Raises:
        StoreFailed: too few or too many blocks, the disk is full, or the folder is not writable.
    """
    header = header_of(layout)
    try:
        return _written(path, header, blocks, key=key, sizes=sizes)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def _written(
    path: Path, header: FileHeader, blocks: Iterable[bytes], *, key: str, sizes: Sequence[int]
) -> Product:
    part, journal = _beside(path)
    expected = header.filled(sizes) if len(sizes) == header.total else header.data
    heading = _heading(header.data, key)
    entries = _resumable(part, journal, heading, header=expected)
    resumed = len(entries)
    with (
        part.open("r+b" if entries else "wb") as file,
        journal.open("a" if entries else "w") as log,
        ThreadPoolExecutor(1) as pool,
    ):
        digest = _Digest(pool, is_used=expected != header.data)
        if entries:
            for data in iter(lambda: file.read(_BATCH_BYTES), b""):
                digest.add([data])
        else:
            file.write(expected)
            digest.add([expected])
            log.write(json.dumps(heading) + "\n")
        entries += _append(file, log, _after(blocks, entries), digest, most=header.total - resumed)
        if len(entries) != header.total:
            raise StoreFailed(f"{path}: {len(entries)} blocks for a file of {header.total}")
        final = header.filled([entry.size for entry in entries])
        _fill(file, final)
        hashed = digest.result if final == expected else lambda: file_sha256(part)[0]
        sha256 = pool.submit(hashed)
        os.fsync(file.fileno())  # while the last bytes are hashed
    # Replacing is atomic on one file system, so the final name never has an unfinished file.
    part.replace(path)
    with suppress(FileNotFoundError):
        journal.unlink()
    return Product(
        sha256.result(),
        size=len(final) + sum(entry.size for entry in entries),
        appended=len(entries) - resumed,
        crc32="".join(f"{entry.crc32:08x}" for entry in entries[: header.count]),
    )


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


def discard_unfinished(path: Path) -> None:
    """Remove the unfinished file and the journal of an interrupted writer."""
    for leftover in _beside(path):
        leftover.unlink(missing_ok=True)


def header_of(layout: Layout | FileHeader) -> FileHeader:
    """Return the header of a product; a header unchanged."""
    return ProductHeader.of(layout) if isinstance(layout, Layout) else layout


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

    def filled(self, sizes: Sequence[int]) -> bytes:
        """Return it with the offsets and sizes of blocks that follow without a gap.

        Raises:
            StoreFailed: there are more bytes than a TIFF can address.
        """
        file = bytearray(self.data)
        offsets = [*accumulate(sizes, initial=len(file))]
        for image in range(self.images):
            table = block_table(self.data, image=image)
            own = slice(image * self.count, (image + 1) * self.count)
            for array, numbers in ((table.offsets, offsets[own]), (table.sizes, sizes[own])):
                packed = array.pack(numbers)
                file[array.position : array.position + len(packed)] = packed
        return bytes(file)


class _Digest:
    """The sha256 of a file, computed in a thread: of its first bytes while the next are written."""

    def __init__(self, pool: Executor, *, is_used: bool) -> None:
        self._pool, self._is_used = pool, is_used
        self._sha256 = hashlib.sha256()
        self._pending: Future[None] | None = None

    def add(self, parts: list[bytes]) -> None:
        """Add bytes of the file; waits for those before, so that memory does not grow."""
        if self._is_used:
            if self._pending is not None:
                self._pending.result()
            self._pending = self._pool.submit(self._update, parts)

    def _update(self, parts: list[bytes]) -> None:
        for part in parts:
            self._sha256.update(part)

    def result(self) -> str:
        """Return the hash of all bytes; for the same thread, in which all have been added."""
        return self._sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the journal: the next block of the file."""

    size: int
    crc32: int


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".part"), path.with_name(path.name + ".journal")


def _heading(header: bytes, key: str) -> dict[str, str | int]:
    return {"format": PRODUCT_FORMAT, "key": key, "header": hashlib.sha256(header).hexdigest()}


def _append(
    file: BinaryIO, log: TextIO, blocks: Iterator[bytes], digest: _Digest, *, most: int
) -> list[_Entry]:
    """Append blocks; each is entered into the journal after it is written, never before."""
    entries: list[_Entry] = []
    batch: list[bytes] = []
    unhashed = unsynced = 0
    file.seek(0, os.SEEK_END)
    for block in blocks:
        if len(entries) == most:
            raise StoreFailed(f"more blocks than the {most} that the file lacks")
        file.write(block)
        entries.append(_Entry(len(block), crc32(block)))
        log.write(f"[{len(block)}, {entries[-1].crc32}]\n")
        batch.append(block)
        unhashed += len(block)
        unsynced += len(block)
        if unhashed >= _BATCH_BYTES:
            digest.add(batch)
            batch, unhashed = [], 0
        if unsynced >= _SYNC_BYTES:
            # The journal needs no fsync. After a power cut it may list more or fewer blocks than
            # the file has: an entry counts only if its block has its checksum.
            file.flush()
            os.fsync(file.fileno())
            log.flush()
            unsynced = 0
    digest.add(batch)
    return entries


def _fill(file: BinaryIO, header: bytes) -> None:
    """Write the header with the complete table; all other bytes of the file are there."""
    file.seek(0)
    file.write(header)
    file.flush()


def _after(blocks: Iterable[bytes], done: list[_Entry]) -> Iterator[bytes]:
    """Return the blocks after those that are already written."""
    remaining = iter(blocks)
    for _ in done:
        next(remaining, None)
    return remaining


def _resumable(
    part: Path, journal: Path, heading: dict[str, str | int], *, header: bytes
) -> list[_Entry]:
    """Return the journal entries whose bytes are in the file; truncate the file after the last."""
    if not (part.exists() and journal.exists()):
        return []
    lines = _journal_lines(journal)
    if not lines or lines[0] != heading:
        return []
    entries: list[_Entry] = []
    with part.open("r+b") as file:
        file.write(header)
        offset = len(header)
        for line in lines[1:]:
            # In their order and without gaps: the place of a block follows from those before.
            entry = _entry(line)
            if entry is None or not _is_there(file, entry):
                break
            entries.append(entry)
            offset += entry.size
        file.truncate(offset)
    if entries:
        valid = [lines[0], *([entry.size, entry.crc32] for entry in entries)]
        journal.write_text("".join(json.dumps(line) + "\n" for line in valid))
    return entries


def _entry(line: object) -> _Entry | None:
    """Return a line of the journal as an entry; None if it is not one."""
    if not isinstance(line, list) or [type(each) for each in line] != [int, int] or line[0] < 0:
        return None
    return _Entry(*line)


def _journal_lines(journal: Path) -> list[object]:
    lines: list[object] = []
    for text in journal.read_bytes().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # the last line of a killed writer, or damage
            break
    return lines


def _is_there(file: BinaryIO, entry: _Entry) -> bool:
    """Whether the next bytes of the file are those of an entry."""
    data = file.read(entry.size)
    return len(data) == entry.size and crc32(data) == entry.crc32
