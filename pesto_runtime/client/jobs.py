"""Perform calls, and submit, wait for, fetch and cancel jobs, also those of PESTO 1.7.2.

The steps do no I/O: `client.py` and `async_client.py` run them.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from pesto_runtime.client.answering import decoded_image, perform_calls, read_answer
from pesto_runtime.client.multipart import FORM_TYPE
from pesto_runtime.client.sending import JSON, TIFF, accepted, request_of
from pesto_runtime.client.steps import (
    ExpectedCode,
    Patience,
    Request,
    Wait,
    exchange,
    json_of,
    misbehaved,
)
from pesto_runtime.contract import Job, bad_fields
from pesto_runtime.errors import (
    AlgorithmFailed,
    InvalidInput,
    NotReady,
    ServiceMisbehaved,
    error_from_problem,
)
from pesto_runtime.schema import typed_text

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, References
    from pesto_runtime.client.sending import OutgoingCall
    from pesto_runtime.client.steps import Reply, Steps

LONG_POLL_S = 20.0
"""Longest time for which the service may delay the response to one status request."""

_FIRST_POLL_S = 0.05
_LONGEST_POLL_S = 2.0
_ID = re.compile(r"/jobs/(\w+)/status$")
_STATES: dict[str, Literal["running", "successful", "failed"]] = {
    "RUNNING": "running", "DONE": "successful", "FAILED": "failed"
}  # fmt: skip


@dataclass(frozen=True)
class JobSteps:
    """The requests of calls and jobs to one service, as steps.

    Attributes:
        described: Its description.
        where: Its address.
        patience: Retries of each request.
        long_poll_s: Longest time for which it may delay the response to one status request.
        expected: The code whose responses are accepted; None for any.
    """

    described: Described
    where: str
    patience: Patience
    long_poll_s: float = LONG_POLL_S
    expected: ExpectedCode | None = None

    def process(self, call: OutgoingCall, references: References) -> Steps[dict[str, object]]:
        """Perform a call until its outputs are there, also if the process runs calls as jobs.

        Raises:
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        is_job = self.described.description.known.asynchronous
        return perform_calls(
            [call],
            self.described,
            references,
            where=self.where,
            write=partial(request_of, call, self.described),
            perform=partial(self._perform_job if is_job else self._perform_call, call),
        )

    def submit(
        self, call: OutgoingCall, references: References, *, key: str, lease_s: float | None
    ) -> Steps[Job]:
        """Submit a call as a job; return the existing job of the key, if there is one.

        Raises:
            KeyConflict: the key belongs to another request.
            PestoError: another error of the service, `Unreachable`, or `ServiceMisbehaved`.
        """
        request = request_of(call, self.described, references)
        if self.described.is_plain_pesto:
            return self._linked((yield from self.exchange(request)))
        request = self._keyed(request, call, key)
        headers = {**request.headers, "Prefer": "respond-async"}
        if lease_s is not None:
            headers["X-Pesto-Lease"] = f"{lease_s:g}"
        reply = yield from self.exchange(replace(request, headers=headers))
        return self._job(reply)

    def status(self, job_id: str, *, wait_s: float = 0) -> Steps[Job]:
        """Request the state of a job, which renews its lease.

        Args:
            job_id: Id of the job.
            wait_s: Time for which the service may delay its response until the job is over.

        Raises:
            NotFound: the service has no such job.
            PestoError: another error of the service, `Unreachable`, or `ServiceMisbehaved`.
        """
        if self.described.is_plain_pesto:
            reply = yield from self.exchange(Request("GET", f"/jobs/{job_id}/status"))
            return self._plain_job(job_id, reply)
        headers = {"Prefer": f"wait={wait_s:g}"} if wait_s else {}
        return self._job((yield from self.exchange(Request("GET", f"/jobs/{job_id}", headers))))

    def wait(self, job_id: str, *, timeout_s: float | None) -> Steps[Job]:
        """Request the state of a job until it is over.

        Raises:
            NotReady: it is not over in time.
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        poll_s = _FIRST_POLL_S
        while True:
            began = time.monotonic()
            wait_s = min(max(deadline - began, 0.0), self.long_poll_s)
            job = yield from self.status(job_id, wait_s=wait_s)
            if job.is_over:
                return job
            if time.monotonic() >= deadline:
                raise NotReady(f"{self.where}: job {job_id} is {job.state} after {timeout_s:g} s")
            if time.monotonic() - began < poll_s:  # the service has not delayed its response
                yield Wait(poll_s)
                poll_s = min(2 * poll_s, _LONGEST_POLL_S)

    def results(self, job_id: str, *, accept: str | None) -> Steps[dict[str, object]]:
        """Fetch the outputs of a job: arrays (band, row, col), lists of them, values or hrefs.

        Raises:
            NotReady: it is not over.
            Gone: it was dismissed, or its results are no longer stored.
            PestoError: the error of the job, `Unreachable`, or `ServiceMisbehaved`.
        """
        _require_success((yield from self.status(job_id)), self.where)
        path = f"/jobs/{job_id}/results"
        links = self._object((yield from self.exchange(Request("GET", path, {"Accept": JSON}))))
        outputs: dict[str, object] = {}
        for name, link in links.items():
            several: list[object] = []
            for each in link if isinstance(link, list) else [link]:
                # The address in a link may be that behind a proxy: only its path is used.
                _, is_result, part = str(each).partition(path + "/")
                request = Request("GET", f"{path}/{part}", {"Accept": f"{JSON}, */*;q=0.5"})
                if is_result:
                    reply = yield from self.exchange(request)
                    several.append(self._value(reply, name, accept))
                else:  # the href to which the service has written the output
                    several.append(each)
            outputs[name] = several if isinstance(link, list) else several[0]
        return outputs

    def cancel(self, job_id: str) -> Steps[Job]:
        """Stop a job, and delete its results.

        Raises:
            InvalidInput: a plain PESTO service cannot do that.
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        self._require_not_plain("cannot cancel jobs")
        return self._job((yield from self.exchange(Request("DELETE", f"/jobs/{job_id}"))))

    def find(self, key: str) -> Steps[Job | None]:
        """Find the job of a key; None if no job has it.

        Raises:
            InvalidInput: a plain PESTO service has no keys.
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        self._require_not_plain("has no keys of jobs")
        reply = yield from self.exchange(Request("GET", "/jobs", {}, {"key": key}))
        for job_id in self._object(reply):
            return (yield from self.status(job_id))
        return None

    def version(self) -> Steps[JsonValue]:
        """Request the version document.

        Raises:
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        request = Request("GET", "/version", {"Accept": JSON})
        return json_of((yield from self.exchange(request)), self.where)

    def exchange(self, request: Request) -> Steps[Reply]:
        """Send a request of a call or a job; return the successful reply.

        Raises:
            ProcessChanged: the response is not of the expected code.
            PestoError: the error that the service returned, or `Unreachable`.
        """
        return exchange(request, self.where, self.patience, self.expected)

    def _perform_call(self, call: OutgoingCall, request: Request) -> Steps[dict[str, object]]:
        reply = yield from self.exchange(request)
        return read_answer(reply, call, self.described, where=self.where)

    def _perform_job(self, call: OutgoingCall, request: Request) -> Steps[dict[str, object]]:
        is_plain = self.described.is_plain_pesto
        keyed = request if is_plain else self._keyed(request, call, new_key())
        job = self._linked((yield from self.exchange(keyed)))
        yield from self.wait(job.id, timeout_s=None)
        return (yield from self.results(job.id, accept=call.accept))

    def _keyed(self, request: Request, call: OutgoingCall, key: str) -> Request:
        """Return a request with a key; images are stored with their georeference, not in base64."""
        wanted = accepted(call, self.described)
        accept = wanted if wanted in (JSON, FORM_TYPE) else TIFF
        headers = {**request.headers, "Accept": accept, "Idempotency-Key": key}
        return replace(request, headers=headers)

    def _require_not_plain(self, limitation: str) -> None:
        if self.described.is_plain_pesto:
            raise InvalidInput(f"{self.where} is a plain PESTO service; it {limitation}")

    def _object(self, reply: Reply) -> dict[str, JsonValue]:
        document = json_of(reply, self.where)
        if not isinstance(document, dict):
            raise misbehaved(reply, self.where, "not a JSON object")
        return document

    def _value(self, reply: Reply, name: str, accept: str | None) -> object:
        port = self.described.description.output(name)
        if reply.media_type == JSON:
            return json_of(reply, self.where)
        if reply.media_type == "text/plain":
            # A number or a string that PESTO has written as plain text.
            schema = self.described.description.schema_of(port) if port else {}
            return typed_text(schema, reply.content.decode(errors="replace"))
        if port is None:
            raise misbehaved(reply, self.where, f"for an output {name!r} that it does not have")
        return decoded_image(reply.content, port, self.where, with_georeference=accept == TIFF)

    def _job(self, reply: Reply) -> Job:
        try:
            return Job.model_validate(self._object(reply))
        except ValidationError as error:
            raise ServiceMisbehaved(
                f"{self.where} returned a document that is not a job", fields=bad_fields(error)
            ) from error

    def _linked(self, reply: Reply) -> Job:
        """Return the job of PESTO's response `{"link": …}`."""
        found = _ID.search(str(self._object(reply).get("link")))
        if found is None:
            raise misbehaved(reply, self.where, "not the link of a job")
        return Job(id=found[1], state="accepted")

    def _plain_job(self, job_id: str, reply: Reply) -> Job:
        """Return the job of PESTO's response `{"status": …, "progress": …}`."""
        document = self._object(reply)
        state = _STATES.get(str(document.get("status")))
        if state is None:
            raise misbehaved(reply, self.where, "not a status of a job")
        progress = document.get("progress")
        percent = progress if isinstance(progress, (int, float)) else 0
        return Job(id=job_id, state=state, progress=min(max(percent, 0), 100))


def new_key() -> str:
    """Return a new random key: a submission that is sent twice with it is one job."""
    return secrets.token_hex(16)


def _require_success(job: Job, where: str) -> None:
    """Check that a job has results.

    Raises:
        NotReady: it is not over.
        PestoError: its own error, or it was dismissed.
    """
    if not job.is_over:
        raise NotReady(f"{where}: job {job.id} is {job.state}, it has no results yet")
    if job.error is not None:
        status = job.error.get("status")
        raise error_from_problem(job.error, status=status if isinstance(status, int) else 500)
    if job.state != "successful":
        raise AlgorithmFailed(f"{where}: job {job.id} {job.state}")
