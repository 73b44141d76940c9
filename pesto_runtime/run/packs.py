"""Store finished blocks in packs, one object for many blocks, and read them by their place in it.

A pack is the bytes of its blocks, one after another, then a footer: row, column, offset, length and
CRC-32 of each block, and a checksum of the footer and of the pack's name, which has the key of the
blocks. A pack appears whole, has a name that no other writer uses, and is never changed. Two packs
may have the same block: blocks of one key have the same bytes.
This file knows nothing of tiles, and computes no block: `run/repairing.py` does.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np
from deflate import crc32

from pesto_runtime.contract import BLOCK
from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.raster.product import Blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Window
    from pesto_runtime.store import NewObject, Store
    from pesto_runtime.tiling import BlockIndex

_BYTES = 64 << 20
_SECONDS = 2.0
_SECONDS_REMOTE = 10.0  # a request takes 20 to 100 ms
_FOOTER = np.dtype(
    [("row", "<u4"), ("col", "<u4"), ("offset", "<u8"), ("length", "<u8"), ("crc32", "<u4")]
)
_PLACE = np.dtype([("pack", "<i4"), ("crc32", "<u4"), ("offset", "<i8"), ("length", "<i8")])
_END = struct.Struct("<Q32s")
"""Number of blocks; sha256 of the name and the footer."""

_NAME = re.compile(r"/(\d+)-(\d+)-(\d+)-(\d+)-[0-9a-f]{32}\.pack1$")
"""Extent of the blocks, a name of its own, and the version of the layout: others are not read."""

_TAIL_BYTES = 64 << 10
_WINDOW_BYTES = 16 << 20
_READERS = 4
_READERS_REMOTE = 16


@dataclass
class PackWriter:
    """Collects the finished blocks of a raster or a vector; belongs to one thread.

    They are stored at the end of the chunk, after 2 s (10 s in a bucket), and when they have
    64 MiB. Until then, they are in a file that nobody reads, or in memory for a bucket.

    Attributes:
        store: The run store.
        folder: Folder of the packs.
    """

    store: Store
    folder: str
    _pack: NewObject | None = None
    _places: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _bytes: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._seconds = _SECONDS if self.store.base.startswith("file:") else _SECONDS_REMOTE

    def add(self, index: BlockIndex, data: bytes) -> None:
        """Take a block (row, col).

        Raises:
            StoreFailed: the store cannot be written; the blocks since the last pack are lost.
        """
        if self._pack is None:
            self._pack = self.store.begin(f"{self.folder}/{uuid.uuid4().hex}")
        try:
            self._pack.write(data)
        except BaseException:
            self.discard()
            raise
        self._places.append((*index, self._bytes, len(data), crc32(data)))
        self._bytes += len(data)
        if self._bytes > _BYTES or time.monotonic() - self._begun > self._seconds:
            self.flush()

    def flush(self) -> None:
        """Store what was collected.

        Raises:
            Damaged: another run has deleted the folder meanwhile; a retry computes these blocks.
            StoreFailed: the store cannot be written; the blocks since the last pack are lost.
        """
        if self._pack is None:
            return
        places = np.array(self._places, _FOOTER)
        rows, cols = places["row"], places["col"]
        extent = f"{rows.min()}-{cols.min()}-{rows.max()}-{cols.max()}"
        name = f"{self.folder}/{extent}-{uuid.uuid4().hex}.pack1"
        try:
            self._pack.write(_footer(name, places))
            self._pack.finish(name)
            self._pack = None
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop what was collected since the last pack."""
        if self._pack is not None:
            self._pack.discard()
        self._pack, self._bytes, self._begun = None, 0, time.monotonic()
        self._places.clear()


