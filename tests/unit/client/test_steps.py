"""The conversation with a service, driven by hand: when it goes on, waits, and gives up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.client.steps import Patience, Reply, Request, Wait, advance, exchange
from pesto_runtime.client.transport import service_url
from pesto_runtime.errors import (
    AlgorithmFailed,
    Busy,
    HrefRefused,
    InvalidInput,
    PestoError,
    ServiceMisbehaved,
    TooLarge,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.client.steps import Outcome

WHERE = "http://host/api/v1"
OK = Reply(200, {}, b"{}")
BUSY = Reply(429, {}, b'{"detail": "a processing is already running"}')
LOST = Unreachable("gone")


def driven(
    outcomes: Sequence[Outcome], patience: Patience | None = None
) -> tuple[Reply | None, list[float], int]:
    """Play a service that gives these outcomes; the result, the waits, how often it was asked."""
    steps = exchange(Request("GET", "/x"), WHERE, patience or Patience(retries=2))
    told, waits, asked = iter(outcomes), [], 0
    step, result = advance(steps, None)
    while step is not None:
        if isinstance(step, Wait):
            waits.append(step.seconds)
            step, result = advance(steps, None)
        else:
            asked += 1
            step, result = advance(steps, next(told))
    return result, waits, asked


def test_a_good_answer_is_asked_for_once() -> None:
    """No wait, no second request."""
    assert driven([OK]) == (OK, [], 1)


def test_a_busy_service_slows_a_call_and_never_fails_it() -> None:
    """429 without Retry-After: from 0.1 s doubling to 5 s, each in its upper half."""
    result, waits, _ = driven([*[BUSY] * 12, OK])
    assert result == OK
    full = [min(5.0, 0.1 * 2**n) for n in range(12)]
    assert all(f / 2 <= wait <= f for wait, f in zip(waits, full, strict=True))


def test_patience_has_an_end_that_is_told() -> None:
    """The control of patience: a service that stays busy is given up."""
    with pytest.raises(Busy, match=r"already running; given up, 3\.0 s"):
        driven([BUSY] * 100, Patience(patience_s=3.0))


def test_retry_after_is_honoured() -> None:
    """What the service asks for is waited, not our own backing off."""
    busy = Reply(503, {"retry-after": "7"}, b'{"detail": "full", "retryable": true}')
    assert driven([busy, OK]) == (OK, [7.0], 2)


def test_a_retry_after_beyond_our_patience_fails_at_once() -> None:
    """Not after the wait, which would be an hour for nothing."""
    busy = Reply(503, {"retry-after": "3600"}, b'{"detail": "full", "retryable": true}')
    steps = exchange(Request("GET", "/x"), WHERE, Patience())
    advance(steps, None)
    with pytest.raises(Busy, match="given up"):
        advance(steps, busy)


def test_no_answer_is_tried_again_a_bounded_number_of_times() -> None:
    """Two retries are three requests; the last error is the one that is raised."""
    assert driven([LOST, LOST, OK])[2] == 3
    with pytest.raises(Unreachable, match="gone"):
        driven([LOST] * 3)


@pytest.mark.parametrize(
    ("status", "problem", "kind", "retryable"),
    [
        (422, {"type": "urn:pesto:error:href-refused", "detail": "no"}, HrefRefused, False),
        (422, {"detail": "bad"}, InvalidInput, False),
        (413, {"detail": "big"}, TooLarge, False),
        (500, {"detail": "algorithm says no"}, AlgorithmFailed, False),
        (500, {"detail": "again", "retryable": True}, AlgorithmFailed, True),
        (503, {"detail": "never", "retryable": False}, Busy, False),
    ],
)
def test_a_problem_is_the_error_that_it_was(
    status: int, problem: dict[str, object], kind: type[PestoError], retryable: bool
) -> None:
    """Its type decides, then its status; `retryable` overrules both."""
    reply = Reply(status, {"content-type": "application/json"}, json.dumps(problem).encode())
    with pytest.raises(kind, match=f"{WHERE}: {problem['detail']}") as caught:
        driven([reply] * 3, Patience(retries=2, patience_s=0))
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("status", [302, 401, 404, 501])
def test_an_answer_that_is_no_problem_document_is_misbehaviour(status: int) -> None:
    """A web server that is no PESTO service is named, with how its answer begins."""
    with pytest.raises(ServiceMisbehaved, match=f"HTTP {status} text/html.*<html>"):
        driven([Reply(status, {"content-type": "text/html; charset=x"}, b"<html>hello")])


def test_a_proxy_in_front_that_says_bad_gateway_is_tried_again() -> None:
    """502 without a document is no answer of the service."""
    assert driven([Reply(502, {}, b"<html>bad gateway"), OK])[2] == 2


@pytest.mark.parametrize(
    "url",
    ["http://h:1", "http://h:1/", "http://h:1/api/v1", "http://h:1/api/v1/", "http://h:1/?a#b"],
)
def test_a_service_is_named_with_or_without_its_prefix(url: str) -> None:
    """All of them are one service."""
    assert service_url(url) == "http://h:1/api/v1"


@pytest.mark.parametrize("url", ["h:1", "ftp://h", "", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidInput, match="not the URL of a service"):
        service_url(url)
