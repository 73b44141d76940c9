"""Create the web application of a service, of one process or of several beside each other.

The endpoints of one process are in `process_service`, those of OGC API - Processes in `ogc`.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response  # FastAPI reads them at run time

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.exposure import Exposure
from pesto_runtime.service.header_fields import preferred
from pesto_runtime.service.http import PREFIX, READ, headers_of, is_json_wanted
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.observing import MEDIA_TYPE, Metrics, RequestObserver
from pesto_runtime.service.ogc.routes import OgcEndpoints
from pesto_runtime.service.problems import handle_bug
from pesto_runtime.service.process_service import (
    ProcessService,
    add_error_handlers,
    identity_headers,
    to_page,
)
from pesto_runtime.service.runner import JSON_TYPE
from pesto_runtime.service.tokens import CallerGuard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pesto_runtime.service.runner import CallRunner

_DRAIN_CHECK_S = 0.05
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*")
_TAKEN = ("api", "conformance", "docs", "jobs", "metrics", "openapi.json", "processes")
"""First parts of paths at the root."""


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
    limits, exposure = limits or Limits(), exposure or Exposure()
    service = ProcessService(runs, limits, jobs or JobOptions(), on_ready)
    app = service.app(public_url=exposure.public_url, lifespan=_lifespan([service]))
    identity = identity_headers(service.facts)
    _complete(app, [service], limits, exposure, gate or Gate())
    app.add_middleware(IdentityStamp, headers=identity)
    # Starlette handles bugs outside of all middleware.
    app.add_exception_handler(Exception, partial(handle_bug, headers=identity))
    return app


def create_joint_app(
    services: Sequence[ProcessService],
    *,
    limits: Limits,
    exposure: Exposure,
    gate: Gate,
) -> FastAPI:
    """Create the web application of several processes; PESTO's endpoints of each are below /NAME.

    Args:
        services: The processes, in the order in which they are listed.
        limits: Of each of them.
        exposure: Who can reach it.
        gate: Which addresses of subscribers may be called.

    Raises:
        InvalidInput: two have one name, or a name cannot be the first part of a path.
    """
    _require_names([each.description.name for each in services])
    app = FastAPI(
        title="PESTO", lifespan=_lifespan(services), docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.public_url, app.state.mount = exposure.public_url, ""
    for service in services:
        service.mount = f"/{service.description.name}"
        part = service.app(public_url=exposure.public_url)
        part.add_api_route("/", partial(to_page, "docs"), methods=[*READ], response_class=Response)
        part.add_middleware(IdentityStamp, headers=identity_headers(service.facts))
        app.mount(service.mount, part)
    add_error_handlers(app)
    health = _All(services, limits.drain_s).health
    app.add_api_route(f"{PREFIX}/health", health, methods=[*READ], response_class=Response)
    _complete(app, services, limits, exposure, gate)
    app.add_exception_handler(Exception, handle_bug)
    return app


def _require_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(
                f"two targets are the process {name!r}: a service has one process of a name; "
                "serve the other one on another port"
            )
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise InvalidInput(
                f"process {name!r} cannot be served beside others, below /{name}: a name has "
                f"letters, digits, '.', '_', '~' and '-', and is none of {', '.join(_TAKEN)}; "
                "rename it, or serve it alone"
            )


def _complete(
    app: FastAPI,
    services: Sequence[ProcessService],
    limits: Limits,
    exposure: Exposure,
    gate: Gate,
) -> None:
    """Add what all processes share: OGC's endpoints, metrics, callers, host names."""
    ogc = OgcEndpoints(services, limits, gate)
    ogc.add_to(app)
    app.state.drain = _All(services, limits.drain_s).drain
    app.state.job_managers = [each.job_manager for each in services]
    metrics = Metrics(services)
    figures = partial(_metrics, metrics)
    app.add_api_route(f"{PREFIX}/metrics", figures, methods=[*READ], response_class=Response)
    app.add_api_route("/metrics", figures, methods=[*READ], response_class=Response)
    root = partial(_root, ogc, has_page=len(services) == 1)
    app.add_api_route("/", root, methods=[*READ], response_class=Response)
    app.add_middleware(RequestObserver, metrics=metrics)
    if exposure.callers is not None:
        mounts = [each.mount for each in services]
        app.add_middleware(
            CallerGuard, callers=exposure.callers, owner_of=ogc.owner_of, mounts=mounts
        )
    exposure.apply(app)


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


def _lifespan(
    services: Sequence[ProcessService],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in services:
                await stack.enter_async_context(each.running())
            yield

    return running


@dataclass(frozen=True)
class _All:
    """All processes of a service together."""

    services: Sequence[ProcessService]
    drain_s: float

    async def drain(self) -> None:
        """Refuse new calls, and wait for the end of those that run or wait."""
        for each in self.services:
            each.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.drain_s
        while any(each.is_working for each in self.services) and loop.time() < deadline:  # noqa: ASYNC110  # counts
            await asyncio.sleep(_DRAIN_CHECK_S)

    async def health(self, request: Request) -> Response:
        """Return OK if all processes are; else the state of the first that is not."""
        state = next((each.state for each in self.services if each.state != "OK"), "OK")
        status = 200 if state == "OK" else 503
        if not is_json_wanted(headers_of(request.scope)):
            return Response(state, status, media_type="text/plain")
        processes = {each.description.name: each.health_document() for each in self.services}
        document = {"state": state, "processes": processes}
        return Response(json.dumps(document), status, media_type=JSON_TYPE)


def _metrics(metrics: Metrics) -> Response:
    """Return the metrics for Prometheus."""
    # Not `async`, so that FastAPI runs it in a thread: it reads /proc for every worker.
    return Response(metrics.text(), headers={"Content-Type": MEDIA_TYPE})


async def _root(ogc: OgcEndpoints, request: Request, *, has_page: bool) -> Response:
    """Send a browser to the page of one process; return the landing page of OGC to others."""
    accept = headers_of(request.scope).get("accept", "")
    if has_page and preferred(accept, (JSON_TYPE, "text/html")) == "text/html":
        return await to_page("docs")
    return ogc.landing(request)
