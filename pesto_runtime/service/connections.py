"""Bound connections: their number, requests at once, size and time of heads; write responses.

A head is bounded by its size and by the time until it is complete.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport
    from collections.abc import Callable

    from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseStartEvent

HEAD_BYTES = 64 << 10
"""Largest head of a request: request line and header fields."""
HEAD_S = 30.0
"""Longest time from the begin of a connection, or of a request, until the head is complete."""
MOST_PIPELINED = 32
"""Requests that one connection may send before the response to an earlier one."""

_ONE_WRITE_BYTES = 64 << 10
_FRAMING = frozenset({b"connection", b"transfer-encoding"})
_TOO_LARGE = b"431 Request Header Fields Too Large"
_REFUSAL = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class AddressCounts:
    """Connections of each client address."""

    def __init__(self, most: int, is_proxy: Callable[[str], bool] = lambda _address: False) -> None:
        """Admit so many of one address; any number of a proxy, which has many clients."""
        self._most, self._is_proxy = most, is_proxy
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection, and return whether it is admitted; `leave` undoes both."""
        self._counts[address] += 1
        return self._counts[address] <= self._most or self._is_proxy(address)

    def leave(self, address: str) -> None:
        """Count the end of a connection."""
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol, which waits for ever for a head and keeps any number of its bytes."""

    def __init__(self, *settings: Any, addresses: AddressCounts, **more: Any) -> None:
        """Have uvicorn's settings, and the counts that all connections of a service share."""
        super().__init__(*settings, **more)
        self._addresses = addresses

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Expect the first head."""
        super().connection_made(transport)
        self._is_in_head, self._is_refused, self._head_bytes = True, False, 0
        self._timer: TimerHandle | None = self.loop.call_later(HEAD_S, self._give_up)
        self._address = self.client[0] if self.client else ""
        if not self._addresses.enter(self._address):
            self._refuse(b"429 Too Many Requests")

    def data_received(self, data: bytes) -> None:
        """Let uvicorn parse the bytes; what it keeps of an incomplete head is counted."""
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(_TOO_LARGE)
            elif self._timer is None:
                self._timer = self.loop.call_later(HEAD_S, self._give_up)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """End a head.

        Raises:
            ValueError: it is refused; the parser ends, and uvicorn closes the connection.
        """
        self._is_in_head, self._head_bytes = False, 0
        self._stop_timer()
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value)
            hosts += name == b"host"
        if size > HEAD_BYTES:
            self._refuse(_TOO_LARGE)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refuse(b"400 Bad Request")  # RFC 9112 section 3.2
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refuse(b"429 Too Many Requests")
        if self._is_refused:
            raise ValueError("refused")
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # uvicorn has no setting for the class; both have the same attributes.
        cycle.__class__ = _WholeResponses
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer has been sent."""
        if not self._is_refused:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the head."""
        self._stop_timer()
        self._addresses.leave(self._address)
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        if not self._is_refused and not self.transport.is_closing():
            # While a response is due, the client would take the refusal for it.
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_REFUSAL % status)
            self.transport.close()
        self._is_refused = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _WholeResponses(RequestResponseCycle):
    """Writes a small response with one system call, and each field of its head as it was before.

    uvicorn writes head and body one after the other, and examines the characters of each field
    each time: a third of the time of a small call. Other responses are uvicorn's.
    """

    _start: HTTPResponseStartEvent | None = None

    async def send(self, message: ASGISendEvent) -> None:
        """Send one message of a response; a head only with the begin of its body, as ASGI says."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is None:
            await super().send(message)
            return
        content = self._whole(start, message)
        if content is None:
            await super().send(start)
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(content)
        self.message_event.set()
        self.on_response()

    def _whole(self, start: HTTPResponseStartEvent, message: ASGISendEvent) -> bytes | None:
        """Return the bytes of a response; None for one that is not small, or not plain."""
        if message["type"] != "http.response.body" or message.get("more_body", False):
            return None
        body, headers = message.get("body", b""), (*self.default_headers, *start["headers"])
        is_plain = self.keep_alive and self.scope["method"] != "HEAD" and not self.access_log
        has_length = (b"content-length", b"%d" % len(body)) in headers
        if not (is_plain and has_length) or len(body) > _ONE_WRITE_BYTES:
            return None
        lines = [_field_line(name, value) for name, value in headers]
        if b"" in lines:
            return None
        return b"".join((STATUS_LINE[start["status"]], *lines, b"\r\n", body))


@lru_cache(maxsize=1024)
def _field_line(name: bytes, value: bytes) -> bytes:
    """Return the line of a field; empty for one that uvicorn must examine."""
    name = name.lower()
    if name in _FRAMING or HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        return b""
    return b"%b: %b\r\n" % (name, value)
