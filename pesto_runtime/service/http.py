"""Serve `POST /process`: admit the call, read its body, run it, and send the response.

The fast path and the streaming of large bodies are here too, so that a call passes few files. Other
routes are in `app`, the endpoints of jobs in `jobs.api`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import quote

from fastapi import Request, Response

from pesto_runtime.client.multipart import media_type_of
from pesto_runtime.client.transport import HEADER
from pesto_runtime.errors import Busy, PestoError, Unreachable
from pesto_runtime.service.bodies import BodyReader
from pesto_runtime.service.header_fields import LISTS, PREFIX_KEY, preferred
from pesto_runtime.service.problems import error_response
from pesto_runtime.service.runner import (
    JSON_TYPE,
    Payload,
    Spool,
    no_progress,
    parse_query,
    require_media_type,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from pesto_runtime.service.admission import Admission
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.runner import CallResponse, CallRunner

    Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
    Respond: TypeAlias = Callable[[], Awaitable[Response]]


PREFIX = "/api/v1"
READ = ("GET", "HEAD")
"""Methods of what can be read: HEAD is GET without the body (RFC 9110 section 9.3.2)."""
KEY_HEADER = "idempotency-key"
LEASE_HEADER = "x-pesto-lease"
CALLER_KEY = "pesto.caller"
"""Where the scope of a request has the name of its caller."""

_LOG = logging.getLogger(__name__)
_RESTART_S = 5.0  # a guess at the time until another service listens here
_JOB_HEADERS = frozenset({"prefer", KEY_HEADER, LEASE_HEADER})
_HEADERS_KEY = "pesto.headers"
_IGNORED_HEADER = "X-Pesto-Ignored"
_MOST_IGNORED = 20
_PIECE_BYTES = 512 << 10
_WATCH_AFTER_S = 0.05


class FastPath:
    """ASGI middleware that serves some routes before FastAPI's router sees the request."""

    def __init__(self, app: ASGIApp, *, routes: Mapping[tuple[str, str], Endpoint]) -> None:
        """Wrap an application.

        Args:
            app: Receives all other requests.
            routes: Method and path -> endpoint.
        """
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        endpoint = None
        if scope["type"] == "http":
            endpoint = self._routes.get((scope["method"], scope["path"]))
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except PestoError as error:
            response = error_response(error)
        await response(scope, receive, send)


class JobIntake(Protocol):
    """Accepts calls as jobs. `jobs.api` implements it, and imports this file, not the reverse."""

    def takes(self, headers: Mapping[str, str]) -> bool:
        """Return whether a call with these headers becomes a job.

        Raises:
            InvalidInput: a header of jobs is wrong.
        """

    async def accept(self, request: Request, payload: Payload) -> Respond:
        """Make a call a job, and store it; return a function that waits for its response.

        Raises:
            PestoError: it cannot be a job, or not be stored.
        """


class ProcessEndpoint:
    """The calls of one service.

    Attributes:
        is_stopping: Whether new calls are refused.
    """

    def __init__(
        self, runs: CallRunner, admission: Admission, jobs: JobIntake, limits: Limits
    ) -> None:
        """Store the runner, the queue in front of it, and the endpoints of jobs."""
        self._runs, self._admission, self._jobs = runs, admission, jobs
        self._description = runs.facts.description
        self._are_jobs = self._description.known.asynchronous
        self.is_stopping = False
        self._bodies = BodyReader(limits.body_bytes, kept=limits.workers)
        # Jobs are not refused when all places are in use. Their bodies are written to disk, but are
        # in memory until then: this bounds how many are read at the same time.
        self._receiving = asyncio.Semaphore(admission.capacity)

    async def process(self, request: Request) -> Response:
        """Perform a call.

        Raises:
            PestoError: the call is refused, or the request, the algorithm or its outputs are wrong.
        """
        if self.is_stopping:
            raise Busy("the service is stopping", retry_after_s=_RESTART_S)
        self._runs.require()
        headers = headers_of(request.scope)
        media_type = media_type_of(headers.get("content-type", ""))
        require_media_type(media_type, self._description)
        if self._is_job(headers):
            async with self._receiving:
                payload = await self._payload(request, media_type)
                body = await asyncio.to_thread(payload.whole) if payload.spool else payload.body
                payload = replace(payload, body=body, spool=None)
                respond = await self._jobs.accept(request, payload)
            return await respond()
        caller = caller_of(request.scope)
        self._admission.require_room(caller)
        payload = await self._payload(request, media_type)
        with self._admission.place(
            caller
        ):  # only now: a slow caller must not take places of others
            running = self._runs.run(payload, on_progress=no_progress, on_log=_LOG.info)
            response = await cancelled_on_disconnect(request, running)
        return http_response(response)

    def _is_job(self, headers: Mapping[str, str]) -> bool:
        if not self._are_jobs and _JOB_HEADERS.isdisjoint(headers):
            return False
        return self._jobs.takes(headers)

    async def _payload(self, request: Request, media_type: str) -> Payload:
        headers = headers_of(request.scope)
        body = await self._bodies.read(request, headers)
        query = parse_query(request.scope["query_string"], self._description)
        trace = headers.get(HEADER, "")
        if isinstance(body, bytes):
            return Payload(body, media_type, query, headers.get("accept", ""), trace=trace)
        return Payload(b"", media_type, query, headers.get("accept", ""), spool=body, trace=trace)


