"""Keep rasters open in each thread, and their decoded blocks for all threads of the process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import BLOCK, Selection
from pesto_runtime.errors import PestoError
from pesto_runtime.pipeline import RasterType
from pesto_runtime.raster.block_cache import CACHE_BYTES, BlockCache
from pesto_runtime.raster.identity import is_local, require_unchanged
from pesto_runtime.raster.read import RasterReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pesto_runtime.run.context import RunContext


@dataclass
class ReaderCache(threading.local):
    """The open rasters of a thread, closed when the thread ends or starts another run.

    Attributes:
        run: Key of the run. It contains the identity of each scene: a scene that was replaced has
            another key, and is opened again.
    """

    run: str = ""
    _open: dict[tuple[str, Selection | None], RasterReader] = field(default_factory=dict)

    def reader(
        self, run: str, href: str, identity: str = "", selection: Selection | None = None
    ) -> RasterReader:
        """Return an open raster; of a local file, the one with the identity if that is not empty.

        Args:
            run: Key of the run.
            href: The raster.
            identity: Its identity in the plan.
            selection: The bands and the window of it that are used.

        Raises:
            RasterUnreadable: it cannot be opened.
            SceneChanged: it has another identity.
        """
        if run != self.run:
            self.close()
            self.run = run
        key = (href, selection)
        if key not in self._open:
            reader = self._open[key] = RasterReader(href, selection)
            if is_local(href):
                # After opening: from here on the open file has this content, whatever its name
                # refers to.
                try:
                    require_unchanged(href, identity)
                except PestoError:
                    self._open.pop(key)
                    reader.close()
                    raise
        return self._open[key]

    def close(self) -> None:
        """Close all rasters of this thread."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()


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
"""Open rasters, one set per thread: GDAL datasets must not be used by two threads."""
