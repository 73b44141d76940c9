"""The steps of a request, run by hand: when it is repeated, when it waits, when it fails."""

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
    """Run a request with these outcomes; return result, waits and the number of requests."""
    steps = exchange(Request("GET", "/x"), WHERE, patience or Patience(retries=2))
    remaining, waits, requests = iter(outcomes), [], 0
    step, result = advance(steps, None)
    while step is not None:
        if isinstance(step, Wait):
            waits.append(step.seconds)
            step, result = advance(steps, None)
        else:
            requests += 1
            step, result = advance(steps, next(remaining))
    return result, waits, requests


def test_a_request_with_a_successful_reply_is_sent_once() -> None:
    """There is no wait, and no second request."""
    assert driven([OK]) == (OK, [], 1)


def test_a_busy_service_slows_a_call_and_never_fails_it() -> None:
    """429 without Retry-After: from 0.1 s doubling to 5 s, each in its upper half."""
    result, waits, _ = driven([*[BUSY] * 12, OK])
    assert result == OK
    full = [min(5.0, 0.1 * 2**n) for n in range(12)]
    assert all(f / 2 <= wait <= f for wait, f in zip(waits, full, strict=True))


def test_the_patience_with_a_busy_service_ends() -> None:
    """The control: for a service that stays busy, the error has the limit."""
    with pytest.raises(Busy, match=r"already running; no further retry: .* exceed 3\.0 s"):
        driven([BUSY] * 100, Patience(patience_s=3.0))


def test_retry_after_is_honoured() -> None:
    """The wait is that of the service, not our own backoff."""
    busy = Reply(503, {"retry-after": "7"}, b'{"detail": "full", "retryable": true}')
    assert driven([busy, OK]) == (OK, [7.0], 2)


def test_a_retry_after_beyond_our_patience_fails_at_once() -> None:
    """Not after the wait, which would be an hour without a use."""
    busy = Reply(503, {"retry-after": "3600"}, b'{"detail": "full", "retryable": true}')
    steps = exchange(Request("GET", "/x"), WHERE, Patience())
    advance(steps, None)
    with pytest.raises(Busy, match="no further retry"):
        advance(steps, busy)


def test_a_request_without_a_response_is_repeated_a_limited_number_of_times() -> None:
    """Two retries are three requests; the last error is raised."""
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
def test_a_problem_document_becomes_the_error_of_its_type(
    status: int, problem: dict[str, object], kind: type[PestoError], retryable: bool
) -> None:
    """Its type decides, then its status; `retryable` overrules both."""
    reply = Reply(status, {"content-type": "application/json"}, json.dumps(problem).encode())
    with pytest.raises(kind, match=f"{WHERE}: {problem['detail']}") as caught:
        driven([reply] * 3, Patience(retries=2, patience_s=0))
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("status", [302, 401, 404, 501])
def test_an_error_that_is_not_a_problem_document_is_misbehaviour(status: int) -> None:
    """The message names a web server that is not a PESTO service, and quotes its response."""
    with pytest.raises(ServiceMisbehaved, match=f"HTTP {status} text/html.*<html>"):
        driven([Reply(status, {"content-type": "text/html; charset=x"}, b"<html>hello")])


def test_a_request_is_repeated_after_a_bad_gateway() -> None:
    """502 without a document comes from a proxy, not from the service."""
    assert driven([Reply(502, {}, b"<html>bad gateway"), OK])[2] == 2


@pytest.mark.parametrize(
    "url",
    ["http://h:1", "http://h:1/", "http://h:1/api/v1", "http://h:1/api/v1/", "http://h:1/?a#b"],
)
def test_a_service_is_named_with_or_without_its_prefix(url: str) -> None:
    """All of them are one service."""
    assert service_url(url) == "http://h:1/api/v1"


@pytest.mark.parametrize("url", ["h:1", "ftp://h", "", "http://"])
def test_a_text_that_is_not_a_url_is_rejected(url: str) -> None:
    """No request is sent."""
    with pytest.raises(InvalidInput, match="not the URL of a service"):
        service_url(url)
