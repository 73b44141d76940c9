"""Write a product: compressed blocks, row-major, after a header that GDAL creates.

The same blocks give the same file, byte for byte, independent of where and in which order they were
compressed. After a kill, the next writer continues from a journal beside the unfinished file. A
product has one writer; blocks are never recompressed; half a product never has the final name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, BinaryIO, TextIO
from zlib import crc32

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from pesto_runtime.contract import BLOCK, PRODUCT_FORMAT
from pesto_runtime.errors import StoreFailed
from pesto_runtime.places import RemotePath
from pesto_runtime.raster.block_codec import BlockTable, block_table, creation_options
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.image import BandFacts, Georeference
from pesto_runtime.raster.metadata import write_bands, write_georeference
from pesto_runtime.tiling import block_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pesto_runtime.places import AnyPath


_BIG_BYTES = 3_900_000_000  # classic TIFF addresses 4 GiB; the rest is for header and tables
_SYNC_BYTES = 256 << 20


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
    """

    width: int
    height: int
    count: int
    dtype: str
    nodata: float | None = None
    georeference: Georeference = Georeference()
    bands: tuple[BandFacts, ...] = ()
    has_mask: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """A finished file.

    Attributes:
        sha256: The hash of the whole file, hexadecimal.
        size: Bytes.
        appended: Blocks that this call wrote; the others are from an interrupted one.
    """

    sha256: str
    size: int
    appended: int


def product_header(layout: Layout) -> bytes:
    """Return the part of the file before its blocks, as GDAL writes it."""
    raw = layout.width * layout.height * layout.count * np.dtype(layout.dtype).itemsize
    options = creation_options(layout.dtype)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(
            width=layout.width,
            height=layout.height,
            count=layout.count,
            dtype=layout.dtype,
            nodata=layout.nodata,
            sparse_ok=True,  # GDAL writes the header and no blocks
            bigtiff="YES" if raw > _BIG_BYTES else "NO",
            **options,
        ) as dataset:
            write_georeference(dataset, layout.georeference)
            write_bands(dataset, layout.bands)
            if layout.has_mask:
                dataset.write_mask(np.zeros((1, 1), bool), window=Window(0, 0, 1, 1))
        return bytes(memory.getbuffer())


def write_product(path: Path, layout: Layout, blocks: Iterable[bytes], *, key: str) -> Product:
    """Write a product, or finish one that was interrupted.

    Args:
        path: The finished file; until then, `path.part` and `path.journal` are beside it.
        layout: Size, dtype and metadata.
        blocks: Compressed blocks, row-major, as many as the layout has; then those of its mask.
        key: Identity of the pixels; an unfinished file with another key is written anew.

    Raises:
        StoreFailed: too few or too many blocks, the disk is full, or the folder is not writable.
    """
    header = product_header(layout)
    rows, cols = block_count((layout.width, layout.height))
    try:
        return _written(
            path, header, blocks, key=key, count=rows * cols, images=1 + layout.has_mask
        )
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def _written(
    path: Path, header: bytes, blocks: Iterable[bytes], *, key: str, count: int, images: int
) -> Product:
    """Write a file with `count` blocks in each of its images."""
    total = count * images
    part, journal = _beside(path)
    heading = _heading(header, key)
    entries = _resumable(part, journal, heading, header=header)
    with (
        part.open("r+b" if entries else "wb") as file,
        journal.open("a" if entries else "w") as log,
    ):
        if not entries:
            file.write(header)
            log.write(json.dumps(heading) + "\n")
        places = [(entry.offset, entry.size) for entry in entries]
        places += _append(file, log, _after(blocks, places), start=len(places), count=total)
        if len(places) != total:
            raise StoreFailed(f"{path}: {len(places)} blocks for a file of {total}")
        for image in range(images):
            table = block_table(header, image=image)
            _fill(file, table, places[image * count : (image + 1) * count])
    digest, size = file_sha256(part)
    # Replacing is atomic on one file system, so the final name never has an unfinished file.
    part.replace(path)
    with suppress(FileNotFoundError):
        journal.unlink()
    return Product(digest, size, appended=total - len(entries))


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
            return "".join(f"{crc32(view[start : start + size]):08x}" for start, size in places)


