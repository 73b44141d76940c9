"""Admit calls: a bounded queue of each process, and the quota of each caller over all of them."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from pesto_runtime.errors import Busy, OverQuota

if TYPE_CHECKING:
    from types import TracebackType

_FIRST_GUESS_S = 1.0
_WEIGHT = 0.3
_LONGEST_RETRY_S = 60.0


class CallerCalls:
    """The calls of each caller that run or wait, of all processes of a service together."""

    def __init__(self, most: int | None) -> None:
        """Admit at most so many of one caller; None for any number."""
        self._most = most
        self._calls: Counter[str] = Counter()

    def require_room(self, caller: str, *, retry_after_s: float) -> None:
        """Do nothing while a caller may have another call; one without a name always may.

        Raises:
            OverQuota: it has as many as it may have; has the seconds until it may retry.
        """
        if self._most is None or not caller or self._calls[caller] < self._most:
            return
        raise OverQuota(
            f"{caller} has {self._calls[caller]} calls here, and may have {self._most} at once "
            "(--caller-calls)",
            retry_after_s=retry_after_s,
        )

    def count(self, caller: str, calls: int) -> None:
        """Add calls of a caller; a negative number for calls that have ended."""
        if self._most is not None and caller:
            self._calls[caller] += calls
            if not self._calls[caller]:
                del self._calls[caller]


class Admission:
    """A bounded queue: calls that run, and calls that wait; others are refused at once."""

    def __init__(self, workers: int, queue: int, callers: CallerCalls | None = None) -> None:
        """Admit `workers` running calls and `queue` waiting ones, within the quota of callers."""
        self.workers = workers
        self._callers = callers or CallerCalls(None)
        self.capacity = workers + queue
        self.admitted = 0
        self._seconds = _FIRST_GUESS_S

    def place(self, caller: str = "") -> QueuePlace:
        """Return a place in the queue, a context manager; call this on the event loop.

        Args:
            caller: Name of the caller; empty for one without a quota.

        Raises:
            Busy: all places are in use; has an estimate of when one is free.
            OverQuota: the caller has as many as it may have.
        """
        self.require_room(caller)
        return QueuePlace(self, caller)

    def require_room(self, caller: str = "") -> None:
        """Do nothing while there is a place; raises as `place` does."""
        self._callers.require_room(caller, retry_after_s=min(self._seconds, _LONGEST_RETRY_S))
        if self.admitted >= self.capacity:
            wait_s = min(self._seconds * self.capacity / self.workers, _LONGEST_RETRY_S)
            raise Busy(
                f"{self.workers} calls run and {self.capacity - self.workers} wait; no room for "
                "more now",
                retry_after_s=wait_s,
            )

    def entered(self, caller: str) -> None:
        """Count a call."""
        self.admitted += 1
        self._callers.count(caller, 1)

    def left(self, caller: str) -> None:
        """Count the end of a call."""
        self.admitted -= 1
        self._callers.count(caller, -1)

    def record_duration(self, seconds: float) -> None:
        """Update the mean duration of a call; `seconds` is how long one had its place."""
        # A place is in use while its call waits, too: only its share of the workers counts.
        share = seconds * self.workers / max(self.admitted, self.workers)
        self._seconds += _WEIGHT * (share - self._seconds)


class QueuePlace:
    """The place of one call, in use from the end of its body until its response is complete."""

    def __init__(self, admission: Admission, caller: str) -> None:
        """Prepare the place; it is in use inside `with`."""
        self._admission, self._caller = admission, caller
        self._began = 0.0

    def __enter__(self) -> None:
        self._admission.entered(self._caller)
        self._began = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.record_duration(time.monotonic() - self._began)
        self._admission.left(self._caller)
