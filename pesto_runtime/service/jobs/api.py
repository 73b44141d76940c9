"""Endpoints of jobs: PESTO's, and those of OGC API Processes beside them."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request, Response
from fastapi.responses import FileResponse

from pesto_runtime.errors import Gone, InvalidInput, NotFound, PestoError, shortened
from pesto_runtime.service.execution import is_batch
from pesto_runtime.service.http import PieceWise
from pesto_runtime.service.jobs.results import JobRequest, shown
from pesto_runtime.service.jobs.states import Deleted
from pesto_runtime.service.jobs.status_bodies import (
    Links,
    error_of,
    job_of,
    pesto_status,
    require_results,
)
from pesto_runtime.service.problems import Faults
from pesto_runtime.service.request import JSON_TYPE, RESERVED, read_payload
from pesto_runtime.service.static_responses import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.service.jobs.manager import JobManager
    from pesto_runtime.service.jobs.states import Record, Result
    from pesto_runtime.service.request import Payload


KEY_HEADER = "idempotency-key"
LEASE_HEADER = "x-pesto-lease"
_KEY_CHARS = 255
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class JobHeaders:
    """What a request asks of jobs.

    Attributes:
        at_once: Whether to answer before the work is done (`Prefer: respond-async`).
        wait_s: Seconds that the caller would wait (`Prefer: wait=5`); None where it does not say.
        key: Never two executions of one key.
        lease_s: Seconds without anybody asking after which the job is dismissed.
    """

    at_once: bool = False
    wait_s: float | None = None
    key: str | None = None
    lease_s: float | None = None


def asked_of(headers: Mapping[str, str]) -> JobHeaders:
    """Read the headers of a request; their names are lower case.

    >>> asked_of({"prefer": "respond-async, wait=5", "idempotency-key": "tile-7"})
    JobHeaders(at_once=True, wait_s=5.0, key='tile-7', lease_s=None)

    Raises:
        InvalidInput: a key that is empty or too long, or a lease that is no positive number.
    """
    wishes = [each.strip().lower() for each in headers.get("prefer", "").split(",")]
    waits = [_number(each.partition("=")[2]) for each in wishes if each.startswith("wait=")]
    return JobHeaders(
        at_once="respond-async" in wishes,
        wait_s=min(waits[0], _LONGEST_WAIT_S) if waits and waits[0] is not None else None,
        key=_key(headers.get(KEY_HEADER)),
        lease_s=_lease(headers.get(LEASE_HEADER)),
    )


def _key(text: str | None) -> str | None:
    if text is None:
        return None
    key = text.strip().removeprefix('"').removesuffix('"')
    if not 0 < len(key) <= _KEY_CHARS:
        raise InvalidInput(
            f"an Idempotency-Key has 1 to {_KEY_CHARS} characters, not {len(key)}: {shortened(key)}"
        )
    return key


def _lease(text: str | None) -> float | None:
    if text is None:
        return None
    lease_s = _number(text)
    if not lease_s:
        raise InvalidInput(f"X-Pesto-Lease is a number of seconds above 0, not {shortened(text)}")
    return lease_s


def _number(text: str) -> float | None:
    try:
        number = float(text.strip().strip('"'))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


_JOB = f"{PREFIX}/jobs/{{job_id}}"
_LOOKED_INTO_BYTES = 8 << 20
_RESULT = f"{_JOB}/results/{{part:path}}"


class JobEndpoints:
    """The endpoints of one service's jobs."""

    def __init__(self, desk: JobManager, description: Description, *, grace_s: float) -> None:
        """Take the desk that keeps the jobs of this process.

        Args:
            desk: Where jobs are.
            description: Of the process.
            grace_s: Seconds that an asynchronous process waits before it answers a link.
        """
        self._desk = desk
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
            app.add_api_route(path, endpoint, methods=[method], response_class=Response)

    def takes(self, headers: Mapping[str, str]) -> bool:
        """Whether a call with these headers becomes a job.

        Raises:
            InvalidInput: a header of jobs is wrong.
        """
        asked = asked_of(headers)
        return asked.at_once or asked.key is not None or self._description.known.asynchronous

    async def accept(self, request: Request, payload: Payload, *, from_here: bool) -> Record:
        """Make a call a job; it is kept once this returns.

        Raises:
            InvalidInput: it is a batch.
            PestoError: it cannot be kept.
        """
        if is_batch(payload):
            raise InvalidInput("a batch is answered at once; submit its payloads one by one")
        asked = asked_of(request.headers)
        lease_s = asked.lease_s or await asyncio.to_thread(_lease_in, payload, self._description)
        return await self._desk.submit(JobRequest(payload, from_here, asked.key, lease_s))

    async def respond(self, request: Request, record: Record) -> Response:
        """Answer who has submitted a job: at once, after a grace, or once it is over.

        Raises:
            PestoError: it is over already and has failed.
        """
        asked, links = asked_of(request.headers), Links.below(str(request.base_url))
        if asked.at_once:
            if asked.wait_s:
                record = await self._desk.wait(record.id, asked.wait_s)
            headers = {"Preference-Applied": "respond-async", "Location": links.job(record.id)}
            return self._document(record, links, status=201, headers=headers)
        if not self._description.known.asynchronous:
            return await self._answer(await self._desk.wait(record.id, None))
        grace_s = self._grace_s if asked.wait_s is None else asked.wait_s
        record = await self._desk.wait(record.id, grace_s)
        if record.is_over and record.state != "successful":
            raise error_of(record)
        return _json({"link": links.status(record.id)}, headers={"Location": links.job(record.id)})

    async def jobs(self, request: Request, key: str | None = None) -> Response:
        """Answer the links of all jobs, or of the one that `key` stands for."""
        links = Links.below(str(request.base_url))
        ids = await self._desk.kept(key)
        document: dict[str, JsonValue] = {each: {"link": links.status(each)} for each in ids}
        return _json(document)

    async def job(self, request: Request, job_id: str) -> Response:
        """Answer all that is known of a job; `Prefer: wait=SECONDS` waits for its end."""
        asked = asked_of(request.headers)
        record = await self._waited(job_id, asked)
        headers = {"Preference-Applied": f"wait={asked.wait_s:g}"} if asked.wait_s else {}
        return self._document(record, Links.below(str(request.base_url)), headers=headers)

    async def status(self, request: Request, job_id: str) -> Response:
        """Answer RUNNING, DONE or FAILED, as PESTO does."""
        record = await self._waited(job_id, asked_of(request.headers))
        return _json(pesto_status(record, Links.below(str(request.base_url))))

    async def log(self, job_id: str) -> Response:
        """Answer the last lines that the algorithm wrote."""
        record = await self._desk.find(job_id)
        return Response("".join(f"{line}\n" for line in record.log), media_type="text/plain")

    async def dismiss(self, request: Request, job_id: str) -> Response:
        """Stop a job where it runs, and forget what it left."""
        record = await self._desk.dismiss(job_id, "its owner deleted it")
        return self._document(record, Links.below(str(request.base_url)))

    async def results(self, request: Request, job_id: str) -> Response:
        """Answer the links of what a job left."""
        record = await self._desk.find(job_id)
        require_results(record)
        return _json(Links.below(str(request.base_url)).results(record))

    async def result(self, request: Request, job_id: str, part: str) -> Response:
        """Answer one thing that a job left; numbers and strings as text unless asked for JSON."""
        record = await self._desk.find(job_id)
        number, result = _found(record, part)
        if result.href is not None:
            return _json(result.href)
        path = self._desk.folder.result_path(job_id, number)
        if result.media_type != JSON_TYPE:
            if not path.exists():
                raise Gone(f"results of job {job_id} were deleted just now")
            return FileResponse(path, media_type=result.media_type)
        data = await asyncio.to_thread(self._desk.folder.read_result, job_id, number)
        as_json = JSON_TYPE in request.headers.get("accept", "")
        content, media_type = shown(data, result, as_json=as_json)
        return Response(content, media_type=media_type)

    async def delete_result(self, job_id: str, part: str) -> Response:
        """Delete one thing that a job left, or once more; the job stays what it is."""
        record = await self._desk.find(job_id)
        if any(each.part == part and each.is_deleted for each in record.results):
            return _json({})
        number, result = _found(record, part)
        await self._desk.change(job_id, Deleted(result.part))
        await asyncio.to_thread(self._desk.folder.delete_result, job_id, number)
        return _json({})

    async def _waited(self, job_id: str, asked: JobHeaders) -> Record:
        record = await self._desk.find(job_id)
        if not asked.wait_s or record.is_over:
            return record
        wait_s = asked.wait_s if record.lease_s is None else min(asked.wait_s, record.lease_s / 2)
        return await self._desk.wait(job_id, wait_s)

    async def _answer(self, record: Record) -> Response:
        """The answer of a call that became a job only because it has a key."""
        if not record.is_over:
            raise error_of(record)
        require_results(record)
        if any(each.is_deleted for each in record.results):
            raise Gone(f"results of job {record.id}, which this key stands for, were deleted")
        answer = await self._desk.answer(record)
        return PieceWise(answer.content, media_type=answer.media_type)

    def _document(
        self,
        record: Record,
        links: Links,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        lease_until = self._desk.lease_until(record.id)
        job = job_of(record, links, process=self._description.name, lease_until=lease_until)
        content = job.model_dump_json(by_alias=True, exclude_none=True)
        return Response(content, status, dict(headers or {}), JSON_TYPE)


def _found(record: Record, part: str) -> tuple[int, Result]:
    """A result and its number.

    Raises:
        NotFound: the job left no such thing; says what it left.
        Gone: its owner has deleted it.
        PestoError: the job has no results, yet or any more.
    """
    require_results(record)
    for number, result in enumerate(record.results):
        if result.part == part:
            if result.is_deleted:
                raise Gone(f"the result {part!r} of job {record.id} was deleted")
            return number, result
    known = ", ".join(each.part for each in record.results) or "nothing"
    raise NotFound(f"job {record.id} left no {part!r}; it left {known}")


def _lease_in(payload: Payload, description: Description) -> float | None:
    """The lease in the request itself; its body is looked into only where it speaks of one.

    Raises:
        InvalidInput: that would stop the service from answering others meanwhile.
    """
    if b"lease_s" not in payload.body and "lease_s" not in payload.query.get(RESERVED, ""):
        return None
    if len(payload.body) > _LOOKED_INTO_BYTES:
        raise InvalidInput(
            f"pesto.lease_s is read of bodies up to {_LOOKED_INTO_BYTES} bytes, this one has "
            f"{len(payload.body)}; name the lease in the header X-Pesto-Lease"
        )
    try:
        return read_payload(payload, description, Faults()).options.lease_s
    except PestoError:  # running it says what is wrong with the request
        return None


def _json(
    document: Mapping[str, object] | str, *, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(json.dumps(document), headers=dict(headers or {}), media_type=JSON_TYPE)
