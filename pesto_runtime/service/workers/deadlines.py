"""Ends calls that take too long, by one timer for all of them: nearly all end long before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.service.workers.handle import Handle


class Deadlines:
    """Watches the workers that have a call; every call has the same time."""

    def __init__(self, most_s: float | None) -> None:
        """Give every call so many seconds; None for as many as it takes."""
        self._most_s = most_s
        self._watched: dict[Handle, float] = {}  # the one that ends first comes first
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, handle: Handle) -> None:
        """Begin the time of a worker's call."""
        if self._most_s is None:
            return
        loop = asyncio.get_running_loop()
        self._watched[handle] = loop.time() + self._most_s
        if self._timer is None:
            self._timer = loop.call_later(self._most_s, self._look)

    def forget(self, handle: Handle) -> None:
        """A worker's call has ended."""
        self._watched.pop(handle, None)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """End what is late, and look again when the next one may be."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for handle, deadline in list(self._watched.items()):
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._look)
                return
            del self._watched[handle]
            handle.expire()
