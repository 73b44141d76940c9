"""Calls that are given up while their answer is waited for, because nobody wants it any more.

Closing the connection is what tells a service to stop. An httpx client cannot do that from another
thread, so the thread that waits looks up now and then.
"""

from __future__ import annotations

import select
import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, cast

from pesto_runtime.errors import Interrupted

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

_LOOK_S = 0.25
_asked: ContextVar[Callable[[], bool] | None] = ContextVar("pesto_given_up", default=None)
_STREAMS = ("connection.connect_tcp.complete", "connection.start_tls.complete")


class _Stream(Protocol):
    """What httpcore reads a connection by."""

    read: Callable[..., bytes]

    def get_extra_info(self, info: str) -> object:
        """Answer facts: the socket."""


@contextmanager
def given_up_when(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Give up the blocking calls of this context as soon as the question is answered by True.

    The context goes with `contextvars.copy_context()` into other threads.
    """
    token = _asked.set(unwanted)
    try:
        yield
    finally:
        _asked.reset(token)


def pause(seconds: float) -> None:
    """Sleep, unless the call is given up.

    Raises:
        Interrupted: it is.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        _look()
        time.sleep(min(left, _LOOK_S) if _asked.get() else left)


def watch_connection(event: str, facts: Mapping[str, object]) -> None:
    """Watch what a new connection reads: httpx's `trace` extension, called on every event."""
    if event in _STREAMS:
        _watch(cast("_Stream", facts["return_value"]))


def _watch(stream: _Stream) -> None:
    read = stream.read

    def watched(max_bytes: int, timeout: float | None = None) -> bytes:
        if _asked.get() is not None:
            _await_bytes(cast("socket.socket", stream.get_extra_info("socket")), timeout)
        return read(max_bytes, timeout)

    stream.read = watched


def _await_bytes(sock: socket.socket, timeout_s: float | None) -> None:
    """Return when there is something to read, or the time is over and the read will say so."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not poll.poll(_LOOK_S * 1000):
        _look()
        if deadline is not None and time.monotonic() > deadline:
            return


def _look() -> None:
    unwanted = _asked.get()
    if unwanted is not None and unwanted():
        raise Interrupted("the call was given up: nobody waits for its answer any more")
