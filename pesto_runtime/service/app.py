"""Create the web application of one process: its routes, and the responses that do not change.

`POST /process` itself is in `http`, the endpoints of jobs in `jobs.api`, the page at `/docs` in
`page`.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response  # FastAPI reads them at run time
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

import pesto_runtime
from pesto_runtime.client.steps import BUILD_HEADER, DIGEST_HEADER
from pesto_runtime.errors import PestoError
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.exposure import Exposure
from pesto_runtime.service.header_fields import preferred
from pesto_runtime.service.http import (
    PREFIX,
    READ,
    Admission,
    FastPath,
    ProcessEndpoint,
    base_url,
    headers_of,
    is_json_wanted,
)
from pesto_runtime.service.jobs.api import JobEndpoints
from pesto_runtime.service.jobs.manager import JobManager
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.observing import MEDIA_TYPE, Metrics, RequestObserver
from pesto_runtime.service.ogc.routes import OgcEndpoints
from pesto_runtime.service.openapi import openapi
from pesto_runtime.service.page import Page
from pesto_runtime.service.problems import handle_bug, handle_http_error, handle_pesto_error
from pesto_runtime.service.runner import JSON_TYPE, transports
from pesto_runtime.service.tokens import CallerGuard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from pydantic import JsonValue
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pesto_runtime.service.runner import CallRunner, ProcessFacts

OPENAPI_TYPE = "application/vnd.oai.openapi+json;version=3.1"
"""As https://www.iana.org/assignments/media-types has it."""
_DRAIN_CHECK_S = 0.05

# relation, media type and method of each link, exactly as in PESTO, whose clients read them
_LINKS = {
    "self": ("describe", "Access to describe resource", "application/json", "GET"),
    "execution": (
        "process",
        "Processing resource",
        "Complex type, see output in describe content for more information",
        "POST",
    ),
    "config": ("config", "Processing configuration", "application/json", "GET"),
    "version": ("version", "Processing version", "application/json", "GET"),
    "health": ("health", "Processing health", "text/plain", "GET"),
}


def create_app(
    runs: CallRunner,
    *,
    limits: Limits | None = None,
    jobs: JobOptions | None = None,
    exposure: Exposure | None = None,
    gate: Gate | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Create the web application of one process.

    Args:
        runs: Performs its calls, and is loaded; its set-up runs when the application starts.
        limits: Sizes, workers and queue.
        jobs: Where and how long jobs are stored.
        exposure: Who can reach it; anybody who can connect by default.
        gate: Which addresses of subscribers may be called; none by default.
        on_ready: Called once the set-up is done.
    """
    exposure = exposure or Exposure()
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
        app.add_api_route(f"{PREFIX}/{path}", endpoint, methods=[*READ], response_class=Response)
    for path in ("process", "jobs"):
        app.add_api_route(
            f"{PREFIX}/{path}",
            service.calls.process,
            methods=["POST"],
            response_class=Response,
        )
    document = json.dumps(openapi(description), indent=1).encode()
    for path, media_type in ((f"{PREFIX}/openapi", "text/plain"), ("/openapi.json", OPENAPI_TYPE)):
        fixed = partial(_fixed, document, media_type)
        app.add_api_route(path, fixed, methods=[*READ], response_class=Response)
    routes = {
        ("POST", f"{PREFIX}/process"): service.calls.process,
        ("GET", f"{PREFIX}/describe"): service.describe,
        ("GET", f"{PREFIX}/health"): service.health,
    }
    app.add_middleware(FastPath, routes=routes)
    app.state.public_url = exposure.public_url
    app.state.drain = service.drain
    app.state.job_manager = service.job_manager
    service.jobs.add_to(app)
    ogc = OgcEndpoints(description, service.job_manager, service.limits, gate or Gate())
    ogc.add_to(app)
    _add_operations(app, service, runs.facts, ogc)
    app.add_exception_handler(PestoError, handle_pesto_error)
    app.add_exception_handler(HTTPException, handle_http_error)
    if exposure.callers is not None:
        owner_of = service.job_manager.owner_of
        app.add_middleware(CallerGuard, callers=exposure.callers, owner_of=owner_of)
    exposure.apply(app)
    identity = identity_headers(runs.facts)
    app.add_middleware(IdentityStamp, headers=identity)
    # Starlette handles bugs outside of all middleware.
    app.add_exception_handler(Exception, partial(handle_bug, headers=identity))
    return app


def identity_headers(facts: ProcessFacts) -> dict[str, str]:
    """Return the headers by which a client notices that another code answers than before."""
    return {BUILD_HEADER: facts.build, DIGEST_HEADER: facts.description.digest}


class IdentityStamp:
    """ASGI middleware that adds the same headers to every response, streamed ones too."""

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str]) -> None:
        """Wrap an application.

        Args:
            app: Serves the requests.
            headers: Added to each of its responses.
        """
        self._app = app
        self._headers = [(name.encode(), text.encode()) for name, text in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request to the application."""

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, stamped)


