"""The PESTO protocol over FastAPI: routes and headers, nothing that computes."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from fastapi import FastAPI, Request, Response  # FastAPI reads them at run time
from starlette.exceptions import HTTPException

from pesto_runtime.client.multipart import media_type_of
from pesto_runtime.client.transport import HEADER
from pesto_runtime.errors import Busy, PestoError
from pesto_runtime.service.admission import Admission, Limits
from pesto_runtime.service.http import body_of, headers_of, is_from_here, sent, unless_gone
from pesto_runtime.service.jobs.api import KEY_HEADER, LEASE_HEADER, JobEndpoints
from pesto_runtime.service.jobs.manager import JobManager
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.operations import add_operations
from pesto_runtime.service.problems import bug, http_problem, problem, refused
from pesto_runtime.service.request import JSON_TYPE, Payload, require_media_type, transports
from pesto_runtime.service.runs import no_progress
from pesto_runtime.service.static_responses import PREFIX, StaticResponses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
    from collections.abc import AsyncIterator

    from pesto_runtime.service.runs import CallRunner


_LOG = logging.getLogger(__name__)
_RESTART_S = 5.0  # a guess at how long until another service answers here
_OF_JOBS = frozenset({"prefer", KEY_HEADER, LEASE_HEADER})


class ProcessEndpoint:
    """The calls of one service.

    Attributes:
        is_stopping: Whether no more are taken.
    """

    def __init__(
        self, runs: CallRunner, admission: Admission, jobs: JobEndpoints, limits: Limits
    ) -> None:
        """Take what performs calls, the places that they take, and what makes jobs of them."""
        self._runs, self._admission, self._jobs, self._limits = runs, admission, jobs, limits
        self._description = runs.facts.description
        self._are_jobs = self._description.known.asynchronous
        self.is_stopping = False
        # bodies of jobs go to the disk at once, but until then they are in memory as those of
        # calls are; one that finds no room is not read before there is some, and not refused
        self._receiving = asyncio.Semaphore(admission.capacity)

    async def process(self, request: Request) -> Response:
        """Perform a call.

        Raises:
            PestoError: it is not let in, or the request, the algorithm or the answer is at fault.
        """
        if self.is_stopping:
            raise Busy("the service is stopping", retry_after_s=_RESTART_S)
        self._runs.require()
        headers = headers_of(request.scope)
        media_type = media_type_of(headers.get("content-type", ""))
        require_media_type(media_type, self._description)
        from_here = is_from_here(headers)
        if self._is_job(headers):
            async with self._receiving:
                payload = await self._payload(request, media_type)
                body = await asyncio.to_thread(payload.whole) if payload.spool else payload.body
                payload = replace(payload, body=body, spool=None)
                record = await self._jobs.accept(request, payload, from_here=from_here)
            return await self._jobs.respond(request, record)
        with self._admission.place():
            payload = await self._payload(request, media_type)
            running = self._runs.run(
                payload, from_here=from_here, on_progress=no_progress, on_log=_LOG.info
            )
            answer = await unless_gone(request, running)
        return sent(answer)

    def request_body(self) -> dict[str, object]:
        """What `process` takes, for its OpenAPI."""
        binary = {"schema": {"type": "string", "format": "binary"}}
        content: dict[str, object] = dict.fromkeys(transports(self._description), binary)
        content[JSON_TYPE] = {"schema": {"type": "object"}}
        return {"required": True, "content": content}

    def _is_job(self, headers: Mapping[str, str]) -> bool:
        if not self._are_jobs and _OF_JOBS.isdisjoint(headers):
            return False
        return self._jobs.takes(headers)

    async def _payload(self, request: Request, media_type: str) -> Payload:
        headers = headers_of(request.scope)
        body = await body_of(request, headers, self._limits.body_bytes)
        query = dict(request.query_params) if request.scope["query_string"] else {}
        trace = headers.get(HEADER, "")
        if isinstance(body, bytes):
            return Payload(body, media_type, query, headers.get("accept", ""), trace=trace)
        return Payload(b"", media_type, query, headers.get("accept", ""), spool=body, trace=trace)


class FastPath:
    """ASGI middleware: some routes are answered here, all else goes on."""

    def __init__(self, app: ASGIApp, *, routes: Mapping[tuple[str, str], Endpoint]) -> None:
        """Wrap an application.

        Args:
            app: What answers all else.
            routes: Method and path -> what answers it.
        """
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
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
            response = refused(error)
        await response(scope, receive, send)


_LOOK_S = 0.05  # how often a drain looks whether the last call has ended
_OPENAPI_PATH = f"{PREFIX}/openapi"


def create_app(
    runs: CallRunner,
    *,
    limits: Limits | None = None,
    jobs: JobOptions | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Make the web application of one process.

    Args:
        runs: What performs its calls, loaded; its set-up runs when the application starts.
        limits: Sizes, workers and queue.
        jobs: How jobs are kept.
        on_ready: Called once the set-up is done.
    """
    description = runs.facts.description
    service = _Service(runs, limits or Limits(), jobs or JobOptions(), on_ready)
    app = FastAPI(
        title=description.name,
        version=description.version,
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for path, endpoint in (
        ("health", service.health),
        ("describe", service.describe),
        ("version", service.version),
    ):
        app.add_api_route(f"{PREFIX}/{path}", endpoint, methods=["GET"], response_class=Response)
    app.add_api_route(
        f"{PREFIX}/process",
        service.calls.process,
        methods=["POST"],
        response_class=Response,
        openapi_extra={"requestBody": service.calls.request_body()},
    )
    app.add_api_route(
        f"{PREFIX}/jobs",
        service.calls.process,
        methods=["POST"],
        response_class=Response,
        openapi_extra={"requestBody": service.calls.request_body()},
    )
    app.add_api_route(_OPENAPI_PATH, partial(_openapi, app), methods=["GET"])
    routes = {
        ("POST", f"{PREFIX}/process"): service.calls.process,
        ("GET", f"{PREFIX}/describe"): service.describe,
        ("GET", f"{PREFIX}/health"): service.health,
    }
    app.add_middleware(FastPath, routes=routes)
    app.state.drain = service.drain
    app.state.desk = service.desk
    service.jobs.add_to(app)
    add_operations(
        app,
        description,
        queue=service.admission,
        jobs=service.desk.counts,
        build=runs.facts.build,
    )
    app.add_exception_handler(PestoError, problem)
    app.add_exception_handler(HTTPException, http_problem)
    app.add_exception_handler(Exception, bug)
    return app


class _Service:
    """The endpoints of one process."""

    def __init__(
        self, runs: CallRunner, limits: Limits, jobs: JobOptions, on_ready: Callable[[], None]
    ) -> None:
        self._runs = runs
        self._limits = limits
        self._description = runs.facts.description
        self._documents = StaticResponses.of(runs.facts)
        self._of_describe = {
            "ETag": self._documents.etag,
            "Accept-Post": ", ".join(transports(self._description)),
            "X-Pesto-Build": runs.facts.build,
        }
        self.admission = Admission(limits.workers, limits.queue)
        self.desk = JobManager(runs, jobs, at_once=limits.workers)
        self.jobs = JobEndpoints(self.desk, self._description, grace_s=limits.grace_s)
        self.calls = ProcessEndpoint(runs, self.admission, self.jobs, limits)
        self._on_ready = on_ready

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        await self.desk.open()
        self._runs.start(self._on_ready)
        yield
        await self.desk.close()
        await self._runs.close()

    async def drain(self) -> None:
        """Take no more calls, and wait for the end of those that run or wait."""
        self.calls.is_stopping = True
        self.desk.pause()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.drain_s
        while (self.admission.admitted or self.desk.running) and loop.time() < deadline:  # noqa: ASYNC110  # two counts
            await asyncio.sleep(_LOOK_S)

    async def health(self, request: Request) -> Response:
        """Answer OK when ready, even if busy."""
        state = "STOPPING" if self.calls.is_stopping else self._runs.state
        status = 200 if state == "OK" else 503
        if JSON_TYPE not in headers_of(request.scope).get("accept", ""):
            return Response(state, status, media_type="text/plain")
        document = {
            "state": state,
            "queue": {
                "admitted": self.admission.admitted,
                "workers": self.admission.workers,
                "capacity": self.admission.capacity,
            },
            "setup": list(self._runs.setup_log),
        }
        return Response(json.dumps(document), status, media_type=JSON_TYPE)

    async def describe(self, request: Request) -> Response:
        """Answer the description."""
        if self._documents.is_known(headers_of(request.scope).get("if-none-match", "")):
            return Response(status_code=304, headers=self._of_describe)
        content = self._documents.describe(str(request.base_url))
        return Response(content, headers=self._of_describe, media_type=JSON_TYPE)

    async def version(self) -> Response:
        """Answer the version of the process and of what serves it."""
        return Response(self._documents.version, media_type=JSON_TYPE)


async def _openapi(app: FastAPI) -> Response:
    """Answer this API's OpenAPI document; JSON is YAML."""
    return Response(json.dumps(app.openapi(), indent=1), media_type="text/plain")
