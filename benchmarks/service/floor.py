"""The floor of isolation: an ASGI application whose worker processes echo what it is sent.

No routing, parsing, validation or limits: what is left is HTTP, two system calls each way, and two
context switches. Run as `python -m benchmarks.service.floor PORT`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

_WORKERS = 2
_READ_BYTES = 1 << 18


class Pipe(asyncio.Protocol):
    """A worker that gives back what it is sent."""

    def __init__(self) -> None:
        """Have no question yet."""
        self.answer: asyncio.Future[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        """Take the answer, which is small enough to come at once."""
        if self.answer is not None:
            self.answer.set_result(data)


class Floor:
    """The application."""

    def __init__(self) -> None:
        """Have no workers yet."""
        self._free: deque[tuple[Pipe, asyncio.WriteTransport]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer a request with its own body."""
        if scope["type"] == "lifespan":
            await receive()
            for _ in range(_WORKERS):
                self._free.append(await _worker())
            await send({"type": "lifespan.startup.complete"})
            return
        message = await receive()
        body = message.get("body") or b"OK"
        found = await self._echoed(bytes(body))  # type: ignore[call-overload]  # of a request
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(found)).encode()),
        ]
        await send(
            {"type": "http.response.start", "status": 200, "headers": headers, "trailers": False}
        )
        await send({"type": "http.response.body", "body": found, "more_body": False})

    async def _echoed(self, body: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        while not self._free:
            self._waiting.append(loop.create_future())
            await self._waiting[-1]
        pipe, transport = self._free.pop()
        pipe.answer = loop.create_future()
        transport.write(body)
        found = await pipe.answer
        self._free.append((pipe, transport))
        if self._waiting:
            self._waiting.popleft().set_result(None)
        return found


async def _worker() -> tuple[Pipe, asyncio.WriteTransport]:
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        while data := theirs.recv(_READ_BYTES):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    transport, pipe = await asyncio.get_running_loop().create_unix_connection(Pipe, sock=ours)
    return pipe, transport


if __name__ == "__main__":
    uvicorn.run(Floor(), port=int(sys.argv[1]), log_level="warning", access_log=False)
