"""The PESTO protocol over FastAPI: routes and headers, nothing that computes."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from pesto_runtime.errors import PestoError
from pesto_runtime.service.admission import Admission
from pesto_runtime.service.callers import headers_of
from pesto_runtime.service.calls import ProcessEndpoint
from pesto_runtime.service.documents import PREFIX, StaticResponses
from pesto_runtime.service.front import FastPath
from pesto_runtime.service.jobs import JobEndpoints, JobManager, JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.operations import add_operations
from pesto_runtime.service.payload import JSON_TYPE, transports
from pesto_runtime.service.refusals import bug, http_problem, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pesto_runtime.service.runs import CallRunner

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
