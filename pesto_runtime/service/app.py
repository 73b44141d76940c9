"""The PESTO protocol over FastAPI: routes and headers, nothing that computes."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from pesto_runtime.client.multipart import media_type_of
from pesto_runtime.errors import (
    Busy,
    MethodNotAllowed,
    NotFound,
    PestoError,
    Unreachable,
)
from pesto_runtime.hrefs import is_loopback
from pesto_runtime.service.admission import Admission
from pesto_runtime.service.documents import PREFIX, Documents
from pesto_runtime.service.jobs import Desk, JobEndpoints, JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.operations import add_operations
from pesto_runtime.service.payload import Payload, require_media_type, transports
from pesto_runtime.service.problems import problem_response
from pesto_runtime.service.runs import no_progress
from pesto_runtime.service.streaming import PieceWise, body_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pesto_runtime.service.answers import Answer
    from pesto_runtime.service.runs import Runs

_LOG = logging.getLogger(__name__)
_CARRIED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_WATCH_AFTER_S = 0.05
_LOOK_S = 0.05  # how often a drain looks whether the last call has ended
_RESTART_S = 5.0  # a guess at how long until another service answers here
_OPENAPI_PATH = f"{PREFIX}/openapi"


def create_app(
    runs: Runs,
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
        service.process,
        methods=["POST"],
        response_class=Response,
        openapi_extra={"requestBody": service.request_body()},
    )
    app.add_api_route(
        f"{PREFIX}/jobs",
        service.process,
        methods=["POST"],
        response_class=Response,
        openapi_extra={"requestBody": service.request_body()},
    )
    app.add_api_route(_OPENAPI_PATH, partial(_openapi, app), methods=["GET"])
    # FastAPI's route above is in the OpenAPI document; this one answers, in half the time
    app.router.routes.insert(0, Route(f"{PREFIX}/process", service.process, methods=["POST"]))
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
    app.add_exception_handler(PestoError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _bug)
    return app


class _Service:
    """The endpoints of one process."""

    def __init__(
        self, runs: Runs, limits: Limits, jobs: JobOptions, on_ready: Callable[[], None]
    ) -> None:
        self._runs = runs
        self._limits = limits
        self._description = runs.facts.description
        self._documents = Documents.of(runs.facts)
        self.admission = Admission(limits.workers, limits.queue)
        self.desk = Desk(runs, jobs, at_once=limits.workers)
        self.jobs = JobEndpoints(self.desk, self._description, grace_s=limits.grace_s)
        self._on_ready = on_ready
        self._is_stopping = False

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        await self.desk.open()
        self._runs.start(self._on_ready)
        yield
        await self.desk.close()
        await self._runs.close()

    async def drain(self) -> None:
        """Take no more calls, and wait for the end of those that run or wait."""
        self._is_stopping = True
        self.desk.pause()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.drain_s
        while (self.admission.admitted or self.desk.running) and loop.time() < deadline:  # noqa: ASYNC110  # two counts
            await asyncio.sleep(_LOOK_S)

    async def health(self, request: Request) -> Response:
        """Answer OK when ready, even if busy."""
        state = "STOPPING" if self._is_stopping else self._runs.state
        status = 200 if state == "OK" else 503
        if "application/json" not in request.headers.get("accept", ""):
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
        return Response(json.dumps(document), status, media_type="application/json")

    async def describe(self, request: Request) -> Response:
        """Answer the description."""
        headers = {
            "ETag": self._documents.etag,
            "Accept-Post": ", ".join(transports(self._description)),
            "X-Pesto-Build": self._runs.facts.build,
        }
        if self._documents.is_known(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        content = self._documents.describe(str(request.base_url))
        return Response(content, headers=headers, media_type="application/json")

    async def version(self) -> Response:
        """Answer the version of the process and of what serves it."""
        return Response(self._documents.version, media_type="application/json")

    async def process(self, request: Request) -> Response:
        """Perform a call; nothing of it runs on the event loop but reading its body."""
        if self._is_stopping:
            raise Busy("the service is stopping", retry_after_s=_RESTART_S)
        self._runs.require()
        media_type = media_type_of(request.headers.get("content-type", ""))
        require_media_type(media_type, self._description)
        is_from_here = _is_from_here(request)
        if self.jobs.takes(request.headers):
            payload = await self._payload(request, media_type)
            return await self.jobs.process(request, payload, from_here=is_from_here)
        with self.admission.place():
            payload = await self._payload(request, media_type)
            running = self._runs.run(
                payload, from_here=is_from_here, on_progress=no_progress, on_log=_LOG.info
            )
            answer = await _unless_gone(request, running)
        return PieceWise(answer.content, media_type=answer.media_type)

    async def _payload(self, request: Request, media_type: str) -> Payload:
        body = await body_of(request, self._limits.body_bytes)
        accept = request.headers.get("accept", "")
        return Payload(body, media_type, dict(request.query_params), accept)

    def request_body(self) -> dict[str, object]:
        """What `process` takes, for its OpenAPI."""
        description = self._description
        binary = {"schema": {"type": "string", "format": "binary"}}
        content: dict[str, object] = dict.fromkeys(transports(description), binary)
        content["application/json"] = {"schema": {"type": "object"}}
        return {"required": True, "content": content}


def _is_from_here(request: Request) -> bool:
    """Whether the caller is on this machine, as its gate takes for granted.

    A proxy on this machine, or a browser that runs somebody's page (which may even have pointed
    its own name here), carries requests of others: local files are not for them.
    """
    headers = request.headers
    is_carried = any(each in headers for each in _CARRIED)
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


async def _unless_gone(request: Request, running: Awaitable[Answer]) -> Answer:
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


async def _openapi(app: FastAPI) -> Response:
    """Answer this API's OpenAPI document; JSON is YAML."""
    return Response(json.dumps(app.openapi(), indent=1), media_type="text/plain")


async def _problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, PestoError):
        raise TypeError(f"{type(error).__name__} has no problem document") from error
    if error.status >= 500 and not error.retryable:
        _LOG.error("%s", error, exc_info=error)
    return problem_response(error)


async def _http_problem(request: Request, error: Exception) -> Response:
    """What the router refuses; `detail` as PESTO's."""
    status = getattr(error, "status_code", 500)
    where = f"{request.method} {request.url.path}"
    if status == 404:
        return problem_response(NotFound(f"Not Found: {where}"))
    if status == 405:
        headers = getattr(error, "headers", None)
        return problem_response(MethodNotAllowed(f"Method Not Allowed: {where}"), headers)
    failed = PestoError(f"{where}: {getattr(error, 'detail', error)}")
    return problem_response(failed)


async def _bug(_request: Request, error: Exception) -> Response:
    """A fault of this package; the server logs its traceback."""
    return problem_response(PestoError(f"internal error: {type(error).__name__}"))
