"""Set up httpx for a service, translate its errors, and cancel blocking calls.

A service stops computing when its caller closes the connection. Another thread cannot close it: the
thread that waits for the response checks four times a second whether the call is still wanted. This
file decides nothing about retries: `steps.py` does.
"""

from __future__ import annotations

import os
import re
import select
import ssl
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypedDict, cast
from urllib.parse import urlencode, urlsplit
from weakref import WeakValueDictionary

from pesto_runtime.client.steps import Reply
from pesto_runtime.credentials import credential_of
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

    import httpx  # loaded by the clients: with it, a run without services starts 0.1 s later

    from pesto_runtime.client.steps import Request


HEADER = "traceparent"

_CONNECT_S = 10.0
_CHECK_S = 0.25
_PREFIX = "/api/v1"
_OGC = re.compile(r"/processes(/[^/]+)?$")
_DISCONNECTED = ("disconnected", "closed connection", "closed the connection")
_STREAMS = ("connection.connect_tcp.complete", "connection.start_tls.complete")
# Version, trace id, parent id, flags; later versions may add fields:
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_TURNS: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_TURNS_GUARD = threading.Lock()
_CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
_is_unwanted: ContextVar[Callable[[], bool] | None] = ContextVar("pesto_cancelled", default=None)


class HttpOptions(TypedDict):
    """Options that `httpx.Client` and `httpx.AsyncClient` share."""

    timeout: httpx.Timeout
    trust_env: bool
    verify: bool | ssl.SSLContext
    headers: Mapping[str, str] | None
    auth: Callable[[httpx.Request], httpx.Request] | None


def service_url(url: str) -> str:
    """Return the address of a service, `/api/v1` included; that of a process of OGC stays.

    >>> service_url("http://127.0.0.1:8000/")
    'http://127.0.0.1:8000/api/v1'
    >>> service_url("https://host/processes/buffer/")
    'https://host/processes/buffer'

    Raises:
        InvalidInput: it is not an http(s) URL.
    """
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise InvalidInput(f"{shortened(url)} is not the URL of a service, as http://host:8000")
    plain = f"{split.scheme}://{split.netloc}{split.path.rstrip('/')}"
    return plain if plain.endswith(_PREFIX) or is_ogc(plain) else plain + _PREFIX


def is_ogc(where: str) -> bool:
    """Whether an address is that of the processes, or of one process, of an OGC service.

    >>> is_ogc("https://host/processes/buffer"), is_ogc("https://host/processes/api/v1")
    (True, False)
    """
    return _OGC.search(urlsplit(where).path) is not None


def timeouts(timeout_s: float) -> httpx.Timeout:
    """Return the timeouts of a request; waiting for a free connection of the pool has none."""
    import httpx

    return httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S), pool=None)


def http_options(
    where: str, *, timeout_s: float, headers: Mapping[str, str] | None, verify: bool | str
) -> HttpOptions:
    """Return the options of both httpx clients for a service.

    Each request has the credentials of its origin, except for headers that it has itself.

    Args:
        where: Its address.
        timeout_s: Seconds without a byte after which a request fails.
        headers: Of every request.
        verify: Whether certificates are verified, or the file of trusted authorities.

    Raises:
        InvalidInput: the file of trusted authorities, or that of credentials, cannot be read.
    """
    credential = credential_of(where)
    if verify is True and credential is not None and credential.ca is not None:
        verify = credential.ca
    is_remote = not is_loopback(urlsplit(where).hostname or "")
    return {
        "timeout": timeouts(timeout_s),
        "trust_env": is_remote,  # proxies of the environment are never for this machine
        "verify": _verification(where, verify),
        "headers": headers,
        "auth": _authorised,
    }


def _authorised(request: httpx.Request) -> httpx.Request:
    """Add the credentials of the request's own origin."""
    credential = credential_of(str(request.url))
    for name, text in (credential.headers() if credential else {}).items():
        request.headers.setdefault(name, text)
    return request


def _verification(where: str, verify: bool | str) -> bool | ssl.SSLContext:
    if not where.startswith("https://") or verify is False:
        return False
    if verify is True:
        import httpx

        return httpx.create_ssl_context()  # once: it takes 20 ms
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInput(
            f"{shortened(verify)} is not a file of trusted certificates: {reason}"
        ) from error


def turn_of(url: str) -> threading.Lock:
    """Return the lock that all clients of one service share, so that only one call runs."""
    # PESTO 1.7.2 returns 429 while it processes another call.
    with _TURNS_GUARD:
        return _TURNS.setdefault(url, threading.Lock())


def built_request(
    http: httpx.Client | httpx.AsyncClient,
    where: str,
    request: Request,
    extensions: Mapping[str, object] | None = None,
) -> httpx.Request:
    """Return a request as httpx sends it, with its trace.

    Args:
        http: The client that will send it.
        where: Address of the service.
        request: The request.
        extensions: Of httpx.
    """
    is_whole = request.path.startswith(("http://", "https://"))
    url = _parsed(request.path if is_whole else where + request.path)
    further = dict(extensions or {})
    if request.query:
        # httpx looks at each character of a query four times: 0.4 ms for one with a tile.
        further["target"] = url.raw_path + b"?" + urlencode(request.query).encode()
    return http.build_request(
        request.method,
        url,
        headers=with_trace(request.headers),
        content=request.content or None,
        extensions=further,
    )


