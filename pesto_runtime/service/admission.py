"""A bounded queue: how many calls are let in; what does not fit is refused at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pesto_runtime.errors import Busy

if TYPE_CHECKING:
    from types import TracebackType

_FIRST_GUESS_S = 1.0
_WEIGHT = 0.3
_LONGEST_RETRY_S = 60.0


class Admission:
    """How many calls hold a place: those that run, and those that wait beside them."""

    def __init__(self, workers: int, queue: int) -> None:
        """Make room for `workers` running calls and `queue` waiting ones."""
        self.workers = workers
        self.capacity = workers + queue
        self.admitted = 0
        self._seconds = _FIRST_GUESS_S

    def place(self) -> QueuePlace:
        """Take a place, to be used as a context manager; call it on the event loop.

        Raises:
            Busy: none is free; says when one may be.
        """
        if self.admitted >= self.capacity:
            wait_s = min(self._seconds * self.capacity / self.workers, _LONGEST_RETRY_S)
            raise Busy(
                f"{self.workers} calls run and {self.capacity - self.workers} wait; no room for "
                "more now",
                retry_after_s=wait_s,
            )
        return QueuePlace(self)

    def took(self, seconds: float) -> None:
        """Learn how long a call held its place, waiting for its turn not counted out."""
        share = seconds * self.workers / max(self.admitted, self.workers)
        self._seconds += _WEIGHT * (share - self._seconds)


class QueuePlace:
    """One call's place, held from before its body is read until its answer is made."""

    def __init__(self, admission: Admission) -> None:
        """Hold nothing yet; `with` does."""
        self._admission = admission
        self._began = 0.0

    def __enter__(self) -> None:
        self._admission.admitted += 1
        self._began = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.took(time.monotonic() - self._began)
        self._admission.admitted -= 1
