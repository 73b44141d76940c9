"""The conversations about jobs: submit, ask, wait, fetch, cancel; PESTO 1.7.2's links included."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from pesto_runtime.client.answering import calling, decoded_image, read_answer
from pesto_runtime.client.multipart import FORM_TYPE
from pesto_runtime.client.sending import JSON, TIFF, accepted, request_of
from pesto_runtime.client.steps import Patience, Request, Wait, exchange, json_of, misbehaved
from pesto_runtime.contract import Job, bad_fields
from pesto_runtime.errors import (
    AlgorithmFailed,
    InvalidInput,
    NotReady,
    ServiceMisbehaved,
    error_from_problem,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, References
    from pesto_runtime.client.sending import OutgoingCall
    from pesto_runtime.client.steps import Reply, Steps
    from pesto_runtime.contract import Port

LONG_POLL_S = 20.0
"""Longest that one question about a job may wait for its answer."""
_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 2.0
_ID = re.compile(r"/jobs/(\w+)/status$")
_STATES: dict[str, Literal["running", "successful", "failed"]] = {
    "RUNNING": "running", "DONE": "successful", "FAILED": "failed"
}  # fmt: skip


@dataclass(frozen=True)
class JobSteps:
    """Conversations about the jobs of one service.

    Attributes:
        described: What it says of itself.
        where: Its address.
        patience: How often and how long it is asked again.
        long_poll_s: Longest that one question may wait for its answer.
    """

    described: Described
    where: str
    patience: Patience
    long_poll_s: float = LONG_POLL_S

    def performing(self, call: OutgoingCall, references: References) -> Steps[dict[str, object]]:
        """Perform a call to its end, also where the process answers with a job.

        Raises:
            PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        is_job = self.described.description.known.asynchronous
        return calling(
            [call],
            self.described,
            references,
            where=self.where,
            write=partial(request_of, call, self.described),
            perform=partial(self._through_a_job if is_job else self._answering, call),
        )

    def submitting(
        self, call: OutgoingCall, references: References, *, key: str, lease_s: float | None
    ) -> Steps[Job]:
        """Submit a call as a job; with a key that came before, the job that it stands for.

        Raises:
            KeyConflict: the key came before with another request.
            PestoError: what else the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        request = request_of(call, self.described, references)
        if self.described.is_plain_pesto:
            return self._linked((yield from self._exchange(request)))
        request = self._keyed(request, call, key)
        headers = {**request.headers, "Prefer": "respond-async"}
        if lease_s is not None:
            headers["X-Pesto-Lease"] = f"{lease_s:g}"
        reply = yield from self._exchange(replace(request, headers=headers))
        return self._job(reply)

    def asking(self, job_id: str, *, wait_s: float = 0) -> Steps[Job]:
        """Ask for a job as it is now, or once it is over; that renews its lease.

        Raises:
            NotFound: the service has no such job.
            PestoError: what else the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        if self.described.is_plain_pesto:
            reply = yield from self._exchange(Request("GET", f"/jobs/{job_id}/status"))
            return self._told(job_id, reply)
        headers = {"Prefer": f"wait={wait_s:g}"} if wait_s else {}
        return self._job((yield from self._exchange(Request("GET", f"/jobs/{job_id}", headers))))

    def waiting(self, job_id: str, *, timeout_s: float | None) -> Steps[Job]:
        """Ask for a job until it is over.

        Raises:
            NotReady: it is not over in time.
            PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        look_s = _FIRST_LOOK_S
        while True:
            began = time.monotonic()
            wait_s = min(max(deadline - began, 0.0), self.long_poll_s)
            job = yield from self.asking(job_id, wait_s=wait_s)
            if job.is_over:
                return job
            if time.monotonic() >= deadline:
                told = f"job {job_id} is {job.state} after {timeout_s:g} s"
                raise NotReady(f"{self.where}: {told}")
            if time.monotonic() - began < look_s:  # the service did not wait for us
                yield Wait(look_s)
                look_s = min(2 * look_s, _LONGEST_LOOK_S)

    def fetching(self, job_id: str, *, accept: str | None) -> Steps[dict[str, object]]:
        """Fetch what a job left: arrays (band, row, col), lists of them, JSON values, or hrefs.

        Raises:
            NotReady: it is not over.
            Gone: it was dismissed, or its results are no longer kept.
            PestoError: what it failed with, `Unreachable`, or `ServiceMisbehaved`.
        """
        _require_success((yield from self.asking(job_id)), self.where)
        path = f"/jobs/{job_id}/results"
        links = self._object((yield from self._exchange(Request("GET", path, {"Accept": JSON}))))
        outputs: dict[str, object] = {}
        for name, link in links.items():
            several: list[object] = []
            for each in link if isinstance(link, list) else [link]:
                _, is_here, part = str(each).partition(path + "/")
                request = Request("GET", f"{path}/{part}", {"Accept": f"{JSON}, */*;q=0.5"})
                if is_here:
                    reply = yield from self._exchange(request)
                    several.append(self._value(reply, name, accept))
                else:  # where the call had it written
                    several.append(each)
            outputs[name] = several if isinstance(link, list) else several[0]
        return outputs

    def cancelling(self, job_id: str) -> Steps[Job]:
        """Have a job stopped, and what it left forgotten.

        Raises:
            InvalidInput: a plain PESTO service cannot do that.
            PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        self._require_more_than_pesto("cancels no jobs")
        return self._job((yield from self._exchange(Request("DELETE", f"/jobs/{job_id}"))))

    def finding(self, key: str) -> Steps[Job | None]:
        """Find the job that a key stands for; None where it stands for none.

        Raises:
            InvalidInput: a plain PESTO service knows no keys.
            PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        self._require_more_than_pesto("knows no keys of jobs")
        reply = yield from self._exchange(Request("GET", "/jobs", {}, {"key": key}))
        for job_id in self._object(reply):
            return (yield from self.asking(job_id))
        return None

    def _answering(self, call: OutgoingCall, request: Request) -> Steps[dict[str, object]]:
        reply = yield from self._exchange(request)
        return read_answer(reply, call, self.described, where=self.where)

    def _through_a_job(self, call: OutgoingCall, request: Request) -> Steps[dict[str, object]]:
        is_plain = self.described.is_plain_pesto
        keyed = request if is_plain else self._keyed(request, call, new_key())
        job = self._linked((yield from self._exchange(keyed)))
        yield from self.waiting(job.id, timeout_s=None)
        return (yield from self.fetching(job.id, accept=call.accept))

    def _exchange(self, request: Request) -> Steps[Reply]:
        return exchange(request, self.where, self.patience)

    def _keyed(self, request: Request, call: OutgoingCall, key: str) -> Request:
        """A request under a key; images are kept with their georeference, and not in base64."""
        wanted = accepted(call, self.described)
        accept = wanted if wanted in (JSON, FORM_TYPE) else TIFF
        headers = {**request.headers, "Accept": accept, "Idempotency-Key": key}
        return replace(request, headers=headers)

    def _require_more_than_pesto(self, told: str) -> None:
        if self.described.is_plain_pesto:
            raise InvalidInput(f"{self.where} is a plain PESTO service; it {told}")

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
            return _plain_value(reply, port)
        if port is None:
            raise misbehaved(reply, self.where, f"for an output {name!r} that it does not have")
        return decoded_image(reply.content, port, self.where, is_kept_whole=accept == TIFF)

    def _job(self, reply: Reply) -> Job:
        try:
            return Job.model_validate(self._object(reply))
        except ValidationError as error:
            raise ServiceMisbehaved(
                f"{self.where} answered something that is not a job", fields=bad_fields(error)
            ) from error

    def _linked(self, reply: Reply) -> Job:
        """The job that PESTO's answer `{"link": …}` is about."""
        found = _ID.search(str(self._object(reply).get("link")))
        if found is None:
            raise misbehaved(reply, self.where, "not the link of a job")
        return Job(id=found[1], state="accepted")

    def _told(self, job_id: str, reply: Reply) -> Job:
        """A job as PESTO's status tells it."""
        document = self._object(reply)
        state = _STATES.get(str(document.get("status")))
        if state is None:
            raise misbehaved(reply, self.where, "not a status of a job")
        progress = document.get("progress")
        percent = progress if isinstance(progress, (int, float)) else 0
        return Job(id=job_id, state=state, progress=min(max(percent, 0), 100))


def new_key() -> str:
    """A key that nobody else has: a submission sent twice is one job."""
    return secrets.token_hex(16)


def _require_success(job: Job, where: str) -> None:
    """Do nothing where a job has results; its own error is told, not one of asking for them.

    Raises:
        NotReady: it is not over.
        PestoError: what it failed with, or that it was dismissed.
    """
    if not job.is_over:
        raise NotReady(f"{where}: job {job.id} is {job.state}, it has no results yet")
    if job.error is not None:
        status = job.error.get("status")
        raise error_from_problem(job.error, status=status if isinstance(status, int) else 500)
    if job.state != "successful":
        raise AlgorithmFailed(f"{where}: job {job.id} {job.state}")


def _plain_value(reply: Reply, port: Port | None) -> JsonValue:
    """A number or string as PESTO writes them."""
    text = reply.content.decode("utf-8", "replace")
    if port is not None and port.schema.get("type") == "string":
        return text
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value