@dataclass(frozen=True)
class StoredBlocks:
    """Those blocks of a part of a grid that were in packs when it was made.

    Attributes:
        store: The run store.
        first: The first block (row, col) of the part.
        columns: Blocks in a row of the part.
        packs: Names of the packs.
        places: Pack, offset, bytes and CRC-32 of each block, row-major; pack -1 for a missing one.
    """

    store: Store
    first: BlockIndex
    columns: int
    packs: tuple[str, ...]
    places: np.ndarray

    @classmethod
    def of(cls, store: Store, folder: str, window: Window) -> Self:
        """Read the footers of packs; a damaged pack is deleted.

        Args:
            store: The run store.
            folder: Folder of the packs.
            window: Pixels of the grid; other blocks are left out.

        Raises:
            StoreFailed: the store does not respond.
        """
        top, left = window.row_off // BLOCK, window.col_off // BLOCK
        bottom, right = -(-window.row_stop // BLOCK), -(-window.col_stop // BLOCK)
        rows, columns = (bottom - top, right - left) if window.pixels else (0, 0)
        places = np.zeros(rows * columns, _PLACE)
        places["pack"] = -1
        names: list[str] = []
        for name, found in _packs(store, folder, (top, left, bottom, right)):
            row, col = found["row"], found["col"]
            inside = (top <= row) & (row < bottom) & (left <= col) & (col < right)
            there = found[inside]
            at = (there["row"].astype(np.int64) - top) * columns + there["col"] - left
            places["pack"][at] = len(names)
            for each in ("offset", "length", "crc32"):
                places[each][at] = there[each]
            names.append(name)
        return cls(store, (top, left), columns, tuple(names), places)

    @property
    def missing(self) -> np.ndarray:
        """The row-major numbers of the blocks that are not stored."""
        return np.flatnonzero(self.places["pack"] < 0)

    @property
    def missing_blocks(self) -> tuple[BlockIndex, ...]:
        """The blocks (row, col) that are not stored, row-major."""
        return self.indices(self.missing)

    def indices(self, numbers: np.ndarray) -> tuple[BlockIndex, ...]:
        """Return the blocks (row, col) of row-major numbers."""
        top, left = self.first
        rows, cols = np.divmod(numbers, max(self.columns, 1))
        return tuple(zip((rows + top).tolist(), (cols + left).tolist(), strict=True))

    def __contains__(self, index: BlockIndex) -> bool:
        return bool(self.places["pack"][self._number(index)] >= 0)

    def read(self, index: BlockIndex) -> bytes:
        """Read a block (row, col).

        Raises:
            NotFound: it is not stored.
            Damaged: its pack is damaged or gone; it has been deleted.
            StoreFailed: the store does not respond.
        """
        number = self._number(index)
        (block,) = self.in_order(number, number + 1)
        return bytes(block.data)

    def pack_of(self, index: BlockIndex) -> str:
        """Return the name of the pack of a stored block (row, col)."""
        return self.packs[int(self.places["pack"][self._number(index)])]

    def _number(self, index: BlockIndex) -> int:
        return (index[0] - self.first[0]) * self.columns + index[1] - self.first[1]

    def in_order(self, start: int, stop: int) -> Iterator[Blocks]:
        """Read the blocks of row-major numbers `start` to `stop`, some MiB ahead.

        Raises:
            NotFound: one of them is not stored.
            Damaged: a pack is damaged or gone; it has been deleted.
            StoreFailed: the store does not respond.
        """
        absent = np.flatnonzero(self.places["pack"][start:stop] < 0)
        if absent.size:
            (index,) = self.indices(absent[:1] + start)
            raise NotFound(f"block {index} is not in the run store {self.store.base}")
        windows = _windows(self.places["length"][start:stop], start)
        is_local = self.store.base.startswith("file:")
        with ThreadPoolExecutor(_READERS if is_local else _READERS_REMOTE, "pesto-read") as pool:
            ahead = [_Window(self, pool, *window) for window in windows[:1]]
            for window in [*windows[1:], None]:
                if window is not None:
                    ahead.append(_Window(self, pool, *window))
                yield from ahead.pop(0).blocks()


class _Window:
    """Some blocks that follow each other in the grid, while their packs are read."""

    def __init__(
        self, stored: StoredBlocks, pool: ThreadPoolExecutor, start: int, stop: int
    ) -> None:
        self._places = stored.places[start:stop]
        offsets, packs = self._places["offset"], self._places["pack"]
        ends = offsets + self._places["length"]
        order = np.lexsort((offsets, packs))
        # A part: blocks that follow each other in their pack, read as one.
        begins = np.ones(len(order), bool)
        begins[1:] = (packs[order][1:] != packs[order][:-1]) | (
            offsets[order][1:] != ends[order][:-1]
        )
        self._part = np.empty(len(order), np.int64)
        self._part[order] = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(order)) - 1
        self._starts = offsets[order][first]
        stops = ends[order][last]
        owners = packs[order][first]
        self._parts: list[tuple[Future[list[memoryview]], int]] = []
        for pack in np.unique(owners):
            own = np.flatnonzero(owners == pack)
            ranges = [*zip(self._starts[own].tolist(), stops[own].tolist(), strict=True)]
            inside = order[first[own[0]] : last[own[-1]] + 1]
            read = pool.submit(
                copy_context().run, _read_parts, stored.store, stored.packs[pack], ranges,
                self._places[["offset", "length", "crc32"]][inside],
            )  # fmt: skip
            self._parts += [(read, number) for number in range(len(own))]

    def blocks(self) -> Iterator[Blocks]:
        """Yield the blocks in the order of the grid, many at once where the pack has this order.

        Raises:
            Damaged: a pack is damaged or gone.
        """
        offsets, sizes = self._places["offset"], self._places["length"]
        follows = (self._part[1:] == self._part[:-1]) & (offsets[1:] == offsets[:-1] + sizes[:-1])
        edges = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(sizes)]
        for start, stop in pairwise(edges):
            part = self._part[start]
            read, number = self._parts[part]
            begin = int(offsets[start] - self._starts[part])
            end = int(offsets[stop - 1] + sizes[stop - 1] - self._starts[part])
            yield Blocks(
                read.result()[number][begin:end],
                sizes[start:stop],
                self._places["crc32"][start:stop],
            )


