"""What an algorithm tells while it works: how far it is, and lines of text.

Outside a service nobody listens, and nothing happens.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, TileInfo


class Given(dict[str, object]):
    """Inputs that are given away: who runs them may keep their arrays, and write into them."""


@runtime_checkable
class Processor(Protocol):
    """Performs one process; safe to call from several threads."""

    @property
    def description(self) -> Description:
        """The process's contract."""

    @property
    def build(self) -> str:
        """`sha256:…` of its sources and profiles."""

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """What `/version` tells."""

    def setup(self) -> None:
        """Get ready, once; the first call of several does the work.

        Raises:
            AlgorithmFailed: the author's set-up raised.
        """

    def run(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer the outputs: arrays (band, row, col), lists of them, or JSON values.

        Args:
            inputs: Arrays (band, row, col) with bands already picked, lists of them, JSON values.
            tile: Where the arrays lie in the scene; None for the whole of it.

        Raises:
            InvalidInput: with every input that does not fit.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output is not what was declared.
            NothingValid: a reduce found nothing to reduce.
        """

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer a reduce's partial; raises as `run` does, and InvalidInput if it is no reduce."""

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Answer the outputs of a merged partial; raises as `run` does."""


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
