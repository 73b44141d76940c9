"""Read the body of a request: within a size, decoded, and from a caller that goes on sending."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadRequest, TooLarge, TooSlow, Unreachable, UnsupportedMedia
from pesto_runtime.service.header_fields import items
from pesto_runtime.service.runner import INLINE_BYTES, Spool, SpoolPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fastapi import Request
    from starlette.types import Message

SILENCE_S = 30.0
"""Longest time without a byte of a body."""
LEAST_BYTES_PER_S = 1024
"""Least mean rate of a body, once it has been sent for longer than `SILENCE_S`."""

_CHECKS = 4
"""Checks within `SILENCE_S`."""
_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 1 << 20


class _SilenceWatch:
    """Cancels tasks that have waited too long for a caller; one timer for all of them."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._is_checking = False

    async def next_message(self, request: Request) -> Message:
        """Return the next message of a request.

        Raises:
            TimeoutError: there is none for `SILENCE_S`.
        """
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is None:
            return await request.receive()
        self._since[task] = loop.time()
        if not self._is_checking:
            self._is_checking = True
            loop.call_later(SILENCE_S / _CHECKS, self._check, loop)
        try:
            return await request.receive()
        except asyncio.CancelledError:
            if task not in self._overdue:
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            del self._since[task]
            self._overdue.discard(task)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, since in self._since.items():
            if now - since > SILENCE_S and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self._is_checking = bool(self._since)
        if self._is_checking:
            loop.call_later(SILENCE_S / _CHECKS, self._check, loop)


class BodyReader:
    """Reads the bodies of one service, on one event loop."""

    def __init__(self, most_bytes: int, *, kept: int = 2) -> None:
        """Accept so many bytes of a body, decoded; keep so many memory files for the next ones."""
        self._most_bytes = most_bytes
        self._pool = SpoolPool(kept)
        self._watch = _SilenceWatch()

    async def read(self, request: Request, headers: Mapping[str, str]) -> bytes | Spool:
        """Read a body, a large one into a spool; one with too large a `Content-Length` is not read.

        Raises:
            TooLarge: over the most bytes.
            TooSlow: nothing came for `SILENCE_S`, or less than `LEAST_BYTES_PER_S`.
            UnsupportedMedia: its `Content-Encoding` is not gzip.
            BadRequest: it is not what its `Content-Encoding` states.
            Unreachable: the caller disconnected before the end of the body.
        """
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most_bytes:
            raise TooLarge(f"the body has {length} bytes; at most {self._most_bytes} are accepted")
        is_gzip = "content-encoding" in headers and _is_gzip(headers["content-encoding"])
        first = await self._next_message(request, 0)
        if not is_gzip and not first.get("more_body", False):
            return self._whole(first.get("body", b""))
        received = self._received(request, first)
        pieces = _decoded(received) if is_gzip else received
        body, spool = b"", None
        async for piece in pieces:
            if (len(spool) if spool else len(body)) + len(piece) > self._most_bytes:
                raise self._too_large()
            if spool is None:
                body += piece
                spool = Spool.of(body, self._pool) if len(body) > INLINE_BYTES else None
            else:
                spool.write(piece)
        return body if spool is None else spool

    def _whole(self, body: bytes) -> bytes | Spool:
        """Return a body that came in one piece, as most do."""
        if len(body) > self._most_bytes:
            raise self._too_large()
        return Spool.of(body, self._pool) if len(body) > INLINE_BYTES else body

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body has over {self._most_bytes} bytes, the most that is accepted")

    async def _received(self, request: Request, message: Message) -> AsyncIterator[bytes]:
        """Yield the body as it is received, from its first message."""
        began, size = time.monotonic(), 0
        while True:
            piece: bytes = message.get("body", b"")
            size += len(piece)
            is_more = message.get("more_body", False)
            if is_more:
                _require_rate(size, time.monotonic() - began)
            yield piece
            if not is_more:
                return
            message = await self._next_message(request, size)

    async def _next_message(self, request: Request, size: int) -> Message:
        """Return the next message of a request, after so many bytes of its body."""
        try:
            message = await self._watch.next_message(request)
        except TimeoutError:
            raise TooSlow(
                f"no byte of the body was received for {SILENCE_S:g} s, after {size}"
            ) from None
        if message["type"] == "http.disconnect":
            raise Unreachable("the caller disconnected before the end of its body")
        return message


def _require_rate(size: int, seconds: float) -> None:
    if seconds > SILENCE_S and size < seconds * LEAST_BYTES_PER_S:
        raise TooSlow(
            f"{size} bytes of the body in {seconds:.0f} s; at least {LEAST_BYTES_PER_S} bytes a "
            "second are expected"
        )


def _is_gzip(encodings: str) -> bool:
    """Return whether a body must be decoded.

    Raises:
        UnsupportedMedia: by anything but one gzip.
    """
    names = [each.name for each in items(encodings) if each.name != "identity"]
    if len(names) > 1 or not {"gzip", "x-gzip"}.issuperset(names):
        raise UnsupportedMedia(
            f"Content-Encoding {encodings[:40]!r} is not accepted; send gzip, or the plain bytes"
        )
    return bool(names)


async def _decoded(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a gzip body decoded, in small pieces: a small body may contain a huge one."""
    decoder = zlib.decompressobj(_GZIP)
    try:
        async for piece in pieces:
            rest = piece
            while rest and not decoder.eof:
                yield decoder.decompress(rest, _PIECE_BYTES)
                rest = decoder.unconsumed_tail
                if rest:
                    await asyncio.sleep(0)  # other requests go on meanwhile
    except zlib.error as error:
        raise BadRequest(f"the body is not gzip, as Content-Encoding states: {error}") from None
    if not decoder.eof:
        raise BadRequest("the body ends within its gzip stream")
