"""Read the body of a request: within a size, decoded, and from a caller that goes on sending."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadRequest, TooLarge, TooSlow, Unreachable, UnsupportedMedia
from pesto_runtime.service.header_fields import items
from pesto_runtime.service.runner import INLINE_BYTES, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fastapi import Request

SILENCE_S = 30.0
"""Longest time without a byte of a body."""
LEAST_BYTES_PER_S = 1024
"""Least mean rate of a body, once it has been sent for longer than `SILENCE_S`."""

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 1 << 20


async def read_body(request: Request, headers: Mapping[str, str], most_bytes: int) -> bytes | Spool:
    """Read a body, a large one into a spool; one with too large a `Content-Length` is not read.

    Raises:
        TooLarge: over `most_bytes`, decoded.
        TooSlow: nothing came for `SILENCE_S`, or less than `LEAST_BYTES_PER_S`.
        UnsupportedMedia: its `Content-Encoding` is not gzip.
        BadRequest: it is not what its `Content-Encoding` states.
        Unreachable: the caller disconnected before the end of the body.
    """
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > most_bytes:
        raise TooLarge(f"the body has {length} bytes; at most {most_bytes} are accepted")
    pieces = _received(request)
    if "content-encoding" in headers and _is_gzip(headers["content-encoding"]):
        pieces = _decoded(pieces)
    body, spool = b"", None
    async for piece in pieces:
        if (len(spool) if spool else len(body)) + len(piece) > most_bytes:
            raise TooLarge(f"the body has over {most_bytes} bytes, the most that is accepted")
        if spool is None:
            body += piece
            spool = Spool.of(body) if len(body) > INLINE_BYTES else None
        else:
            spool.write(piece)
    return body if spool is None else spool


async def _received(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it is received."""
    loop = asyncio.get_running_loop()
    began, size, is_more = loop.time(), 0, True
    while is_more:
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await request.receive()
        except TimeoutError:
            raise TooSlow(
                f"no byte of the body was received for {SILENCE_S:g} s, after {size}"
            ) from None
        if message["type"] == "http.disconnect":
            raise Unreachable("the caller disconnected before the end of its body")
        is_more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        size += len(piece)
        seconds = loop.time() - began
        if is_more and seconds > SILENCE_S and size < seconds * LEAST_BYTES_PER_S:
            raise TooSlow(
                f"{size} bytes of the body in {seconds:.0f} s; at least {LEAST_BYTES_PER_S} bytes "
                "a second are expected"
            )
        yield piece


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
