"""Bodies in and answers out, a piece at a time: a large one is never held by the event loop."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import Response

from pesto_runtime.errors import TooLarge, Unreachable
from pesto_runtime.hrefs import is_loopback
from pesto_runtime.service.spool import INLINE_BYTES, Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from pesto_runtime.service.runs import CallResponse


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


_KEPT = "pesto.headers"
_CARRIED = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The headers of a request by their names in lower case, the first of each; read once."""
    found: Mapping[str, str] | None = scope.get(_KEPT)
    if found is None:
        rows = reversed(scope["headers"])
        found = {name.decode("latin-1"): value.decode("latin-1") for name, value in rows}
        scope[_KEPT] = found
    return found


def is_from_here(headers: Mapping[str, str]) -> bool:
    """Whether the caller is on this machine, as its gate takes for granted.

    A proxy on this machine, or a browser that runs somebody's page (which may even have pointed
    its own name here), carries requests of others: local files are not for them.
    """
    is_carried = not _CARRIED.isdisjoint(headers)
    return not is_carried and _are_loopback(headers.get("host"), headers.get("origin"))


@lru_cache(maxsize=256)
def _are_loopback(host: str | None, origin: str | None) -> bool:
    """Whether a service that is called so, by a page from there, is called on this machine."""
    urls = [f"//{host or ''}", *([] if origin is None else [origin])]
    return all(is_loopback(_host_name(url)) for url in urls)


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


_WATCH_AFTER_S = 0.05


async def unless_gone(request: Request, running: Awaitable[CallResponse]) -> CallResponse:
    """Await a call here, and have it cancelled once its caller has gone.

    The watch begins a moment later: most calls are over by then, and need no second task.

    Raises:
        Unreachable: the caller has gone.
    """
    watch = _Watch(request, asyncio.current_task())
    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch.begin)
    try:
        return await running
    except asyncio.CancelledError:
        if not watch.saw_leaving:
            raise
        raise Unreachable("the caller went away before its answer was there") from None
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Cancels a task when the caller of its request has gone."""

    def __init__(self, request: Request, task: asyncio.Task[object] | None) -> None:
        self._request, self._task = request, task
        self._watching: asyncio.Task[None] | None = None
        self.saw_leaving = False

    def begin(self) -> None:
        self._watching = asyncio.ensure_future(self._watch())

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self.saw_leaving and self._task is not None:
            self._task.uncancel()

    async def _watch(self) -> None:
        await _disconnected(self._request)
        self.saw_leaving = True
        if self._task is not None:
            self._task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
