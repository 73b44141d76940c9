"""Pass the time to workers whose call may be late.

It decides nothing: `lifecycle` compares the time with the deadline of the call.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.service.workers.handle import WorkerHandle


class CallDeadlines:
    """Passes the time to workers whose call may be late; all calls have the same time limit.

    There is one timer for all: nearly every call ends long before its deadline, and a timer of its
    own would be created and cancelled for nothing.
    """

    def __init__(self, timeout_s: float | None) -> None:
        """Limit calls to so many seconds; None for no limit."""
        self._timeout_s = timeout_s
        self._watched: dict[WorkerHandle, float] = {}  # the earliest deadline comes first
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, handle: WorkerHandle) -> float | None:
        """Return the deadline of a call that this worker gets now; None for never."""
        if self._timeout_s is None:
            return None
        loop = asyncio.get_running_loop()
        deadline = self._watched[handle] = loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._pass_time)
        return deadline

    def forget(self, handle: WorkerHandle) -> None:
        """Stop watching a worker, whose call has ended."""
        self._watched.pop(handle, None)

    def close(self) -> None:
        """Stop watching all."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _pass_time(self) -> None:
        """Report the time to late workers, and wait until the next one may be late."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        # All calls have the same time limit: the order of their starts is that of their deadlines.
        for handle, deadline in list(self._watched.items()):
            if deadline > now:
                self._timer = loop.call_at(deadline, self._pass_time)
                return
            del self._watched[handle]
            handle.pass_time(now)
