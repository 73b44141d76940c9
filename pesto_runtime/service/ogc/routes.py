"""Serve OGC API - Processes, part 1, at the root of a service; PESTO's endpoints are below /api/v1.

Every execution is a job of `jobs`; a synchronous one is a job whose end the response waits for.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from fastapi import FastAPI, Request, Response

from pesto_runtime.errors import InvalidInput, NotFound, NotReady, PestoError, shortened
from pesto_runtime.service.bodies import BodyReader
from pesto_runtime.service.header_fields import preferred
from pesto_runtime.service.http import READ, base_url, caller_of, headers_of
from pesto_runtime.service.jobs.api import parse_job_headers
from pesto_runtime.service.jobs.results import JobRequest
from pesto_runtime.service.jobs.status_bodies import Links, job_of, require_results
from pesto_runtime.service.ogc import documents
from pesto_runtime.service.ogc.callbacks import Callbacks
from pesto_runtime.service.ogc.chosen_results import JobResults
from pesto_runtime.service.ogc.pages import POLICY, page
from pesto_runtime.service.ogc.requests import ExecuteRequest, choice_of
from pesto_runtime.service.problems import MEDIA_TYPE as PROBLEM_TYPE
from pesto_runtime.service.problems import error_response
from pesto_runtime.service.runner import JSON_TYPE, Payload, Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pesto_runtime.contract import Description, Job
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.input_values import ValueValidator
    from pesto_runtime.service.jobs.manager import JobManager
    from pesto_runtime.service.jobs.states import Record
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.ogc.documents import Document

_EXCEPTIONS = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0"
_MOST_LISTED = 1000
_LOOK_S = 1.0


class OgcProcess(Protocol):
    """A process of a service."""

    mount: str
    """Path of its endpoints of PESTO: empty, or `/NAME` beside others."""

    @property
    def description(self) -> Description:
        """Its contract."""

    @property
    def job_manager(self) -> JobManager:
        """Runs and stores its jobs."""

    async def quote(self, request: Request, body: bytes) -> Response:
        """Return what a run of a pipeline takes.

        Raises:
            PestoError: it is no pipeline, or the inputs are wrong.
        """


class OgcEndpoints:
    """The endpoints of OGC API - Processes of one service."""

    def __init__(self, processes: Sequence[OgcProcess], limits: Limits, gate: Gate) -> None:
        """Store what is served.

        Args:
            processes: Those that are served, in their order.
            limits: Of bodies.
            gate: Admits the addresses of subscribers.
        """
        self._processes = {each.description.name: each for each in processes}
        self._descriptions = {name: each.description for name, each in self._processes.items()}
        self._mounts = {name: each.mount for name, each in self._processes.items()}
        self._bodies = BodyReader(limits.body_bytes)
        self._callbacks = Callbacks(gate)
        for each in processes:
            each.job_manager.on_end = partial(self._ended, each)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        one, job = "/processes/{process_id}", "/jobs/{job_id}"
        for path, endpoint, method in (
            ("/conformance", self.conformance, "GET"),
            ("/api", self.api, "GET"),
            ("/processes", self.processes, "GET"),
            (one, self.process, "GET"),
            (f"{one}/execution", self.execute, "POST"),
            (f"{one}/validation", self.validate, "POST"),
            (f"{one}/quote", self.quote, "POST"),
            ("/jobs", self.jobs, "GET"),
            (job, self.job, "GET"),
            (job, self.dismiss, "DELETE"),
            (f"{job}/results", self.results, "GET"),
        ):
            methods = READ if method == "GET" else (method,)
            app.add_api_route(path, _as_ogc(endpoint), methods=[*methods], response_class=Response)

    def landing(self, request: Request) -> Response:
        """Return the landing page as JSON."""
        found = documents.landing(_base(request), self._descriptions, self._mounts)
        return _answer(request, found, "Service")

    async def conformance(self, request: Request) -> Response:
        """Return the conformance classes."""
        return _answer(request, documents.conformance(), "Conformance")

    async def api(self, request: Request) -> Response:
        """Return the OpenAPI 3.0 document of these endpoints."""
        content = json.dumps(documents.openapi_30(_base(request), self._descriptions))
        return Response(content, media_type=documents.OPENAPI_30_TYPE)

    async def processes(self, request: Request) -> Response:
        """Return the processes in short."""
        listed = list(self._descriptions.values())[: _limit(request)]
        found = documents.process_list(_base(request), listed, self._mounts)
        return _answer(request, found, "Processes")

    async def process(self, request: Request) -> Response:
        """Return one process with its inputs and outputs."""
        process = self._process_of(request)
        description = process.description
        found = documents.process_document(_base(request), description, process.mount)
        return _answer(request, found, description.known.title or description.name)

    async def validate(self, request: Request) -> Response:
        """Check an execute request without executing it; images are not read."""
        process = self._process_of(request)
        parsed = await self._parsed(request)
        await asyncio.to_thread(self._call_of, process, parsed)
        return Response(json.dumps({"valid": True}), media_type=JSON_TYPE)

    async def quote(self, request: Request) -> Response:
        """Plan the run of a pipeline: its tiles, bytes, memory and seconds."""
        process = self._process_of(request)
        parsed = await self._parsed(request)
        body = await asyncio.to_thread(self._call_of, process, parsed)
        return await process.quote(request, body)

    async def execute(self, request: Request) -> Response:
        """Execute the process: respond with the results, or with the job (`respond-async`)."""
        process = self._process_of(request)
        preferences = parse_job_headers(headers_of(request.scope))
        parsed = await self._parsed(request)
        body = await asyncio.to_thread(self._call_of, process, parsed)
        asked = JobRequest(
            Payload(body, JSON_TYPE, {}, ""), preferences.key, preferences.lease_s,
            caller=caller_of(request.scope), choice={**choice_of(parsed), "base": _base(request)},
        )  # fmt: skip
        self._callbacks.require(asked.choice or {})
        manager, base = process.job_manager, _base(request)
        record = await manager.submit(asked)
        state = documents.status_info(base, self._job(process, record, base))
        self._callbacks.began(record, state)
        if preferences.respond_async:
            headers = {
                "Location": f"{base}/jobs/{record.id}",
                "Preference-Applied": "respond-async",
            }
            return Response(json.dumps(state), 201, headers, JSON_TYPE)
        while not record.is_over:
            record = await manager.wait(record.id, _LOOK_S)
            if not record.is_over and await request.is_disconnected():
                record = await manager.dismiss(record.id, "its caller disconnected")
        return await self._results(process, base, record)

    async def jobs(self, request: Request) -> Response:
        """Return the jobs of the caller."""
        base, limit, caller = _base(request), _limit(request), caller_of(request.scope)
        found = [
            (record, self._job(process, record, base))
            for process in self._processes.values()
            for record in await process.job_manager.newest(caller, limit)
        ]
        found.sort(key=lambda each: each[0].created)
        listed = [job for _, job in found][-limit:]
        return _answer(request, documents.job_list(base, listed), "Jobs")

    async def job(self, request: Request) -> Response:
        """Return the state of a job."""
        process, record = await self._found(request)
        base = _base(request)
        found = documents.status_info(base, self._job(process, record, base))
        return _answer(request, found, f"Job {record.id}")

    async def dismiss(self, request: Request) -> Response:
        """Stop a job, and delete its results."""
        process, record = await self._found(request)
        record = await process.job_manager.dismiss(record.id, "a client deleted it")
        base = _base(request)
        found = documents.status_info(base, self._job(process, record, base))
        return Response(json.dumps(found), media_type=JSON_TYPE)

    async def results(self, request: Request) -> Response:
        """Return the results of a job in the form that its request chose."""
        process, record = await self._found(request)
        if not _wants_html(request):
            return await self._results(process, _base(request), record)
        require_results(record)
        chosen = self._chosen(process, _base(request), record)
        found = await asyncio.to_thread(chosen.document)
        return _answer(request, found, f"Results of job {record.id}")

    async def owner_of(self, job_id: str) -> str | None:
        """Return the caller whose job this is; None if there is none."""
        for each in self._processes.values():
            if (found := await each.job_manager.owner_of(job_id)) is not None:
                return found
        return None

    def _call_of(self, process: OgcProcess, parsed: ExecuteRequest) -> bytes:
        return parsed.call(process.description, self._values_of(process.description.name))

    @cache  # noqa: B019  # one object per service, cached by its processes
    def _values_of(self, name: str) -> ValueValidator:
        """Validates inputs; loads jsonschema, which a service without executions does not need."""
        from pesto_runtime.service.input_values import ValueValidator

        return ValueValidator(self._descriptions[name])

    def _ended(self, process: OgcProcess, record: Record) -> None:
        base = str((record.choice or {}).get("base", ""))
        self._callbacks.ended(record, lambda: self._chosen(process, base, record).document())

    async def _results(self, process: OgcProcess, base: str, record: Record) -> Response:
        require_results(record)
        return await asyncio.to_thread(self._chosen(process, base, record).response)

    def _chosen(self, process: OgcProcess, base: str, record: Record) -> JobResults:
        links = Links.below(f"{base}{quote(process.mount)}")
        return JobResults(record, process.job_manager.folder, links.parts(record))

    def _job(self, process: OgcProcess, record: Record, base: str) -> Job:
        links = Links.below(f"{base}{quote(process.mount)}")
        return job_of(record, links, process=process.description.name, lease_until=None)

    async def _found(self, request: Request) -> tuple[OgcProcess, Record]:
        """Return a job, and its process.

        Raises:
            NotFound: there is no such job.
        """
        job_id = request.path_params["job_id"]
        for each in self._processes.values():
            if await each.job_manager.owner_of(job_id) is not None:
                return each, await each.job_manager.find(job_id)
        raise NotFound(f"there is no job {shortened(job_id)}")

    async def _parsed(self, request: Request) -> ExecuteRequest:
        body = await self._bodies.read(request, headers_of(request.scope))
        if isinstance(body, Spool):
            body = await asyncio.to_thread(Payload(b"", JSON_TYPE, {}, "", spool=body).whole)
        return await asyncio.to_thread(ExecuteRequest.of, body)

    def _process_of(self, request: Request) -> OgcProcess:
        """Return the process that a path names.

        Raises:
            NotFound: there is none of this name.
        """
        name = request.path_params["process_id"]
        if name not in self._processes:
            known = ", ".join(map(repr, self._processes))
            raise NotFound(f"there is no process {shortened(name)}; there is {known}")
        return self._processes[name]


def _as_ogc(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint with errors as OGC has them: 400 in place of 422, and its types."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except PestoError as error:
            return _problem(error, request)

    return answered


def _problem(error: PestoError, request: Request) -> Response:
    found = error_response(error)
    problem = json.loads(bytes(found.body))
    if isinstance(error, NotReady):
        problem["type"] = f"{_EXCEPTIONS}/result-not-ready"
    elif isinstance(error, NotFound):
        kind = "no-such-job" if "job_id" in request.path_params else "no-such-process"
        problem["type"] = f"{_EXCEPTIONS}/{kind}"
    if problem["status"] == InvalidInput.status:
        problem["status"] = 400
    headers = (
        {"Retry-After": found.headers["Retry-After"]} if "Retry-After" in found.headers else {}
    )
    accept = headers_of(request.scope).get("accept", "")
    media_type = preferred(accept, (PROBLEM_TYPE, JSON_TYPE)) or PROBLEM_TYPE
    return Response(json.dumps(problem), problem["status"], headers, media_type)


def _wants_html(request: Request) -> bool:
    accept = headers_of(request.scope).get("accept", "")
    return preferred(accept, (JSON_TYPE, documents.HTML_TYPE)) == documents.HTML_TYPE


def _answer(request: Request, document: Document, title: str) -> Response:
    """Return a document as JSON, or as a page for browsers."""
    if not _wants_html(request):
        return Response(json.dumps(document), media_type=JSON_TYPE)
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(page(document, title), headers=headers, media_type=documents.HTML_TYPE)


def _base(request: Request) -> str:
    return base_url(request).rstrip("/")


def _limit(request: Request) -> int:
    """Return how many entries of a list are wanted.

    Raises:
        InvalidInput: `limit` is not a whole number above 0.
    """
    text = request.query_params.get("limit", str(_MOST_LISTED))
    if not (text.isdecimal() and int(text) > 0):
        raise InvalidInput(f"limit={shortened(text)} must be a whole number above 0")
    return min(int(text), _MOST_LISTED)
