"""Calls that are given up while their answer is waited for, because nobody wants it any more.

Closing the connection is what tells a service to stop. An httpx client cannot do that from another
thread, so the thread that waits looks up now and then.
"""

from __future__ import annotations

import os
import re
import select
import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypedDict, cast
from urllib.parse import urlsplit

import httpx

from pesto_runtime.client.steps import Reply
from pesto_runtime.errors import (
    Interrupted,
    InvalidInput,
    PestoError,
    ServiceMisbehaved,
    Unreachable,
    shortened,
)
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping


_CONNECT_S = 10.0
_PREFIX = "/api/v1"
_GONE = ("disconnected", "closed connection", "closed the connection")


class HttpOptions(TypedDict):
    """Options that `httpx.Client` and `httpx.AsyncClient` share."""

    timeout: httpx.Timeout
    trust_env: bool
    verify: bool | ssl.SSLContext
    headers: Mapping[str, str] | None


def service_url(url: str) -> str:
    """The address of a service up to and with `/api/v1`.

    >>> service_url("http://127.0.0.1:8000/")
    'http://127.0.0.1:8000/api/v1'

    Raises:
        InvalidInput: not an http(s) URL.
    """
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise InvalidInput(f"{shortened(url)} is not the URL of a service, as http://host:8000")
    plain = f"{split.scheme}://{split.netloc}{split.path.rstrip('/')}"
    return plain if plain.endswith(_PREFIX) else plain + _PREFIX


def timeouts(timeout_s: float) -> httpx.Timeout:
    """Seconds without a byte after which an answer is given up; a free connection is waited for."""
    return httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S), pool=None)


def http_options(
    where: str, *, timeout_s: float, headers: Mapping[str, str] | None, verify: bool | str
) -> HttpOptions:
    """How either client of httpx is set up for a service.

    Raises:
        InvalidInput: the file of authorities to trust cannot be read.
    """
    return {
        "timeout": timeouts(timeout_s),
        "trust_env": trusts_environment(where),
        "verify": verifying(where, verify),
        "headers": headers,
    }


def trusts_environment(where: str) -> bool:
    """Whether proxies of the environment are for this service; never for this machine."""
    return not is_loopback(urlsplit(where).hostname or "")


def verifying(where: str, verify: bool | str) -> bool | ssl.SSLContext:
    """How certificates are verified; loading ours takes 20 ms, plain http need not.

    Raises:
        InvalidInput: the file of authorities to trust cannot be read.
    """
    if not where.startswith("https://"):
        return False
    if isinstance(verify, bool):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        told = error.strerror or error
        raise InvalidInput(f"{shortened(verify)} holds no certificates to trust: {told}") from error


def reply_of(response: httpx.Response) -> Reply:
    """What came back."""
    headers: Mapping[str, str] = {name.lower(): text for name, text in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


def translated(error: Exception, where: str, timeout_s: float) -> PestoError:
    """Turn an exception of httpx into the error that it is."""
    told = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"{where}: no connection within {min(timeout_s, _CONNECT_S):g} s")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{where}: no answer within {timeout_s:g} s")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return InvalidInput(f"{where}: {told}")
    if isinstance(error, httpx.DecodingError):
        return ServiceMisbehaved(f"{where} answered a body that cannot be decoded: {told}")
    if isinstance(error, httpx.RemoteProtocolError) and not any(each in told for each in _GONE):
        return ServiceMisbehaved(f"{where} answered something that is not HTTP: {shortened(told)}")
    return Unreachable(f"{where}: {told}; does the service run there?")


HEADER = "traceparent"

_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Trace(NamedTuple):
    """Whose work this is part of.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: Of the caller; 16 hexadecimal digits.
    """

    trace_id: str
    span_id: str

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """Read a `traceparent`; None where it is none, as the standard asks.

        >>> Trace.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").span_id
        'b7ad6b7169203331'
        >>> Trace.parse("00-" + "0" * 32 + "-b7ad6b7169203331-01")
        """
        found = _FORM.fullmatch(header or "")
        if found is None or (header or "").startswith("ff"):
            return None
        trace_id, span_id = found[1], found[2]
        return cls(trace_id, span_id) if int(trace_id, 16) and int(span_id, 16) else None


@contextmanager
def traced(header: str | None) -> Iterator[Trace | None]:
    """Do what is inside as part of a trace; without a valid header it is part of none."""
    trace = Trace.parse(header)
    token = _CURRENT.set(header if trace else None)
    try:
        yield trace
    finally:
        _CURRENT.reset(token)


def with_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request, with the trace that it is part of.

    That is the one of `traced`, else of the environment variable `TRACEPARENT`, by which batch
    schedulers hand theirs to a process.
    """
    current = _CURRENT.get() or os.environ.get("TRACEPARENT")
    if Trace.parse(current) is None or current is None:
        return dict(headers)
    return {**headers, HEADER: current}


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
