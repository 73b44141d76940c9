"""Serve the endpoints of PESTO for one process: its documents, its calls, its jobs.

`app` puts one or several of them into a web application. `POST /process` itself is in `http`, the
endpoints of jobs in `jobs.api`, the page at `/docs` in `page`.
"""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import FastAPI, Request, Response  # FastAPI reads them at run time
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

import pesto_runtime
from pesto_runtime.client.steps import BUILD_HEADER, DIGEST_HEADER, PLACELESS_HEADER
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.service.admission import Admission, CallerCalls
from pesto_runtime.service.http import (
    PREFIX,
    READ,
    FastPath,
    ProcessEndpoint,
    base_url,
    caller_of,
    cancelled_on_disconnect,
    headers_of,
    http_response,
    is_json_wanted,
)
from pesto_runtime.service.jobs.api import JobEndpoints
from pesto_runtime.service.jobs.manager import JobManager
from pesto_runtime.service.jobs.quota import JobQuota
from pesto_runtime.service.openapi import openapi
from pesto_runtime.service.page import Page
from pesto_runtime.service.problems import handle_http_error, handle_pesto_error
from pesto_runtime.service.runner import (
    JSON_TYPE,
    QUOTE_TYPE,
    Payload,
    no_progress,
    transports,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from pydantic import JsonValue

    from pesto_runtime.service.jobs.states import JobOptions
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.runner import CallRunner, ProcessFacts

_LOG = logging.getLogger(__name__)
OPENAPI_TYPE = "application/vnd.oai.openapi+json;version=3.1"
"""As https://www.iana.org/assignments/media-types has it."""

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


@dataclass(frozen=True)
class CallerQuotas:
    """What each caller may have at once, of all processes of a service together."""

    calls: CallerCalls
    jobs: JobQuota

    @classmethod
    def of(cls, limits: Limits, jobs: JobOptions) -> CallerQuotas:
        """Prepare the quotas; nobody has anything."""
        return cls(CallerCalls(limits.caller_calls), JobQuota(jobs))


class ProcessService:
    """The endpoints of one process, and its start and end.

    Attributes:
        facts: About the process.
        description: Its contract.
        mount: Path below which its endpoints are: empty, or `/NAME` beside other processes.
        admission: The queue of its calls.
        job_manager: Runs and stores its jobs.
        jobs: The endpoints of its jobs.
        calls: Its calls.
    """

    def __init__(
        self,
        runs: CallRunner,
        limits: Limits,
        jobs: JobOptions,
        on_ready: Callable[[], None] = lambda: None,
        *,
        quotas: CallerQuotas | None = None,
    ) -> None:
        """Prepare the endpoints.

        Args:
            runs: Performs the calls, and is loaded; its set-up runs at the start.
            limits: Sizes, workers and queue.
            jobs: Where and how long jobs are stored.
            on_ready: Called once the set-up is done.
            quotas: Of callers, shared with the other processes; None for its own.
        """
        quotas = quotas or CallerQuotas.of(limits, jobs)
        self._runs = runs
        self.facts = runs.facts
        self.description = runs.facts.description
        self.mount = ""
        self._responses = StaticResponses.of(runs.facts)
        self._describe_headers = {
            "ETag": self._responses.etag,
            "Accept-Post": ", ".join(transports(self.description)),
            **({PLACELESS_HEADER: "true"} if runs.facts.is_placeless else {}),
        }
        self.admission = Admission(limits.workers, limits.queue, quotas.calls)
        self.job_manager = JobManager(runs, jobs, most_running=limits.workers, quota=quotas.jobs)
        self.jobs = JobEndpoints(self.job_manager, self.description, grace_s=limits.grace_s)
        self.calls = ProcessEndpoint(runs, self.admission, self.jobs, limits)
        self._on_ready = on_ready

    def app(
        self,
        *,
        public_url: str = "",
        lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    ) -> FastAPI:
        """Return an application with these endpoints.

        Args:
            public_url: Its address as others see it, for links; that of the request if empty.
            lifespan: Runs its start and end; none for a part of another application.
        """
        app = FastAPI(
            title=self.description.name,
            version=self.description.version,
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
        )
        app.state.public_url, app.state.mount = public_url, quote(self.mount)
        self._add_to(app)
        self.jobs.add_to(app)
        routes = {
            ("POST", f"{self.mount}{PREFIX}/process"): self.calls.process,
            ("GET", f"{self.mount}{PREFIX}/describe"): self.describe,
            ("GET", f"{self.mount}{PREFIX}/health"): self.health,
        }
        app.add_middleware(FastPath, routes=routes)
        add_error_handlers(app)
        return app

    def _add_to(self, app: FastAPI) -> None:
        document = json.dumps(openapi(self.description), indent=1).encode()
        for path, endpoint in (
            (f"{PREFIX}/health", self.health),
            (f"{PREFIX}/describe", self.describe),
            (f"{PREFIX}/version", self.version),
            (f"{PREFIX}/openapi", partial(_fixed, document, "text/plain")),
            ("/openapi.json", partial(_fixed, document, OPENAPI_TYPE)),
            ("/docs", partial(_docs, Page.of(self.description))),
            (PREFIX, partial(to_page, "../docs")),
        ):
            app.add_api_route(path, endpoint, methods=[*READ], response_class=Response)
        for name in ("process", "jobs"):
            app.add_api_route(
                f"{PREFIX}/{name}", self.calls.process, methods=["POST"], response_class=Response
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it in a block: its jobs and its set-up."""
        await self.job_manager.open()
        self._runs.start(self._on_ready)
        yield
        await self.job_manager.close()
        await self._runs.close()

    async def quote(self, request: Request, body: bytes) -> Response:
        """Return what a run of a pipeline takes; nothing is computed but small windows.

        Args:
            request: Whose end cancels it.
            body: Inputs, as of a call.

        Raises:
            InvalidInput: it is one process, or the inputs are wrong.
            Busy: too many calls run and wait.
        """
        name = self.description.name
        if "x-pipeline" not in self.description.document:
            raise InvalidInput(f"{name} is one process; a quote is the plan of a pipeline")
        self._runs.require()
        payload = Payload(body, QUOTE_TYPE, {}, JSON_TYPE)
        with self.admission.place(caller_of(request.scope)):
            planning = self._runs.run(payload, on_progress=no_progress, on_log=_LOG.info)
            return http_response(await cancelled_on_disconnect(request, planning))

    @property
    def is_working(self) -> bool:
        """Whether a call runs or waits, or a job runs."""
        return bool(self.admission.admitted or self.job_manager.running)

    @property
    def state(self) -> str:
        """OK when ready, even if busy; else STARTING, FAILED or STOPPING."""
        return "STOPPING" if self.calls.is_stopping else self._runs.state

    def stop(self) -> None:
        """Refuse new calls, and start no more jobs."""
        self.calls.is_stopping = True
        self.job_manager.pause()

    async def health(self, request: Request) -> Response:
        """Return OK when ready, even if busy."""
        status = 200 if self.state == "OK" else 503
        if not is_json_wanted(headers_of(request.scope)):
            return Response(self.state, status, media_type="text/plain")
        return Response(json.dumps(self.health_document()), status, media_type=JSON_TYPE)

    def health_document(self) -> dict[str, JsonValue]:
        """Return the state, the queue and the steps of the set-up."""
        return {
            "state": self.state,
            "queue": {
                "admitted": self.admission.admitted,
                "workers": self.admission.workers,
                "capacity": self.admission.capacity,
            },
            "setup": list(self._runs.setup_log),
        }

    async def describe(self, request: Request) -> Response:
        """Return the description."""
        if self._responses.is_known(headers_of(request.scope).get("if-none-match", "")):
            return Response(status_code=304, headers=self._describe_headers)
        content = self._responses.describe(base_url(request))
        return Response(content, headers=self._describe_headers, media_type=JSON_TYPE)

    async def version(self) -> Response:
        """Return the versions of the process and of this package."""
        return Response(self._responses.version, media_type=JSON_TYPE)


def add_error_handlers(app: FastAPI) -> None:
    """Return errors as problem documents."""
    app.add_exception_handler(PestoError, handle_pesto_error)
    app.add_exception_handler(HTTPException, handle_http_error)


def identity_headers(facts: ProcessFacts) -> dict[str, str]:
    """Return the headers by which a client notices that another code answers than before."""
    return {BUILD_HEADER: facts.build, DIGEST_HEADER: facts.description.digest}


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


async def _docs(page: Page) -> Response:
    """Return the page."""
    headers = {"Content-Security-Policy": page.policy, "X-Content-Type-Options": "nosniff"}
    return Response(page.content, headers=headers, media_type="text/html")


async def to_page(path: str) -> Response:
    """Send a browser to the page; the path is relative, as a proxy may have another one before."""
    return RedirectResponse(path)


async def _fixed(content: bytes, media_type: str) -> Response:
    """Return a document that does not change."""
    return Response(content, media_type=media_type)
