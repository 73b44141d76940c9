"""Serve the endpoints of jobs: those of PESTO, and those of OGC API Processes.

Their documents are in `status_bodies`; jobs run in `manager`.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastapi import Request, Response
from fastapi.responses import FileResponse

from pesto_runtime.contract.call import LONGEST_LEASE_S
from pesto_runtime.errors import Gone, InvalidInput, NotFound, PestoError, shortened
from pesto_runtime.service.header_fields import items
from pesto_runtime.service.http import (
    KEY_HEADER,
    LEASE_HEADER,
    PREFIX,
    READ,
    PieceWise,
    base_url,
    caller_of,
    headers_of,
    is_json_wanted,
)
from pesto_runtime.service.jobs.results import JobRequest, result_body
from pesto_runtime.service.jobs.states import Deleted
from pesto_runtime.service.jobs.status_bodies import (
    Links,
    error_of,
    job_of,
    pesto_status,
    require_results,
)
from pesto_runtime.service.request import Faults, read_payload
from pesto_runtime.service.runner import JSON_TYPE, RESERVED, is_batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.service.http import Respond
    from pesto_runtime.service.jobs.manager import JobManager
    from pesto_runtime.service.jobs.states import Record, Result
    from pesto_runtime.service.runner import Payload


_JOB = f"{PREFIX}/jobs/{{job_id}}"
_RESULT = f"{_JOB}/results/{{part:path}}"
_KEY_CHARS = 255
_LONGEST_WAIT_S = 30.0
_PARSED_BYTES = 8 << 20


class JobEndpoints:
    """The endpoints of one service's jobs."""

    def __init__(self, manager: JobManager, description: Description, *, grace_s: float) -> None:
        """Store the job manager of this process.

        Args:
            manager: Runs and stores the jobs.
            description: Of the process.
            grace_s: Seconds to wait for the end of an asynchronous process, before a link to its
                job is returned.
        """
        self._manager = manager
        self._grace_s = grace_s
        self._description = description

    def add_to(self, app: FastAPI) -> None:
        """Add the routes of jobs."""
        for path, endpoint, method in (
            (f"{PREFIX}/jobs", self.jobs, "GET"),
            (_JOB, self.job, "GET"),
            (_JOB, self.dismiss, "DELETE"),
            (f"{_JOB}/status", self.status, "GET"),
            (f"{_JOB}/log", self.log, "GET"),
            (f"{_JOB}/results", self.results, "GET"),
            (_RESULT, self.result, "GET"),
            (_RESULT, self.delete_result, "DELETE"),
        ):
            methods = READ if method == "GET" else (method,)
            app.add_api_route(path, endpoint, methods=[*methods], response_class=Response)

    def takes(self, headers: Mapping[str, str]) -> bool:
        """Return whether a call with these headers becomes a job.

        Raises:
            InvalidInput: a header of jobs is wrong.
        """
        parsed = parse_job_headers(headers)
        return (
            parsed.respond_async or parsed.key is not None or self._description.known.asynchronous
        )

    async def accept(self, request: Request, payload: Payload) -> Respond:
        """Make a call a job, and store it; return a function that waits for its response.

        Raises:
            InvalidInput: it is a batch.
            PestoError: it cannot be stored.
        """
        if is_batch(payload):
            raise InvalidInput("a batch cannot be a job; submit its payloads one by one")
        parsed = parse_job_headers(headers_of(request.scope))
        lease_s = parsed.lease_s or await asyncio.to_thread(_lease_in, payload, self._description)
        job_request = JobRequest(payload, parsed.key, lease_s, caller=caller_of(request.scope))
        record = await self._manager.submit(job_request)
        return partial(self._respond, request, record)

    async def _respond(self, request: Request, record: Record) -> Response:
        """Return the response to a submitted job: immediately, after a grace, or at its end.

        Raises:
            PestoError: it is over already and has failed.
        """
        parsed = parse_job_headers(headers_of(request.scope))
        links = Links.below(base_url(request))
        if parsed.respond_async:
            if parsed.wait_s:
                record = await self._manager.wait(record.id, parsed.wait_s)
            headers = {"Preference-Applied": "respond-async", "Location": links.job(record.id)}
            return self._document(record, links, status=201, headers=headers)
        if not self._description.known.asynchronous:
            return await self._call_response(await self._manager.wait(record.id, None))
        grace_s = self._grace_s if parsed.wait_s is None else parsed.wait_s
        record = await self._manager.wait(record.id, grace_s)
        if record.is_over and record.state != "successful":
            raise error_of(record)
        return _json({"link": links.status(record.id)}, headers={"Location": links.job(record.id)})

    async def jobs(self, request: Request, key: str | None = None) -> Response:
        """Return the links of the caller's jobs, or of the job of an idempotency `key`."""
        links = Links.below(base_url(request))
        ids = await self._manager.ids(caller_of(request.scope), key)
        document: dict[str, JsonValue] = {each: {"link": links.status(each)} for each in ids}
        return _json(document)

    async def job(self, request: Request, job_id: str) -> Response:
        """Return the document of a job; `Prefer: wait=SECONDS` waits for its end."""
        parsed = parse_job_headers(headers_of(request.scope))
        record = await self._waited(job_id, parsed)
        headers = {"Preference-Applied": f"wait={parsed.wait_s:g}"} if parsed.wait_s else {}
        return self._document(record, Links.below(base_url(request)), headers=headers)

    async def status(self, request: Request, job_id: str) -> Response:
        """Return RUNNING, DONE or FAILED, as PESTO does."""
        record = await self._waited(job_id, parse_job_headers(headers_of(request.scope)))
        return _json(pesto_status(record, Links.below(base_url(request))))

    async def log(self, job_id: str) -> Response:
        """Return the last lines that the algorithm logged."""
        record = await self._manager.find(job_id)
        return Response("".join(f"{line}\n" for line in record.log), media_type="text/plain")

    async def dismiss(self, request: Request, job_id: str) -> Response:
        """Stop a job, and delete its results."""
        record = await self._manager.dismiss(job_id, "a client deleted it")
        return self._document(record, Links.below(base_url(request)))

    async def results(self, request: Request, job_id: str) -> Response:
        """Return the links of the results of a job."""
        record = await self._manager.find(job_id)
        require_results(record)
        return _json(Links.below(base_url(request)).results(record))

    async def result(self, request: Request, job_id: str, part: str) -> Response:
        """Return one result of a job; numbers and strings as text, or as JSON for `Accept`."""
        record = await self._manager.find(job_id)
        number, result = _result_of(record, part)
        if result.href is not None:
            return _json(result.href)
        path = self._manager.folder.result_path(job_id, number)
        if result.media_type != JSON_TYPE:
            if not path.exists():
                raise Gone(f"results of job {job_id} were deleted just now")
            return FileResponse(path, media_type=result.media_type)
        data = await asyncio.to_thread(self._manager.folder.read_result, job_id, number)
        as_json = is_json_wanted(headers_of(request.scope))
        content, media_type = result_body(data, result, as_json=as_json)
        return Response(content, media_type=media_type)

    async def delete_result(self, job_id: str, part: str) -> Response:
        """Delete one result of a job; deleting it again is not an error."""
        record = await self._manager.find(job_id)
        if any(each.part == part and each.is_deleted for each in record.results):
            return _json({})
        number, result = _result_of(record, part)
        await self._manager.change(job_id, Deleted(result.part))
        await asyncio.to_thread(self._manager.folder.delete_result, job_id, number)
        return _json({})

    async def _waited(self, job_id: str, parsed: JobHeaders) -> Record:
        record = await self._manager.find(job_id)
        if not parsed.wait_s or record.is_over:
            return record
        wait_s = parsed.wait_s if record.lease_s is None else min(parsed.wait_s, record.lease_s / 2)
        return await self._manager.wait(job_id, wait_s)

    async def _call_response(self, record: Record) -> Response:
        """Return the response of a call that is a job only because it has a key."""
        if not record.is_over:
            raise error_of(record)
        require_results(record)
        if any(each.is_deleted for each in record.results):
            raise Gone(f"results of job {record.id}, the job of this key, were deleted")
        response = await self._manager.response(record)
        return PieceWise(response.content, media_type=response.media_type)

    def _document(
        self,
        record: Record,
        links: Links,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        lease_until = self._manager.lease_until(record.id)
        job = job_of(record, links, process=self._description.name, lease_until=lease_until)
        content = job.model_dump_json(by_alias=True, exclude_none=True)
        return Response(content, status, dict(headers or {}), JSON_TYPE)


@dataclass(frozen=True)
class JobHeaders:
    """The headers of a request that concern jobs.

    Attributes:
        respond_async: Whether to respond before the call ends (`Prefer: respond-async`, RFC 7240).
        wait_s: Seconds that the caller waits (`Prefer: wait=5`); None without this preference.
        key: Idempotency key: one key is executed at most once.
        lease_s: Seconds without a request for the job after which it is dismissed.
    """

    respond_async: bool = False
    wait_s: float | None = None
    key: str | None = None
    lease_s: float | None = None


def parse_job_headers(headers: Mapping[str, str]) -> JobHeaders:
    """Parse the headers of a request; their names are lower case.

    >>> parse_job_headers({"prefer": "respond-async, wait=5", "idempotency-key": "tile-7"})
    JobHeaders(respond_async=True, wait_s=5.0, key='tile-7', lease_s=None)

    Raises:
        InvalidInput: the key is empty or too long, or the lease is not a positive number.
    """
    preferences = {each.name: each.value for each in reversed(items(headers.get("prefer", "")))}
    wait_s = _number(preferences.get("wait", ""))
    return JobHeaders(
        respond_async="respond-async" in preferences,
        wait_s=None if wait_s is None else min(wait_s, _LONGEST_WAIT_S),
        key=_key(headers.get(KEY_HEADER)),
        lease_s=_lease(headers.get(LEASE_HEADER)),
    )


def _key(text: str | None) -> str | None:
    if text is None:
        return None
    key = text.strip().removeprefix('"').removesuffix('"')
    if not 0 < len(key) <= _KEY_CHARS:
        raise InvalidInput(
            f"an Idempotency-Key must have 1 to {_KEY_CHARS} characters, not {len(key)}: "
            f"{shortened(key)}"
        )
    return key


def _lease(text: str | None) -> float | None:
    if text is None:
        return None
    lease_s = _number(text)
    if not lease_s or lease_s > LONGEST_LEASE_S:
        raise InvalidInput(
            f"X-Pesto-Lease must be a number of seconds above 0 and at most {LONGEST_LEASE_S}, not "
            f"{shortened(text)}"
        )
    return lease_s


def _number(text: str) -> float | None:
    try:
        number = float(text.strip().strip('"'))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _result_of(record: Record, part: str) -> tuple[int, Result]:
    """Return the number of a result, and the result.

    Raises:
        NotFound: the job has no such result; lists those that it has.
        Gone: a client has deleted it.
        PestoError: the job has no results yet, or not any more.
    """
    require_results(record)
    for number, result in enumerate(record.results):
        if result.part == part:
            if result.is_deleted:
                raise Gone(f"the result {part!r} of job {record.id} was deleted")
            return number, result
    known = ", ".join(each.part for each in record.results) or "none"
    raise NotFound(f"job {record.id} has no result {part!r}; its results are {known}")


def _lease_in(payload: Payload, description: Description) -> float | None:
    """Return `pesto.lease_s` of the body; a body without this word is not parsed.

    Raises:
        InvalidInput: the body is too large to parse here.
    """
    if b"lease_s" not in payload.body and "lease_s" not in payload.query.get(RESERVED, ""):
        return None
    if len(payload.body) > _PARSED_BYTES:
        # json holds the interpreter's lock: the event loop could not run while it parses this.
        raise InvalidInput(
            f"pesto.lease_s is read from bodies of up to {_PARSED_BYTES} bytes, this one has "
            f"{len(payload.body)}; set the lease in the header X-Pesto-Lease"
        )
    try:
        return read_payload(payload, description, Faults()).options.lease_s
    except PestoError:  # running the job reports what is wrong
        return None


def _json(
    document: Mapping[str, object] | str, *, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(json.dumps(document), headers=dict(headers or {}), media_type=JSON_TYPE)
