"""Bodies in and answers out, a piece at a time: no copy of a large one holds up the event loop."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fastapi import Response

from pesto_runtime.errors import TooLarge

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_PIECE_BYTES = 512 << 10


async def body_of(request: Request, most_bytes: int) -> bytes:
    """Read a body; one that says it is too large is not read at all.

    Raises:
        TooLarge: over `most_bytes`.
    """
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most_bytes:
        raise TooLarge(f"the body has {told} bytes; at most {most_bytes} are taken")
    body = io.BytesIO()  # gives its bytes away without copying them
    async for chunk in request.stream():
        body.write(chunk)
        if body.tell() > most_bytes:
            raise TooLarge(f"the body has over {most_bytes} bytes, which is the most taken")
    return body.getvalue()


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
