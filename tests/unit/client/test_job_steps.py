"""Conversations about jobs with a plain PESTO service, and with services that misbehave."""

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
    """A JSON answer."""
    return Reply(status, {"content-type": "application/json"}, json.dumps(document).encode())


def text(content: str) -> Reply:
    """A text answer."""
    return Reply(200, {"content-type": "text/plain; charset=utf-8"}, content.encode())


def driven(steps: Steps[T], outcomes: Sequence[Outcome]) -> tuple[T | None, list[Request]]:
    """Play a service that gives these outcomes; the result, and what was asked."""
    told, asked = iter(outcomes), []
    step, result = advance(steps, None)
    while step is not None:
        if isinstance(step, Wait):
            step, result = advance(steps, None)
        else:
            assert isinstance(step, Request)
            asked.append(step)
            step, result = advance(steps, next(told))
    return result, asked


def status(state: str, progress: int = 0) -> Reply:
    """PESTO's status."""
    return reply({"status": state, "progress": progress})


def link(path: str) -> str:
    """A link as the service has it, behind another address."""
    return f"http://inside:8080/api/v1{path}"


def test_a_plain_pesto_service_has_jobs_too() -> None:
    """Its link is followed, its words are read, and its texts become what their schema says."""
    linked = reply({"link": link("/jobs/j1/status")})
    references = References(WHERE, PLAIN.described)
    submitting = PLAIN.submitting(OutgoingCall({"x": 1}), references, key="k", lease_s=None)
    job, (asked,) = driven(submitting, [linked])
    assert job is not None
    assert (job.id, "Idempotency-Key" in asked.headers) == ("j1", False)
    done, asked_for = driven(
        PLAIN.waiting("j1", timeout_s=None), [status("RUNNING", 40), status("DONE", 100)]
    )
    assert done is not None
    assert (done.state, done.progress) == ("successful", 100)
    assert [each.path for each in asked_for] == ["/jobs/j1/status"] * 2
    links = reply({name: link(f"/jobs/j1/results/{name}") for name in ("text", "number")})
    outputs, asked_for = driven(
        PLAIN.fetching("j1", accept=None), [status("DONE"), links, text("7"), text("7.5")]
    )
    assert outputs == {"text": "7", "number": 7.5}
    assert asked_for[-1].path == "/jobs/j1/results/number"


def test_what_plain_pesto_cannot_do_is_refused_here() -> None:
    """Not tried: its answer would be a 404 that says nothing."""
    for steps in (PLAIN.cancelling("j1"), PLAIN.finding("k")):
        with pytest.raises(InvalidInput, match="plain PESTO service"):
            driven(steps, [])


def test_a_lost_submission_is_sent_again_under_the_same_key() -> None:
    """So that it is one job, whether the first one arrived or not."""
    accepted = reply({"id": "j1", "state": "accepted", "news": "of a later version"}, 201)
    references = References(WHERE, OURS.described)
    steps = OURS.submitting(OutgoingCall({"x": 1}), references, key="k", lease_s=2.5)
    job, asked = driven(steps, [Unreachable("gone"), accepted])
    assert job is not None
    assert job.id == "j1"
    assert asked[0] == asked[1]
    assert {asked[0].headers[name] for name in ("Idempotency-Key", "X-Pesto-Lease", "Prefer")} == {
        "k", "2.5", "respond-async",
    }  # fmt: skip


def test_a_failed_job_is_told_once_whatever_it_failed_with() -> None:
    """A job that failed for now is over: asking for its results again does not help."""
    error = {"type": "urn:pesto:error:busy", "detail": "full", "status": 503, "retryable": True}
    failed = reply({"id": "j1", "state": "failed", "error": error})
    with pytest.raises(PestoError, match="full"):
        driven(OURS.fetching("j1", accept=None), [failed])
    with pytest.raises(AlgorithmFailed):
        driven(PLAIN.fetching("j1", accept=None), [status("FAILED")])
    with pytest.raises(NotReady):
        driven(PLAIN.fetching("j1", accept=None), [status("RUNNING")])


@pytest.mark.parametrize(
    "answer", [reply([]), reply({"id": "j1"}), reply({"id": "j1", "state": "lost"}), text("hello")]
)
def test_what_is_no_job_is_a_service_that_misbehaves(answer: Reply) -> None:
    """Named with its address."""
    with pytest.raises(ServiceMisbehaved, match=WHERE):
        driven(OURS.asking("j1"), [answer])
    with pytest.raises(ServiceMisbehaved, match=WHERE):
        driven(PLAIN.asking("j1"), [answer])
    references = References(WHERE, OURS.described)
    with pytest.raises(ServiceMisbehaved, match=WHERE):
        driven(OURS.performing(OutgoingCall({"x": 1}), references), [answer])
