"""Keep rasters open, and their decoded blocks, for all threads of the process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pesto_runtime.contract import BLOCK, Selection
from pesto_runtime.errors import PestoError
from pesto_runtime.pipeline import RasterType
from pesto_runtime.raster.block_cache import CACHE_BYTES, BlockCache
from pesto_runtime.raster.identity import is_local, require_unchanged
from pesto_runtime.raster.read import RasterReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pesto_runtime.run.context import RunContext


_MOST_IDLE = 64
"""Open rasters that no thread uses: of 16 threads, 4 each."""

_Key: TypeAlias = "tuple[str, str, Selection | None]"


class ReaderCache:
    """Keeps rasters open for the threads of a process; a thread that ends leaves its own to others.

    A GDAL dataset must not be used by two threads at once, so a thread has it for itself while it
    reads. Opening a raster takes as long as reading some blocks of it.
    """

    def __init__(self) -> None:
        """Create an empty cache."""
        self._lock = threading.Lock()
        self._idle: list[tuple[_Key, RasterReader]] = []

    @contextmanager
    def reader(
        self, run: str, href: str, identity: str = "", selection: Selection | None = None
    ) -> Iterator[RasterReader]:
        """Use an open raster; of a local file, the one with the identity if that is not empty.

        If the block fails, the raster is opened again for the next one: an open dataset has its
        header in memory.

        Args:
            run: Key of the run. It contains the identity of each scene: a scene that was replaced
                has another key, and is opened again.
            href: The raster.
            identity: Its identity in the plan.
            selection: The bands and the window of it that are used.

        Raises:
            RasterUnreadable: it cannot be opened.
            SceneChanged: it has another identity.
        """
        key = (run, href, selection)
        reader = self._taken(key) or _opened(href, identity, selection)
        try:
            yield reader
        except BaseException:
            reader.close()
            while (other := self._taken(key)) is not None:
                other.close()
            raise
        with self._lock:
            self._idle.append((key, reader))
            left = self._idle.pop(0)[1] if len(self._idle) > _MOST_IDLE else None
        if left is not None:
            left.close()

    def close(self) -> None:
        """Close all rasters that no thread uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, reader in idle:
            reader.close()

    def _taken(self, key: _Key) -> RasterReader | None:
        with self._lock:
            places = reversed(range(len(self._idle)))
            place = next((each for each in places if self._idle[each][0] == key), None)
            return None if place is None else self._idle.pop(place)[1]


def _opened(href: str, identity: str, selection: Selection | None) -> RasterReader:
    reader = RasterReader(href, selection)
    if is_local(href):
        # After opening: from here on the open file has this content, whatever its name refers to.
        try:
            require_unchanged(href, identity)
        except PestoError:
            reader.close()
            raise
    return reader


def neighbours_first(context: RunContext, number: int, chunks: Iterable[int]) -> list[int]:
    """Return chunks of a phase in an order in which neighbours share decoded blocks.

    They go row by row through bands of columns, of which two rows of cells have room in the cache.
    """
    phase = context.plan.phases[number]
    rasters = [context.types[name] for name in context.phases[number].sources]
    pixel_bytes = sum(
        len(each.bands or (None,)) * np.dtype(each.dtype[0]).itemsize
        for each in rasters
        if isinstance(each, RasterType) and each.dtype
    )
    band = CACHE_BYTES // (2 * BLOCK * max(pixel_bytes, 1))

    def place(chunk: int) -> tuple[int, int, int]:
        col_off, row_off = phase.chunks[chunk][:2]
        return (col_off // band, row_off, col_off)

    return sorted(chunks, key=place)


decoded_blocks = BlockCache(CACHE_BYTES)
"""Blocks that the windows of several tiles show, for all threads of the process."""

readers = ReaderCache()
"""Open rasters, each for one thread at a time."""
