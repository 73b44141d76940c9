"""Rasters that stay open from one chunk to the next, as GDAL forgets decoded blocks at a close.

A margin has neighbouring tiles read the same blocks: with one tile to a chunk, decoding each block
once instead of up to four times. Nothing is shared between threads, nor between runs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pesto_runtime.raster import RasterReader


@dataclass
class ReaderCache(threading.local):
    """A thread's open rasters, all of one run; closed when the thread ends or begins another.

    Attributes:
        run: Key of the run; it tells one state of a raster from another.
    """

    run: str = ""
    _open: dict[str, RasterReader] = field(default_factory=dict)

    def reader(self, run: str, href: str) -> RasterReader:
        """An open raster.

        Raises:
            RasterUnreadable: it cannot be opened.
        """
        if run != self.run:
            self.close()
            self.run = run
        if href not in self._open:
            self._open[href] = RasterReader(href)
        return self._open[href]

    def close(self) -> None:
        """Close every raster of this thread."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()
