"""Write the progress of a chunk into its task's log: a line every few seconds, one at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.run.records import TileRecord

EVERY_S = 5.0


class ChunkProgress:
    """The tiles of one chunk so far; several threads may count."""

    def __init__(
        self,
        total: int,
        log: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with no tile.

        Args:
            total: Number of tiles.
            log: Receives a line.
            clock: Seconds.
        """
        self._total, self._log, self._clock = total, log, clock
        self._begun = self._next = clock()
        self._next += EVERY_S
        self._states: Counter[str] = Counter()
        self._guard = threading.Lock()

    def count(self, record: TileRecord) -> None:
        """Count a tile; write a line if the last one is 5 s old."""
        with self._guard:
            self._states[record.state] += 1
            now = self._clock()
            if now < self._next:
                return
            self._next = now + EVERY_S
            line = self._line(now - self._begun)
        self._log(line)

    def end(self) -> None:
        """Write how many tiles were computed, reused and left as holes, and in what time."""
        states = self._states
        self._log(
            f"{sum(states.values())} of {self._total} tiles in {self._clock() - self._begun:.1f} s:"
            f" {states['done']} computed, {states['reused']} reused, {states['hole']} holes"
        )

    def _line(self, seconds: float) -> str:
        count = sum(self._states.values())
        # Reused tiles take no time: they would make the rest look short.
        worked = count - self._states["reused"]
        rate = worked / seconds
        left = f", {(self._total - count) / rate:.0f} s left" if worked else ""
        return f"{count} of {self._total} tiles, {rate:.2g}/s{left}"
