"""Make the overviews of a product from its blocks, each decoded once, in one pass.

An overview has half the width and height of the level before it, rounded up; the last one fits into
one block. Its blocks are made in the order of the product's blocks, whatever tiles and threads
these came from, so that the same product has the same overviews.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, NamedTuple, Self
from zlib import crc32

import numpy as np

from pesto_runtime.contract import BLOCK
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.block_codec import BlockCodec, compress_mask, decompress_mask
from pesto_runtime.raster.class_table import TAG
from pesto_runtime.tiling import block_count, block_window, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pesto_runtime.raster.product import Layout
    from pesto_runtime.tiling import BlockIndex, Size

_HALF = BLOCK // 2
_THREADS = min(4, os.cpu_count() or 1)
_AHEAD = 2 * _THREADS


def overview_sizes(size: Size) -> list[Size]:
    """Return the size (width, height) of each overview; none for a product of one block.

    >>> overview_sizes((1300, 600))
    [(650, 300), (325, 150)]
    """
    sizes = []
    while max(size) > BLOCK:
        size = (-(-size[0] // 2), -(-size[1] // 2))
        sizes.append(size)
    return sizes


@dataclass(frozen=True)
class Resampling:
    """How four pixels become one.

    A band of classes, with a colour table or with labels, takes the first valid pixel in the order
    of rows. Other bands take the average of the valid pixels; a half is rounded up. Without a valid
    pixel the result is nodata, or the first pixel if there is no nodata.

    Attributes:
        nearest: Of each band whether it has classes.
        nodata: The value that marks a pixel of a band as not valid, unless there is a mask.
        alpha: Index of the alpha band: 0 marks the pixels of the other bands as not valid.
    """

    nearest: tuple[bool, ...]
    nodata: float | None = None
    alpha: int | None = None

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Return the resampling of a product."""
        facts = layout.bands
        nearest = [bool(each.colours) or TAG in each.tags.get("", {}) for each in facts]
        alpha = [number for number, each in enumerate(facts) if each.colour == "alpha"]
        return cls(
            tuple(nearest) or (False,) * layout.count,
            layout.nodata,
            alpha[0] if alpha and not layout.has_mask else None,
        )

    def halved(
        self, pixels: np.ndarray, valid: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return pixels of half the width and height, rounded up, and their mask.

        Args:
            pixels: Array (band, row, col).
            valid: The mask, bool (row, col); None without one.

        Returns:
            Array (band, row, col) of the same dtype; a mask in which a pixel is valid if one of the
            four is, or None.
        """
        rows, cols = pixels.shape[1:]
        # A repeated last row or column does not change an average, nor the first valid pixel.
        odd = ((0, rows % 2), (0, cols % 2))
        pixels = np.pad(pixels, ((0, 0), *odd), mode="edge")
        mask = None if valid is None else np.pad(valid, odd, mode="edge")
        made = np.stack([self._band(pixels, mask, number) for number in range(len(pixels))])
        return made, None if mask is None else np.any(_quarters(mask), axis=0)

    def _band(self, pixels: np.ndarray, mask: np.ndarray | None, number: int) -> np.ndarray:
        values = pixels[number]
        valid = mask
        if mask is None and self.nodata is not None:
            valid = values != np.array(self.nodata).astype(values.dtype)
        if self.alpha not in (None, number):
            covered = pixels[self.alpha] != 0
            valid = covered if valid is None else valid & covered
        if values.dtype.kind in "fc":
            is_number = ~np.isnan(values)
            valid = is_number if valid is None else valid & is_number
        four = _quarters(values)
        known = None if valid is None or valid.all() else _quarters(valid)
        first = four[0] if known is None else _first_valid(four, known)
        if self.nearest[number]:
            made = first
        elif known is None:
            return _average(four, np.full_like(four[0], 4, dtype=np.uint8))
        else:
            count = known.sum(axis=0, dtype=np.uint8)
            made = _average(np.where(known, four, values.dtype.type(0)), np.maximum(count, 1))
        if known is not None:
            if self.nodata is not None:
                # The average of valid pixels may be the nodata value: -1 and 1 with 0.
                made = np.where(made == values.dtype.type(self.nodata), first, made)
            empty = first if self.nodata is None else values.dtype.type(self.nodata)
            made = np.where(known.any(axis=0), made, empty)
        return made


def _quarters(values: np.ndarray) -> np.ndarray:
    """Return the pixels (row, col) of each 2 x 2 square as an array (4, row, col), row-major."""
    return np.stack([values[row::2, col::2] for row in (0, 1) for col in (0, 1)])


def _first_valid(four: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.asarray(np.take_along_axis(four, known.argmax(axis=0)[None], axis=0)[0])


def _average(four: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the sum of four arrays divided by `count`, 1 to 4, in their dtype."""
    dtype = four.dtype
    if dtype.kind in "fc":
        with np.errstate(all="ignore"):
            wide = four.sum(axis=0, dtype=np.result_type(dtype, np.float64))
            return np.asarray(wide / count, dtype)
    if dtype.itemsize < 8:  # bytes
        wide = four.sum(axis=0, dtype=np.int64 if dtype.itemsize > 2 else np.int32)
        if count.min() == 4:  # faster
            return np.asarray((wide + 2) >> 2, dtype)
        return np.asarray((wide + count // 2) // count, dtype)
    # Quotients and remainders: the sum of four numbers of 64 bits may have more.
    divisor = count.astype(dtype)
    rest = (four % divisor).sum(axis=0, dtype=dtype)
    return np.asarray((four // divisor).sum(axis=0, dtype=dtype) + (rest + divisor // 2) // divisor)


class _Made(NamedTuple):
    """What a thread makes of a block: its bytes, unless it is of the product, and its quarter."""

    data: bytes
    mask: bytes
    half: tuple[np.ndarray, np.ndarray | None] | None


@dataclass
class Level:
    """The blocks of an overview or, as level 0, of the product.

    Attributes:
        size: Width and height, pixels.
        sizes: Bytes of each compressed block, row-major.
        mask_sizes: Bytes of each compressed block of the mask; empty without one.
        offsets: Positions of these blocks in the file; empty for the product.
        mask_offsets: Positions of the blocks of the mask.
        buffer: Position in the file of the pixels of one row of its blocks.
    """

    size: Size
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    mask_sizes: array[int] = field(default_factory=lambda: array("Q"))
    buffer: int = 0
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    mask_offsets: array[int] = field(default_factory=lambda: array("Q"))


class Overviews:
    """All overviews of a product, compressed, in an unnamed file that no kill leaves.

    It has about a third of the product's bytes. Memory does not grow with the product.
    """

    def __init__(self, layout: Layout, folder: Path | None = None) -> None:
        """Create the file.

        Args:
            layout: Size, dtype and metadata of the product.
            folder: Folder on whose disk the file is; that of `TMPDIR` by default.

        Raises:
            OSError: the folder is not writable.
        """
        self._layout, self._rule = layout, Resampling.of(layout)
        self._codec = BlockCodec(layout.count, layout.dtype, layout.compression)
        size = (layout.width, layout.height)
        self.levels = [Level(each) for each in (size, *overview_sizes(size))]
        self.checksums = ""
        """CRC-32 of each block of the product, as `block_checksums` returns them."""
        pixel = layout.count * np.dtype(layout.dtype).itemsize + layout.has_mask
        self._slot = _HALF * _HALF * pixel
        self._end = 0
        for level in self.levels[1:]:
            level.buffer = self._end
            self._end += 4 * self._slot * block_count(level.size)[1]
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def make(self, blocks: Iterable[bytes], masks: Iterable[bytes] = ()) -> Self:
        """Make the blocks of all overviews.

        Args:
            blocks: The compressed blocks of the product, row-major.
            masks: The compressed blocks of its mask, if it has one.

        Raises:
            StoreFailed: a block cannot be decompressed, or the disk is full.
        """
        pairs = zip(blocks, masks if self._layout.has_mask else repeat(b""), strict=False)
        waiting: deque[tuple[int, BlockIndex, Future[_Made]]] = deque()
        sums = []
        try:
            with ThreadPoolExecutor(_THREADS, "pesto-overviews") as pool:
                for index, (data, mask) in zip(blocks_of(self.levels[0].size), pairs, strict=True):
                    sums.append(f"{crc32(data):08x}")
                    waiting.append((0, index, pool.submit(self._decoded, index, data, mask)))
                    while len(waiting) > _AHEAD:
                        self._put(pool, waiting)
                while waiting:
                    self._put(pool, waiting)
        except OSError as error:
            raise StoreFailed(f"overviews: {error.strerror or error}") from error
        self.checksums = "".join(sums)
        return self

    def blocks(self, number: int) -> Iterator[bytes]:
        """Yield the compressed blocks of a level, not of the product, row-major."""
        level = self.levels[number]
        yield from self._read(level.offsets, level.sizes)

    def masks(self, number: int) -> Iterator[bytes]:
        """Yield the compressed blocks of the mask of a level, row-major; 0 is the product."""
        level = self.levels[number]
        yield from self._read(level.mask_offsets, level.mask_sizes)

    def _read(self, offsets: Sequence[int], sizes: Sequence[int]) -> Iterator[bytes]:
        for offset, size in zip(offsets, sizes, strict=True):
            yield os.pread(self._file.fileno(), size, offset)

    def _append(self, data: bytes) -> int:
        offset = self._end
        _pwrite(self._file.fileno(), data, offset)
        self._end += len(data)
        return offset

    def _put(
        self, pool: ThreadPoolExecutor, waiting: deque[tuple[int, BlockIndex, Future[_Made]]]
    ) -> None:
        """Store the oldest block; the last one of four is followed by the block of the four."""
        number, (row, col), future = waiting.popleft()
        made, level = future.result(), self.levels[number]
        level.sizes.append(len(made.data))
        if number:
            level.offsets.append(self._append(made.data))
        if self._layout.has_mask:
            level.mask_sizes.append(len(made.mask))
            level.mask_offsets.append(self._append(made.mask))
        if made.half is None:
            return
        self._put_half(number + 1, (row, col), made.half)
        rows, cols = block_count(level.size)
        if (row % 2 or row == rows - 1) and (col % 2 or col == cols - 1):
            parent = (row // 2, col // 2)
            pixels, valid = self._four(number + 1, parent)
            future = pool.submit(self._compressed, number + 1, parent, pixels, valid)
            waiting.append((number + 1, parent, future))

    def _decoded(self, index: BlockIndex, data: bytes, mask: bytes) -> _Made:
        if len(self.levels) == 1:
            return _Made(data, mask, None)
        window = block_window(index, self.levels[0].size)
        pixels = self._codec.decompress(data)[:, : window.height, : window.width]
        valid = None
        if mask:
            valid = decompress_mask(mask, self._layout.compression)
            valid = valid[: window.height, : window.width]
        return _Made(data, mask, self._rule.halved(pixels, valid))

    def _compressed(
        self, number: int, index: BlockIndex, pixels: np.ndarray, valid: np.ndarray | None
    ) -> _Made:
        window = block_window(index, self.levels[number].size)
        pixels = pixels[:, : window.height, : window.width]
        mask = b""
        if valid is not None:
            valid = valid[: window.height, : window.width]
            mask = compress_mask(valid, self._layout.compression)
        is_last = number == len(self.levels) - 1
        half = None if is_last else self._rule.halved(pixels, valid)
        return _Made(self._codec.compress(pixels), mask, half)

    def _put_half(
        self, number: int, child: BlockIndex, half: tuple[np.ndarray, np.ndarray | None]
    ) -> None:
        """Put a quarter of a block into the buffer of its level; the buffer has one row."""
        pixels, valid = half
        _, rows, cols = pixels.shape
        padded = np.zeros((self._layout.count, _HALF, _HALF), self._layout.dtype)
        padded[:, :rows, :cols] = pixels
        data = padded.tobytes()
        if valid is not None:
            mask = np.zeros((_HALF, _HALF), bool)
            mask[:rows, :cols] = valid
            data += mask.tobytes()
        row, col = child
        slot = 4 * (col // 2) + 2 * (row % 2) + col % 2
        _pwrite(self._file.fileno(), data, self.levels[number].buffer + slot * self._slot)

    def _four(self, number: int, index: BlockIndex) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a block of an overview, of which all four quarters are in the buffer."""
        start = self.levels[number].buffer + 4 * index[1] * self._slot
        data = os.pread(self._file.fileno(), 4 * self._slot, start).ljust(4 * self._slot, b"\0")
        pixels = np.empty((self._layout.count, BLOCK, BLOCK), self._layout.dtype)
        valid = np.empty((BLOCK, BLOCK), bool) if self._layout.has_mask else None
        for quarter in range(4):
            place = np.s_[
                quarter // 2 * _HALF : (quarter // 2 + 1) * _HALF,
                quarter % 2 * _HALF : (quarter % 2 + 1) * _HALF,
            ]
            raw = data[quarter * self._slot : (quarter + 1) * self._slot]
            end = self._slot - _HALF * _HALF * self._layout.has_mask
            shape = (self._layout.count, _HALF, _HALF)
            pixels[:, *place] = np.frombuffer(raw[:end], self._layout.dtype).reshape(shape)
            if valid is not None:
                valid[place] = np.frombuffer(raw[end:], bool).reshape(_HALF, _HALF)
        return pixels, valid


def _pwrite(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
