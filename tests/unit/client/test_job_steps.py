"""Jobs of a plain PESTO service, and of services that misbehave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

import pytest

from pesto_runtime.client.describing import Described, References
from pesto_runtime.client.jobs import JobSteps
from pesto_runtime.client.sending import OutgoingCall
from pesto_runtime.client.steps import Patience, Reply, Request, Wait, advance
from pesto_runtime.contract import Description
from pesto_runtime.errors import (
    AlgorithmFailed,
    InvalidInput,
    NotReady,
    PestoError,
    ServiceMisbehaved,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.client.steps import Outcome, Steps

T = TypeVar("T")

WHERE = "http://host/api/v1"
DESCRIPTION = Description.parse(
    {
        "name": "zoo", "version": "1", "asynchronous": True,
        "input": {"type": "object", "properties": {"x": {"type": "number"}}},
        "output": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "number": {"type": "number"}},
        },
    }
)  # fmt: skip
PLAIN = JobSteps(Described(DESCRIPTION, (), "zoo@1", "d"), WHERE, Patience(retries=1))
OURS = JobSteps(
    Described(DESCRIPTION, ("application/json",), "zoo@1", "d"), WHERE, Patience(retries=1)
)


def reply(document: object, status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(status, {"content-type": "application/json"}, json.dumps(document).encode())


def text(content: str) -> Reply:
    """A text reply."""
    return Reply(200, {"content-type": "text/plain; charset=utf-8"}, content.encode())


def driven(steps: Steps[T], outcomes: Sequence[Outcome]) -> tuple[T | None, list[Request]]:
    """Run steps with these outcomes; return the result and the requests."""
    remaining, requests = iter(outcomes), []
    step, result = advance(steps, None)
    while step is not None:
        if isinstance(step, Wait):
            step, result = advance(steps, None)
        else:
            assert isinstance(step, Request)
            requests.append(step)
            step, result = advance(steps, next(remaining))
    return result, requests


def status(state: str, progress: int = 0) -> Reply:
    """A status response of PESTO."""
    return reply({"status": state, "progress": progress})


def link(path: str) -> str:
    """A link with the service's own address, which differs from that of the client."""
    return f"http://inside:8080/api/v1{path}"


def test_a_plain_pesto_service_has_jobs_too() -> None:
    """Its link is followed, its states are translated, its texts get the types of the schema."""
    linked = reply({"link": link("/jobs/j1/status")})
    references = References(WHERE, PLAIN.described)
    submitting = PLAIN.submit(OutgoingCall({"x": 1}), references, key="k", lease_s=None)
    job, (request,) = driven(submitting, [linked])
    assert job is not None
    assert (job.id, "Idempotency-Key" in request.headers) == ("j1", False)
    done, requests = driven(
        PLAIN.wait("j1", timeout_s=None), [status("RUNNING", 40), status("DONE", 100)]
    )
    assert done is not None
    assert (done.state, done.progress) == ("successful", 100)
    assert [each.path for each in requests] == ["/jobs/j1/status"] * 2
    links = reply({name: link(f"/jobs/j1/results/{name}") for name in ("text", "number")})
    outputs, requests = driven(
        PLAIN.results("j1", accept=None), [status("DONE"), links, text("7"), text("7.5")]
    )
    assert outputs == {"text": "7", "number": 7.5}
    assert requests[-1].path == "/jobs/j1/results/number"


def test_an_operation_that_plain_pesto_does_not_have_is_an_error_of_the_client() -> None:
    """No request is sent: the response would be a 404 without an explanation."""
    for steps in (PLAIN.cancel("j1"), PLAIN.find("k")):
        with pytest.raises(InvalidInput, match="plain PESTO service"):
            driven(steps, [])


def test_a_lost_submission_is_sent_again_under_the_same_key() -> None:
    """It is one job, whether the first request arrived or not."""
    accepted = reply({"id": "j1", "state": "accepted", "news": "of a later version"}, 201)
    references = References(WHERE, OURS.described)
    steps = OURS.submit(OutgoingCall({"x": 1}), references, key="k", lease_s=2.5)
    job, requests = driven(steps, [Unreachable("gone"), accepted])
    assert job is not None
    assert job.id == "j1"
    assert requests[0] == requests[1]
    names = ("Idempotency-Key", "X-Pesto-Lease", "Prefer")
    assert [requests[0].headers[name] for name in names] == ["k", "2.5", "respond-async"]


def test_the_error_of_a_failed_job_is_raised_without_a_retry() -> None:
    """Even a retryable error: the job is over, and a second request cannot change that."""
    error = {"type": "urn:pesto:error:busy", "detail": "full", "status": 503, "retryable": True}
    failed = reply({"id": "j1", "state": "failed", "error": error})
    with pytest.raises(PestoError, match="full"):
        driven(OURS.results("j1", accept=None), [failed])
    with pytest.raises(AlgorithmFailed):
        driven(PLAIN.results("j1", accept=None), [status("FAILED")])
    with pytest.raises(NotReady):
        driven(PLAIN.results("j1", accept=None), [status("RUNNING")])


@pytest.mark.parametrize(
    "response",
    [reply([]), reply({"id": "j1"}), reply({"id": "j1", "state": "lost"}), text("hello")],
)
def test_a_response_that_is_not_a_job_is_misbehaviour(response: Reply) -> None:
    """The message has the address of the service."""
    with pytest.raises(ServiceMisbehaved, match=WHERE):
        driven(OURS.status("j1"), [response])
    with pytest.raises(ServiceMisbehaved, match=WHERE):
        driven(PLAIN.status("j1"), [response])
    references = References(WHERE, OURS.described)
    with pytest.raises(ServiceMisbehaved, match=WHERE):
        driven(OURS.process(OutgoingCall({"x": 1}), references), [response])