def discard_unfinished(path: Path) -> None:
    """Remove the unfinished file and the journal of an interrupted writer."""
    for leftover in _beside(path):
        leftover.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the journal: a block that is in the file."""

    block: int
    offset: int
    size: int
    sha256: str


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".part"), path.with_name(path.name + ".journal")


def _heading(header: bytes, key: str) -> dict[str, str | int]:
    return {"format": PRODUCT_FORMAT, "key": key, "header": hashlib.sha256(header).hexdigest()}


def _append(
    file: BinaryIO, log: TextIO, blocks: Iterator[bytes], *, start: int, count: int
) -> list[tuple[int, int]]:
    """Append blocks; each is entered into the journal after it is written, never before."""
    places, unsynced = [], 0
    offset = file.seek(0, os.SEEK_END)
    for number, block in enumerate(blocks, start=start):
        if number >= count:
            raise StoreFailed(f"more blocks than the {count} of the file")
        file.write(block)
        entry = [number, offset, len(block), hashlib.sha256(block).hexdigest()]
        log.write(json.dumps(entry) + "\n")
        places.append((offset, len(block)))
        offset += len(block)
        unsynced += len(block)
        if unsynced >= _SYNC_BYTES:
            _flush(file, log)
            unsynced = 0
    _flush(file, log)
    return places


def _flush(file: BinaryIO, log: TextIO) -> None:
    # The journal needs no fsync. After a power cut it may list more or fewer blocks than the file
    # has: each entry counts only if the block has its sha256, and missing blocks are written again.
    file.flush()
    os.fsync(file.fileno())
    log.flush()


def _fill(file: BinaryIO, table: BlockTable, places: list[tuple[int, int]]) -> None:
    for array, numbers in (
        (table.offsets, [offset for offset, _ in places]),
        (table.sizes, [size for _, size in places]),
    ):
        file.seek(array.position)
        file.write(array.pack(numbers))
    file.flush()
    os.fsync(file.fileno())


def _after(blocks: Iterable[bytes], done: list[tuple[int, int]]) -> Iterator[bytes]:
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
            entry = _entry(line)
            # In their order and without gaps: a journal of swapped lines would swap the blocks.
            is_next = entry is not None and (entry.block, entry.offset) == (len(entries), offset)
            if entry is None or not is_next or not _is_there(file, entry):
                break
            entries.append(entry)
            offset += entry.size
        if entries:
            file.truncate(offset)
    if entries:
        valid = [lines[0], *([e.block, e.offset, e.size, e.sha256] for e in entries)]
        journal.write_text("".join(json.dumps(line) + "\n" for line in valid))
    return entries


def _entry(line: object) -> _Entry | None:
    """Return a line of the journal as an entry; None if it is not one."""
    kinds = [int, int, int, str]
    if not isinstance(line, list) or [type(part) for part in line] != kinds or line[2] < 0:
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
    if entry.offset + entry.size > os.fstat(file.fileno()).st_size:
        return False
    file.seek(entry.offset)
    return hashlib.sha256(file.read(entry.size)).hexdigest() == entry.sha256


def write_cog(source: Path, path: Path) -> None:
    """Write a cloud-optimised copy of a product; if that fails, no file remains.

    Raises:
        StoreFailed: the disk is full, or the folder is not writable.
    """
    try:
        with raster_settings():
            rasterio.shutil.copy(
                source,
                path,
                driver="COG",
                compress="DEFLATE",
                level=6,
                predictor="YES",
                blocksize=BLOCK,
                overviews="AUTO",
                resampling="NEAREST",
                num_threads=1,
            )
            _read_last_block(path)
    except (
        RasterioError,
        CPLE_BaseError,
    ) as error:  # rasterio does not wrap GDAL's errors of a copy
        reason = _disk_full(path.parent, source.stat().st_size) or str(error)
        if path.is_file():
            path.unlink()
        raise StoreFailed(f"{path}: {reason}") from error


def _read_last_block(path: Path) -> None:
    """Check that the file is complete: GDAL does not report an error of its last flush."""
    with rasterio.open(path) as dataset:
        dataset.read(1, window=Window(dataset.width - 1, dataset.height - 1, 1, 1))


def _disk_full(folder: Path, size: int) -> str:
    """Return the operating system's message if the disk is full; GDAL's own message varies."""
    is_full = folder.is_dir() and shutil.disk_usage(folder).free < size
    return os.strerror(errno.ENOSPC) if is_full else ""
