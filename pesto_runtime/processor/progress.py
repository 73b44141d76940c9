"""What an algorithm tells while it works: how far it is, and lines of text.

Outside a service nobody listens, and nothing happens.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Listener(Protocol):
    """Hears what an algorithm tells."""

    def progress(self, done: float, total: float) -> None:
        """Hear that `done` of `total` is done; 0 <= done <= total."""

    def log(self, text: str) -> None:
        """Hear one line."""


class _Everywhere:
    """Who hears threads that an algorithm started itself: they inherit no context."""

    listener: Listener | None = None


_here: ContextVar[Listener | None] = ContextVar("pesto_listener", default=None)


def progress(done: float, total: float = 1.0) -> None:
    """Tell that `done` of `total` is done; what lies outside 0..total is told as its end.

    Raises:
        ValueError: `total` is not a positive number, or `done` is none.
    """
    if not 0 < total < math.inf or math.isnan(done):
        raise ValueError(f"progress({done}, {total}): total must be positive, and done a number")
    listener = _listener()
    if listener is not None:
        listener.progress(float(min(max(done, 0), total)), float(total))


def log(text: object) -> None:
    """Tell a text, line by line."""
    listener = _listener()
    if listener is not None:
        for line in str(text).splitlines():
            listener.log(line)


@contextmanager
def listening(listener: Listener, *, everywhere: bool = False) -> Iterator[None]:
    """Let a listener hear what is told inside the block.

    Args:
        listener: Who hears.
        everywhere: In all threads, not only in this one; for a process that runs one call at once.
    """
    token = _here.set(listener)
    before = _Everywhere.listener
    if everywhere:
        _Everywhere.listener = listener
    try:
        yield
    finally:
        _here.reset(token)
        if everywhere:
            _Everywhere.listener = before


def _listener() -> Listener | None:
    return _here.get() or _Everywhere.listener