@lru_cache(maxsize=64)
def _parsed(url: str) -> httpx.URL:
    import httpx

    return httpx.URL(url)


def reply_of(response: httpx.Response) -> Reply:
    """Return a response of httpx as a `Reply`."""
    headers: Mapping[str, str] = {name.lower(): text for name, text in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


def translated(error: Exception, where: str, timeout_s: float) -> PestoError:
    """Return the error of this package for an exception of httpx."""
    import httpx

    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"{where}: no connection within {min(timeout_s, _CONNECT_S):g} s")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{where}: no response within {timeout_s:g} s")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return InvalidInput(f"{where}: {reason}")
    if isinstance(error, httpx.DecodingError):
        return ServiceMisbehaved(f"{where} returned a body that cannot be decoded: {reason}")
    # httpx reports a closed connection by the same class as a response that is not HTTP.
    is_disconnected = any(each in reason for each in _DISCONNECTED)
    if isinstance(error, httpx.RemoteProtocolError) and not is_disconnected:
        return ServiceMisbehaved(
            f"{where} returned a response that is not HTTP: {shortened(reason)}"
        )
    return Unreachable(f"{where}: {reason}; does the service run there?")


class Trace(NamedTuple):
    """The trace that a call is part of, as the W3C recommendation Trace Context defines it.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: Of the caller; 16 hexadecimal digits.
    """

    trace_id: str
    span_id: str

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """Parse a header `traceparent`; return None if it is not valid, as the standard requires.

        >>> Trace.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").span_id
        'b7ad6b7169203331'
        >>> Trace.parse("00-" + "0" * 32 + "-b7ad6b7169203331-01")
        """
        found = _TRACEPARENT.fullmatch(header or "")
        if found is None or (header or "").startswith("ff"):
            return None
        trace_id, span_id = found[1], found[2]
        return cls(trace_id, span_id) if int(trace_id, 16) and int(span_id, 16) else None


class traced:  # noqa: N801  # it is used as a function
    """Make the calls of the block part of a trace; of none if the header is not valid."""

    __slots__ = ("_header", "_token", "_trace")

    def __init__(self, header: str | None) -> None:
        self._trace = Trace.parse(header) if header else None
        self._header = header if self._trace else None

    def __enter__(self) -> Trace | None:
        self._token = _CURRENT.set(self._header)
        return self._trace

    def __exit__(self, *_: object) -> None:
        _CURRENT.reset(self._token)


def with_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request with its trace.

    That is the trace of `traced`, or else of the environment variable `TRACEPARENT`, in which
    batch schedulers pass a trace to a process.
    """
    current = _CURRENT.get() or os.environ.get("TRACEPARENT")
    if Trace.parse(current) is None or current is None:
        return dict(headers)
    return {**headers, HEADER: current}


class _Stream(Protocol):
    """The part of httpcore's connections that is used here."""

    read: Callable[..., bytes]

    def get_extra_info(self, info: str) -> object:
        """Return a property of the connection: its socket."""


@contextmanager
def cancelled_when(is_unwanted: Callable[[], bool]) -> Iterator[None]:
    """Cancel the blocking calls of this context as soon as `is_unwanted` returns True.

    `contextvars.copy_context()` copies the check into other threads.
    """
    token = _is_unwanted.set(is_unwanted)
    try:
        yield
    finally:
        _is_unwanted.reset(token)


def pause(seconds: float) -> None:
    """Sleep, unless the call is cancelled.

    Raises:
        Interrupted: the call is cancelled.
    """
    deadline = time.monotonic() + seconds
    while (remaining := deadline - time.monotonic()) > 0:
        _raise_if_unwanted()
        time.sleep(min(remaining, _CHECK_S) if _is_unwanted.get() else remaining)


def watch_connection(event: str, facts: Mapping[str, object]) -> None:
    """Make the reads of a new connection cancellable; httpx calls it as its `trace` extension."""
    if event in _STREAMS:
        _make_cancellable(cast("_Stream", facts["return_value"]))


def _make_cancellable(stream: _Stream) -> None:
    read = stream.read

    def cancellable_read(max_bytes: int, timeout: float | None = None) -> bytes:
        if _is_unwanted.get() is not None:
            _await_bytes(cast("socket.socket", stream.get_extra_info("socket")), timeout)
        return read(max_bytes, timeout)

    stream.read = cancellable_read


def _await_bytes(sock: socket.socket, timeout_s: float | None) -> None:
    """Return when there are bytes to read, or after the timeout, which the read then raises."""
    # Bytes that TLS has decrypted already are not seen by poll.
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not poll.poll(_CHECK_S * 1000):
        _raise_if_unwanted()
        if deadline is not None and time.monotonic() > deadline:
            return


def _raise_if_unwanted() -> None:
    is_unwanted = _is_unwanted.get()
    if is_unwanted is not None and is_unwanted():
        raise Interrupted("the call was cancelled: its response is no longer wanted")
