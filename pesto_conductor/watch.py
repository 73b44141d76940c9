"""Who looks on while a task runs: counts its tiles, and tells it to stop when nobody wants it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pesto_runtime.activities import TileObserver

if TYPE_CHECKING:
    from pesto_runtime.activities import TileRecord


class ProgressTracker:
    """Of one attempt at a task; between the thread that works and the loop that looks after it."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._tiles: Counter[str] = Counter()
        self._told = 0
        self._said: SimpleQueue[str] = SimpleQueue()
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        self.watch = TileObserver(self._count, self._stopped.is_set)

    def stop(self) -> None:
        """Ask the work to end: at its next tile, or while it waits for a service."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._stopped.is_set()

    @property
    def tiles(self) -> Counter[str]:
        """State -> tiles of it so far."""
        with self._guard:
            return Counter(self._tiles)

    def say(self, line: str) -> None:
        """Keep a line for the task's log."""
        self._said.put(line)

    def lines(self) -> list[str]:
        """What was said since this was last asked."""
        found = []
        while True:
            try:
                found.append(self._said.get_nowait())
            except Empty:
                return found

    def progress(self) -> str | None:
        """How far it is; None where nothing was done since this was last asked."""
        tiles, seconds = self.tiles, time.monotonic() - self._begun
        if tiles.total() == self._told:
            return None
        self._told = tiles.total()
        counts = [f"{tiles['done']} tiles computed", f"{tiles['reused']} reused"]
        if tiles["hole"]:
            counts.append(f"{tiles['hole']} failed")
        return f"{', '.join(counts)} in {seconds:.1f} s"

    def _count(self, record: TileRecord) -> None:
        with self._guard:
            self._tiles[record.state] += 1
