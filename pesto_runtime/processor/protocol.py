"""Define the protocol `Processor`, and report progress and log lines of a running process.

Without a listener, for example outside a service, progress and log lines are discarded.
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


class OwnedInputs(dict[str, object]):
    """Inputs that belong to the processor: it may store their arrays and write into them."""


class ServedTarget(Protocol):
    """What a worker of a service loads: the processor of a process, or a pipeline."""

    @property
    def description(self) -> Description:
        """The process's contract."""

    @property
    def build(self) -> str:
        """`sha256:…` of its sources and profiles."""

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """The body of the response to `GET /api/v1/version`."""

    def setup(self) -> None:
        """Run the author's set-up once; later calls do nothing.

        Raises:
            AlgorithmFailed: the author's set-up raised.
        """


@runtime_checkable
class Processor(ServedTarget, Protocol):
    """Runs one process; all methods may be called from several threads."""

    def run(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Return the outputs: arrays (band, row, col), lists of them, or JSON values.

        Args:
            inputs: Arrays (band, row, col) with only the port's bands, lists of them, JSON values.
            tile: Position of the arrays in the scene; None for the whole scene.

        Raises:
            InvalidInput: inputs do not fit; the error lists all of them.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output does not fit its declaration.
            NothingValid: the partial of a reduce is empty.
        """

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Return the partial of a reduce.

        Raises:
            InvalidInput: inputs do not fit, or the process is not a reduce.
            AlgorithmFailed: the author's code raised.
            ContractBroken: the partial has undeclared keys, or is not JSON.
        """

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Return the outputs that a reduce computes from a merged partial; raises as `run` does."""


class Listener(Protocol):
    """Receives the progress and the log lines of a process."""

    def progress(self, done: float, total: float) -> None:
        """Receive the progress: `done` of `total`; 0 <= done <= total."""

    def log(self, text: str) -> None:
        """Receive one log line."""


class _ProcessWide:
    """The listener for threads that an algorithm started itself: threads inherit no context."""

    listener: Listener | None = None


_of_context: ContextVar[Listener | None] = ContextVar("pesto_listener", default=None)


def progress(done: float, total: float = 1.0) -> None:
    """Report that `done` of `total` is done; `done` is clipped to 0..total.

    Raises:
        ValueError: `total` is not a positive finite number, or `done` is NaN.
    """
    if not 0 < total < math.inf or math.isnan(done):
        raise ValueError(f"progress({done}, {total}): total must be positive, and done a number")
    listener = current_listener()
    if listener is not None:
        listener.progress(float(min(max(done, 0), total)), float(total))


def log(text: object) -> None:
    """Log a text, line by line."""
    listener = current_listener()
    if listener is not None:
        for line in str(text).splitlines():
            listener.log(line)


@contextmanager
def listening(listener: Listener, *, everywhere: bool = False) -> Iterator[None]:
    """Send progress and log lines of the block to a listener.

    Args:
        listener: The receiver.
        everywhere: In all threads and not only in this one; only for a process that runs one call
            at a time.
    """
    token = _of_context.set(listener)
    before = _ProcessWide.listener
    if everywhere:
        _ProcessWide.listener = listener
    try:
        yield
    finally:
        _of_context.reset(token)
        if everywhere:
            _ProcessWide.listener = before


def current_listener() -> Listener | None:
    """Return the listener that receives progress and log lines here; None without one."""
    return _of_context.get() or _ProcessWide.listener
