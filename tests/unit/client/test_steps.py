"""The steps of a request, run by hand: when it is repeated, when it waits, when it fails."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.client.steps import (
    ExpectedCode,
    Patience,
    Reply,
    Request,
    Wait,
    advance,
    exchange,
)
from pesto_runtime.client.transport import service_url
from pesto_runtime.errors import (
    AlgorithmFailed,
    Busy,
    CredentialsRefused,
    HrefRefused,
    InvalidInput,
    PestoError,
    ProcessChanged,
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


@pytest.mark.parametrize("status", [302, 404, 501])
def test_an_error_that_is_not_a_problem_document_is_misbehaviour(status: int) -> None:
    """The message names a web server that is not a PESTO service, and quotes its response."""
    with pytest.raises(ServiceMisbehaved, match=f"HTTP {status} text/html.*<html>"):
        driven([Reply(status, {"content-type": "text/html; charset=x"}, b"<html>hello")])


@pytest.mark.parametrize("status", [401, 403, 407])
def test_refused_credentials_are_an_error_of_their_own(status: int) -> None:
    """It names the status and the way out, without the body, which may repeat a secret."""
    with pytest.raises(CredentialsRefused, match=f"HTTP {status}.*PESTO_CREDENTIALS") as caught:
        driven([Reply(status, {"content-type": "text/html"}, b"<html>token SECRET is wrong")])
    assert "SECRET" not in str(caught.value)


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


class Clock:
    """A clock that stands still until a step waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        clock = SimpleNamespace(monotonic=lambda: self.now)  # of this module alone
        monkeypatch.setattr("pesto_runtime.client.steps.time", clock)

    def drive(self, outcomes: Sequence[Outcome], patience: Patience) -> tuple[Reply | None, float]:
        """Run a request with these outcomes, the last one repeated; return the waited seconds."""
        begun, remaining = self.now, list(outcomes)
        steps = exchange(Request("GET", "/x"), WHERE, patience)
        step, result = advance(steps, None)
        while step is not None:
            if isinstance(step, Wait):
                self.now += step.seconds
                step, result = advance(steps, None)
            else:
                outcome = remaining.pop(0) if len(remaining) > 1 else remaining[0]
                step, result = advance(steps, outcome)
        return result, self.now - begun


@pytest.mark.parametrize(
    "away",
    [
        LOST,
        Reply(502, {}, b"<html>"),
        Reply(503, {}, b"<html>no backend"),
        Reply(504, {}, b""),
        Reply(503, {}, b'{"type": "urn:pesto:error:unreachable", "detail": "no worker"}'),
    ],
)
def test_a_service_that_is_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, away: Outcome
) -> None:
    """Up to the limit, then `unreachable`; an answer before that is the result."""
    clock = Clock(monkeypatch)
    patience = Patience(retries=2, outage_s=20.0)
    result, waited_s = clock.drive([*[away] * 6, OK], patience)
    assert result == OK
    assert 1 < waited_s < 20
    begun = clock.now
    with pytest.raises(Unreachable) as caught:
        clock.drive([away], patience)
    assert 20 <= clock.now - begun <= 25
    assert caught.value.retryable


def test_the_wait_for_a_service_counts_from_its_last_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Busy for a minute, it answers all the time; then 20 s of silence end the call."""
    clock = Clock(monkeypatch)
    busy = Reply(503, {"retry-after": "10"}, b'{"detail": "full", "retryable": true}')
    with pytest.raises(Unreachable, match="gone"):
        clock.drive([*[busy] * 6, LOST], Patience(retries=2, outage_s=20.0))
    assert 80 <= clock.now - 100 <= 85


def test_a_busy_service_has_the_patience_for_busy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """429, or 503 with Retry-After: 600 s, however short the wait for an absent one is."""
    clock = Clock(monkeypatch)
    for busy in (BUSY, Reply(503, {"retry-after": "5"}, b'{"detail": "full"}')):
        begun = clock.now
        with pytest.raises(Busy):
            clock.drive([busy], Patience(outage_s=1.0))
        assert 590 <= clock.now - begun <= 601


def test_an_error_that_is_not_an_outage_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: a retryable error of an algorithm is retried as often as before."""
    clock = Clock(monkeypatch)
    failed = Reply(500, {}, b'{"detail": "again", "retryable": true}')
    with pytest.raises(AlgorithmFailed):
        clock.drive([failed], Patience(retries=2, outage_s=60.0))
    assert clock.now - 100 < 1


CODE = ExpectedCode("sha256:a", "sha256:d")
SAME = {"x-pesto-build": "sha256:a", "x-pesto-digest": "sha256:d"}


def answered(status: int, headers: dict[str, str], content: bytes = b"{}") -> Reply | None:
    """Send one request whose response must be of the expected code."""
    steps = exchange(Request("POST", "/process"), WHERE, Patience(retries=0), CODE)
    advance(steps, None)
    return advance(steps, Reply(status, headers, content))[1]


def test_a_response_of_the_expected_code_is_accepted() -> None:
    """The control of the next."""
    assert answered(200, SAME) == Reply(200, SAME, b"{}")
    with pytest.raises(InvalidInput):
        answered(422, SAME, b'{"detail": "bad"}')


@pytest.mark.parametrize("status", [200, 201, 422, 500, 503])
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"x-pesto-build": "sha256:b"}, "build sha256:b, planned sha256:a"),
        ({"x-pesto-digest": "sha256:e"}, "digest sha256:e, planned sha256:d"),
    ],
)
def test_a_response_of_other_code_is_thrown_away(
    status: int, headers: dict[str, str], told: str
) -> None:
    """A result and an error alike; the message has the address, and what was planned and found."""
    with pytest.raises(ProcessChanged, match=told) as caught:
        answered(status, SAME | headers)
    assert WHERE in caught.value.detail
    assert not caught.value.retryable
    assert "sha256:a" in caught.value.detail or "build" not in told


def test_a_result_that_states_no_code_is_thrown_away() -> None:
    """An older version of the service; but an error of a proxy is that error."""
    with pytest.raises(ProcessChanged, match="build not stated, planned sha256:a"):
        answered(200, {})
    with pytest.raises(ProcessChanged, match="digest not stated"):
        answered(200, {"x-pesto-build": "sha256:a"})
    with pytest.raises(Unreachable):
        answered(502, {}, b"<html>")
