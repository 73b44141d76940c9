"""Bound the heads of requests: their size, and the time until they are complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

HEAD_BYTES = 64 << 10
"""Largest head of a request: request line and header fields."""
HEAD_S = 30.0
"""Longest time from the begin of a connection, or of a request, until the head is complete."""

_TOO_LARGE = b"431 Request Header Fields Too Large"
_REFUSAL = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which waits for ever for a head and keeps any number of its bytes."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Expect the first head."""
        super().connection_made(transport)
        self._is_in_head, self._is_refused, self._head_bytes = True, False, 0
        self._timer: TimerHandle | None = self.loop.call_later(HEAD_S, self._give_up)

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
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refuse(_TOO_LARGE)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refuse(b"400 Bad Request")  # RFC 9112 section 3.2
        if self._is_refused:
            raise ValueError("refused")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer has been sent."""
        if not self._is_refused:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the head."""
        self._stop_timer()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        if not self._is_refused and not self.transport.is_closing():
            self.transport.write(_REFUSAL % status)
            self.transport.close()
        self._is_refused = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