def caller_of(scope: Scope) -> str:
    """Return the name of the caller of a request; empty if the service does not know callers."""
    return str(scope.get(CALLER_KEY, ""))


def headers_of(scope: Scope) -> Mapping[str, str]:
    """Return the fields of a request by lower-case name; decoded once.

    The lines of a list are joined; of other fields, the first line counts.
    """
    found: dict[str, str] | None = scope.get(_HEADERS_KEY)
    if found is None:
        found = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name not in found:
                found[name] = value
            elif name in LISTS:
                found[name] += f", {value}"
        scope[_HEADERS_KEY] = found
    return found


def base_url(request: Request) -> str:
    """Return the address of the service, no slash at its end: the public or the requested one.

    That of a process beside others ends with its name.
    """
    own = f"{str(request.base_url).rstrip('/')}{request.scope.get(PREFIX_KEY, '')}"
    base: str = request.app.state.public_url or own
    return f"{base.rstrip('/')}{request.app.state.mount}"


def is_json_wanted(headers: Mapping[str, str]) -> bool:
    """Return whether a caller prefers JSON to plain text."""
    return preferred(headers.get("accept", ""), ("text/plain", JSON_TYPE)) == JSON_TYPE


def http_response(response: CallResponse) -> Response:
    """Return the HTTP response with the body of a call's response."""
    http = (
        PieceWise(response.content, media_type=response.media_type)
        if response.spool is None
        else _FromSpool(response.spool, response.media_type)
    )
    if response.ignored:
        names = ", ".join(
            quote(name, errors="replace") for name in response.ignored[:_MOST_IGNORED]
        )
        http.headers[_IGNORED_HEADER] = names
    return http


class PieceWise(Response):
    """A response whose body is sent in pieces of 512 KiB.

    The event loop serves other requests between two of them.
    """

    def __init__(self, content: bytes, media_type: str) -> None:
        """Have a body and its media type; Starlette would look for what is absent in each call."""
        self.status_code, self.body, self.media_type = 200, content, media_type
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            (b"content-type", media_type.encode("latin-1")),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Send it."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        if len(self.body) <= _PIECE_BYTES:
            await send({"type": "http.response.body", "body": self.body})
            return
        whole = memoryview(self.body)
        for begin in range(0, len(whole), _PIECE_BYTES):
            piece = bytes(whole[begin : begin + _PIECE_BYTES])
            is_last = begin + _PIECE_BYTES >= len(whole)
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})


class _FromSpool(Response):
    """A response whose body is read piece by piece while it is sent."""

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


async def cancelled_on_disconnect(
    request: Request, running: Awaitable[CallResponse]
) -> CallResponse:
    """Await a call, and cancel it when its caller disconnects.

    Raises:
        Unreachable: the caller has disconnected.
    """
    watch = _DisconnectWatch(request, asyncio.current_task())
    # Most calls end within 50 ms, and need no second task that waits for a disconnect.
    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch.begin)
    try:
        return await running
    except asyncio.CancelledError:
        if not watch.is_disconnected:
            raise
        raise Unreachable("the caller disconnected before its response was ready") from None
    finally:
        timer.cancel()
        watch.end()


class _DisconnectWatch:
    """Cancels a task when the caller of its request disconnects."""

    def __init__(self, request: Request, task: asyncio.Task[object] | None) -> None:
        self._request, self._task = request, task
        self._watching: asyncio.Task[None] | None = None
        self.is_disconnected = False

    def begin(self) -> None:
        self._watching = asyncio.ensure_future(self._watch())

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        # The cancellation ends here, and asyncio must know: timeouts and task groups count them,
        # https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel
        if self.is_disconnected and self._task is not None:
            self._task.uncancel()

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.is_disconnected = True
        if self._task is not None:
            self._task.cancel()
