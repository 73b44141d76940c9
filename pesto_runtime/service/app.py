"""The PESTO protocol over FastAPI: routes and headers, nothing that computes."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from pesto_runtime.errors import (
    InvalidContract,
    MethodNotAllowed,
    NotFound,
    PestoError,
    TooLarge,
)
from pesto_runtime.hrefs import is_loopback
from pesto_runtime.service.documents import PREFIX, Documents
from pesto_runtime.service.execution import Execution
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.multipart import media_type_of
from pesto_runtime.service.payload import Payload, require_media_type, transports
from pesto_runtime.service.pool import WorkPool
from pesto_runtime.service.problems import problem_response
from pesto_runtime.service.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pesto_runtime.contract import Description
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor

_LOG = logging.getLogger(__name__)
_CARRIED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_OPENAPI_PATH = f"{PREFIX}/openapi"


def create_app(
    processor: Processor,
    *,
    gate: Gate,
    limits: Limits | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Make the web application of one processor.

    Args:
        processor: What it serves; its set-up runs when the application starts.
        gate: What hrefs in requests pass.
        limits: Sizes, threads and queue.
        on_ready: Called once the set-up is done.

    Raises:
        InvalidContract: the process cannot be served.
    """
    _require_synchronous(processor.description)
    service = _Service(processor, gate, limits or Limits(), on_ready)
    app = FastAPI(
        title=processor.description.name,
        version=processor.description.version,
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
    app.add_api_route(_OPENAPI_PATH, partial(_openapi, app), methods=["GET"])
    app.add_exception_handler(PestoError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _bug)
    return app


class _Service:
    """The endpoints of one processor."""

    def __init__(
        self, processor: Processor, gate: Gate, limits: Limits, on_ready: Callable[[], None]
    ) -> None:
        self._processor = processor
        self._limits = limits
        self._documents = Documents.of(processor)
        self._execution = Execution.of(processor, gate, limits)
        self._from_afar = Execution.of(processor, replace(gate, loopback=False), limits)
        self._pool = WorkPool(limits.workers, limits.queue)
        self._readiness = Readiness(partial(_set_up, processor), on_ready=on_ready)

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        self._readiness.start()
        yield
        self._pool.close()

    async def health(self, request: Request) -> Response:
        """Answer OK when ready, even if busy."""
        state = self._readiness.state
        status = 200 if state == "OK" else 503
        if "application/json" not in request.headers.get("accept", ""):
            return Response(state, status, media_type="text/plain")
        document = {
            "state": state,
            "queue": {
                "admitted": self._pool.admitted,
                "workers": self._pool.workers,
                "capacity": self._pool.capacity,
            },
            "setup": list(self._readiness.log),
        }
        return Response(json.dumps(document), status, media_type="application/json")

    async def describe(self, request: Request) -> Response:
        """Answer the description."""
        headers = {
            "ETag": self._documents.etag,
            "Accept-Post": ", ".join(transports(self._processor.description)),
            "X-Pesto-Build": self._processor.build,
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
        self._readiness.require()
        media_type = media_type_of(request.headers.get("content-type", ""))
        require_media_type(media_type, self._processor.description)
        with self._pool.place():
            body = await _body(request, self._limits.body_bytes)
            payload = Payload(
                body, media_type, dict(request.query_params), request.headers.get("accept", "")
            )
            execution = self._execution if _is_from_here(request) else self._from_afar
            gone = asyncio.ensure_future(_disconnected(request))
            try:
                answer = await self._pool.run(partial(execution.answer, payload), gone)
            finally:
                gone.cancel()
        return Response(answer.content, media_type=answer.media_type)

    def request_body(self) -> dict[str, object]:
        """What `process` takes, for its OpenAPI."""
        description = self._processor.description
        binary = {"schema": {"type": "string", "format": "binary"}}
        content: dict[str, object] = dict.fromkeys(transports(description), binary)
        content["application/json"] = {"schema": {"type": "object"}}
        return {"required": True, "content": content}


def _set_up(processor: Processor) -> None:
    import_module("pesto_runtime.raster.codec")  # GDAL, before the first call waits for it
    processor.setup()


def _require_synchronous(description: Description) -> None:
    if description.known.asynchronous:
        raise InvalidContract(
            f"{description.name} says `asynchronous: true`; jobs are not served, set it to false "
            "in its description (or a profile of it) to answer calls at once"
        )


def _is_from_here(request: Request) -> bool:
    """Whether the caller is on this machine, as its gate takes for granted.

    A proxy on this machine, or a browser that runs somebody's page (which may even have pointed
    its own name here), carries requests of others: local files are not for them.
    """
    origin = request.headers.get("origin")
    names = [request.url.hostname, *([urlsplit(origin).hostname] if origin else [])]
    is_carried = any(each in request.headers for each in _CARRIED)
    return not is_carried and all(is_loopback(name or "") for name in names)


async def _body(request: Request, most_bytes: int) -> bytes:
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most_bytes:
        raise TooLarge(f"the body has {told} bytes; at most {most_bytes} are taken")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise TooLarge(f"the body has over {most_bytes} bytes, which is the most taken")
    return bytes(body)


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