def _windows(lengths: np.ndarray, first: int) -> list[tuple[int, int]]:
    """Return first and last number (excluded) of blocks that have some MiB together."""
    group = np.cumsum(lengths) // _WINDOW_BYTES
    edges = [0, *(np.flatnonzero(group[1:] != group[:-1]) + 1).tolist(), len(lengths)]
    return [(first + a, first + b) for a, b in pairwise(edges) if b > a]


def _read_parts(
    store: Store, name: str, ranges: list[tuple[int, int]], places: np.ndarray
) -> list[memoryview]:
    """Read parts of a pack, and verify their blocks, which are sorted by their offsets."""
    try:
        parts = store.get_ranges(name, ranges)
    except NotFound as error:  # another reader found it damaged
        raise Damaged(f"{store.href(name)} has been deleted as damaged") from error
    blocks = iter(places.tolist())
    for (start, stop), part in zip(ranges, parts, strict=True):
        at = start
        while at < stop:
            offset, length, expected = next(blocks)
            at = offset + length
            if crc32(part[offset - start : at - start]) != expected:
                raise _deleted(store, name)
    return parts


def _deleted(store: Store, name: str) -> Damaged:
    store.delete([name])
    return Damaged(
        f"{store.href(name)} was damaged: a checksum differs; it has been deleted, and the same "
        "command or a retry computes its blocks again"
    )


def _packs(
    store: Store, folder: str, part: tuple[int, int, int, int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and footer of the undamaged packs that may have blocks of a part of the grid.

    Args:
        store: The run store.
        folder: Folder of the packs.
        part: First row and column of blocks, and the row and column after the last ones.
    """
    top, left, bottom, right = part

    def is_near(name: str) -> bool:
        extent = _NAME.search(name)
        if extent is None:
            return False
        first_row, first_col, last_row, last_col = map(int, extent.groups())
        is_level = first_row < bottom and top <= last_row
        return is_level and first_col < right and left <= last_col

    found = [(name, size) for name, size in store.sizes(folder) if is_near(name)]
    if len(found) < _READERS:
        places = [_places(store, name, size) for name, size in found]
    else:
        with ThreadPoolExecutor(_READERS_REMOTE, "pesto-read") as pool:
            futures = [
                pool.submit(copy_context().run, _places, store, name, size) for name, size in found
            ]
            places = [each.result() for each in futures]
    for (name, _), each in zip(found, places, strict=True):
        if each is not None:
            yield name, each


def _places(store: Store, name: str, size: int) -> np.ndarray | None:
    """Return the footer of a pack; None if it is damaged or gone."""
    try:
        (tail,) = store.get_ranges(name, [(max(0, size - _TAIL_BYTES), size)])
        if len(tail) < _END.size:
            raise _deleted(store, name)
        count, digest = _END.unpack(tail[-_END.size :])
        length = count * _FOOTER.itemsize
        if length + _END.size > size:
            raise _deleted(store, name)
        if length + _END.size > len(tail):
            (tail,) = store.get_ranges(name, [(size - length - _END.size, size)])
        footer = tail[-_END.size - length : -_END.size]
        if _digest(name, footer) != digest:
            raise _deleted(store, name)
    except NotFound:
        return None
    return np.frombuffer(footer, _FOOTER)


def _footer(name: str, places: np.ndarray) -> bytes:
    data = places.tobytes()
    return data + _END.pack(len(places), _digest(name, data))


def _digest(name: str, footer: bytes | memoryview) -> bytes:
    # With the name, the pack of another key is recognised in its place.
    return hashlib.sha256(name.encode() + b"\0" + footer).digest()
