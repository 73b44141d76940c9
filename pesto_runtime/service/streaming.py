"""Bodies in and answers out, a piece at a time: a large one is never held by the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Response

from pesto_runtime.errors import TooLarge, Unreachable
from pesto_runtime.service.spool import INLINE_BYTES, Spool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from pesto_runtime.service.answers import CallResponse

_PIECE_BYTES = 512 << 10


async def body_of(request: Request, headers: Mapping[str, str], most_bytes: int) -> bytes | Spool:
    """Read a body, a large one into a spool; one that says it is too large is not read at all.

    Raises:
        TooLarge: over `most_bytes`.
        Unreachable: the caller went away before its end.
    """
    told = headers.get("content-length", "")
    if told.isdigit() and int(told) > most_bytes:
        raise TooLarge(f"the body has {told} bytes; at most {most_bytes} are taken")
    body, spool, is_more = b"", None, True
    while is_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Unreachable("the caller went away before its body was here")
        is_more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        if (len(spool) if spool else len(body)) + len(piece) > most_bytes:
            raise TooLarge(f"the body has over {most_bytes} bytes, which is the most taken")
        if spool is None:
            body += piece
            spool = Spool.of(body) if len(body) > INLINE_BYTES else None
        else:
            spool.write(piece)
    return body if spool is None else spool


def sent(answer: CallResponse) -> Response:
    """The response that brings an answer."""
    if answer.spool is None:
        return PieceWise(answer.content, media_type=answer.media_type)
    return _FromSpool(answer.spool, answer.media_type)


class PieceWise(Response):
    """A response whose body is sent in pieces, the next one when the last one has left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if len(self.body) <= _PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        whole = memoryview(self.body)
        for begin in range(0, len(whole), _PIECE_BYTES):
            piece = bytes(whole[begin : begin + _PIECE_BYTES])
            is_last = begin + _PIECE_BYTES >= len(whole)
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})


class _FromSpool(Response):
    """A response whose body is read as it is sent."""

    def __init__(self, spool: Spool, media_type: str) -> None:
        headers = {"Content-Length": str(spool.size)}
        super().__init__(headers=headers, media_type=media_type)
        self._spool = spool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        for piece in self._spool.pieces(_PIECE_BYTES):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._spool.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