class _Service:
    """The endpoints of one process, and its start and end."""

    def __init__(
        self, runs: CallRunner, limits: Limits, jobs: JobOptions, on_ready: Callable[[], None]
    ) -> None:
        self._runs = runs
        self.limits = limits
        self._description = runs.facts.description
        self._responses = StaticResponses.of(runs.facts)
        self._describe_headers = {
            "ETag": self._responses.etag,
            "Accept-Post": ", ".join(transports(self._description)),
        }
        self.admission = Admission(limits.workers, limits.queue)
        self.job_manager = JobManager(runs, jobs, most_running=limits.workers)
        self.jobs = JobEndpoints(self.job_manager, self._description, grace_s=limits.grace_s)
        self.calls = ProcessEndpoint(runs, self.admission, self.jobs, limits)
        self._on_ready = on_ready

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        await self.job_manager.open()
        self._runs.start(self._on_ready)
        yield
        await self.job_manager.close()
        await self._runs.close()

    async def drain(self) -> None:
        """Refuse new calls, and wait for the end of those that run or wait."""
        self.calls.is_stopping = True
        self.job_manager.pause()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.drain_s
        while (self.admission.admitted or self.job_manager.running) and loop.time() < deadline:  # noqa: ASYNC110  # two counts
            await asyncio.sleep(_DRAIN_CHECK_S)

    async def health(self, request: Request) -> Response:
        """Return OK when ready, even if busy."""
        state = "STOPPING" if self.calls.is_stopping else self._runs.state
        status = 200 if state == "OK" else 503
        if not is_json_wanted(headers_of(request.scope)):
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
        """Return the description."""
        if self._responses.is_known(headers_of(request.scope).get("if-none-match", "")):
            return Response(status_code=304, headers=self._describe_headers)
        content = self._responses.describe(base_url(request))
        return Response(content, headers=self._describe_headers, media_type=JSON_TYPE)

    async def version(self) -> Response:
        """Return the versions of the process and of this package."""
        return Response(self._responses.version, media_type=JSON_TYPE)


@dataclass(frozen=True)
class StaticResponses:
    """The bodies of one service that are encoded once.

    Attributes:
        description: JSON of the description without its links and its closing brace.
        etag: Of the description.
        version: JSON of the version document.
    """

    description: bytes
    etag: str
    version: bytes

    @classmethod
    def of(cls, facts: ProcessFacts) -> StaticResponses:
        """Encode the bodies for a process."""
        document = facts.description.to_json()
        document.pop("_links", None)
        version: dict[str, JsonValue] = {
            "version": facts.description.version,
            "__packaging": f"packaged with pesto-workflows {pesto_runtime.__version__}",
            **facts.version_document,
        }
        return cls(
            description=json.dumps(document, ensure_ascii=False).encode()[:-1],
            etag=f'"{facts.description.digest}"',
            version=json.dumps(version).encode(),
        )

    @lru_cache(maxsize=16)  # noqa: B019  # one object per service, cached by its addresses
    def describe(self, base_url: str) -> bytes:
        """Return the description, with links below the address that the caller used."""
        links = {
            name: {"relation": relation, "href": f"{base_url.rstrip('/')}{PREFIX}/{path}",
                   "type": media_type, "method": method}
            for name, (path, relation, media_type, method) in _LINKS.items()
        }  # fmt: skip
        return self.description + b', "_links": ' + json.dumps(links).encode() + b"}"

    def is_known(self, if_none_match: str) -> bool:
        """Return whether the caller has the description already."""
        # RFC 9110 section 13.1.2: If-None-Match compares weakly, W/ does not count.
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return "*" in tags or self.etag in tags


def _add_operations(
    app: FastAPI, service: _Service, facts: ProcessFacts, ogc: OgcEndpoints
) -> None:
    """Add `/metrics`, `/docs`, and the middleware that counts and logs every request."""
    description = facts.description
    about = {
        "process": description.name, "version": description.version, "build": facts.build,
    }  # fmt: skip
    metrics = Metrics(service.admission, jobs=service.job_manager.counts, about=about)
    figures = partial(_metrics, metrics)
    app.add_api_route(f"{PREFIX}/metrics", figures, methods=[*READ], response_class=Response)
    app.add_api_route("/metrics", figures, methods=[*READ], response_class=Response)
    page = partial(_docs, Page.of(description))
    app.add_api_route("/docs", page, methods=[*READ], response_class=Response)
    app.add_api_route("/", partial(_root, ogc), methods=[*READ], response_class=Response)
    app.add_api_route(PREFIX, _to_page, methods=[*READ], response_class=Response)
    app.add_middleware(RequestObserver, metrics=metrics)


def _metrics(metrics: Metrics) -> Response:
    """Return the metrics for Prometheus."""
    # Not `async`, so that FastAPI runs it in a thread: it reads /proc for every worker.
    return Response(metrics.text(), headers={"Content-Type": MEDIA_TYPE})


async def _docs(page: Page) -> Response:
    """Return the page."""
    headers = {"Content-Security-Policy": page.policy, "X-Content-Type-Options": "nosniff"}
    return Response(page.content, headers=headers, media_type="text/html")


async def _root(ogc: OgcEndpoints, request: Request) -> Response:
    """Send a browser to the page, and return the landing page of OGC to others."""
    accept = headers_of(request.scope).get("accept", "")
    if preferred(accept, (JSON_TYPE, "text/html")) == "text/html":
        return RedirectResponse("/docs")
    return ogc.landing(request)


async def _to_page() -> Response:
    """Send a browser to the page."""
    return RedirectResponse("/docs")


async def _fixed(content: bytes, media_type: str) -> Response:
    """Return a document that does not change."""
    return Response(content, media_type=media_type)
