"""`POST /process`: a call let in, read, run, answered; nothing of it computes on the event loop."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import Request, Response  # noqa: TC002  # FastAPI reads them at run time

from pesto_runtime.client.multipart import media_type_of
from pesto_runtime.client.tracing import HEADER
from pesto_runtime.errors import Busy
from pesto_runtime.service.callers import headers_of, is_from_here
from pesto_runtime.service.jobs.asking import KEY_HEADER, LEASE_HEADER
from pesto_runtime.service.leaving import unless_gone
from pesto_runtime.service.payload import JSON_TYPE, Payload, require_media_type, transports
from pesto_runtime.service.runs import no_progress
from pesto_runtime.service.streaming import body_of, sent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.service.admission import Admission
    from pesto_runtime.service.jobs import JobEndpoints
    from pesto_runtime.service.limits import Limits
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
