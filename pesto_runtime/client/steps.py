"""Define the steps of a request without I/O: a generator yields requests and receives replies.

`Client` and `AsyncClient` run the same steps; only sending and sleeping differ between them.
"""

from __future__ import annotations

import inspect
import json
import secrets
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pesto_runtime.errors import (
    AlgorithmFailed,
    Busy,
    CredentialsRefused,
    PestoError,
    ProcessChanged,
    ServiceMisbehaved,
    Unreachable,
    error_from_problem,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import JsonValue

T = TypeVar("T")

BUILD_HEADER, DIGEST_HEADER = "x-pesto-build", "x-pesto-digest"
PLACELESS_HEADER = "x-pesto-placeless"
"""`true` on the description of a process that does not receive the place of its pixels."""

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_CREDENTIALS = (
    "it requires credentials, or refuses those of the request; they are in the file of "
    "--credentials or PESTO_CREDENTIALS, or, on Airflow, in a connection"
)
CREDENTIAL_STATUSES = (401, 403, 407)
_PROXY_STATUSES = (408, 413, 429, 500, 502, 503, 504)
"""Statuses of proxies: their meaning is clear without a problem document."""


@dataclass(frozen=True)
class Request:
    """One HTTP request below the service's `/api/v1`.

    Attributes:
        method: GET, POST or DELETE.
        path: Below the service's address, `/api/v1` or a process of OGC; or a whole URL.
        headers: Without those of the client.
        query: Name -> value, not encoded.
        content: The body.
        alone: Whether no other such call to this service may run meanwhile.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    alone: bool = False


@dataclass(frozen=True)
class Reply:
    """The response to a request; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def media_type(self) -> str:
        """Media type of the content, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Wait:
    """A step: sleep."""

    seconds: float


@dataclass(frozen=True)
class Exclusive:
    """A step: run other steps while no other call of the same client runs such steps."""

    steps: Steps[None]


Outcome: TypeAlias = Reply | PestoError | None
Steps: TypeAlias = Generator[Request | Wait | Exclusive, Outcome, T]


@dataclass(frozen=True)
class Patience:
    """The limits of the retries of one call.

    Attributes:
        retries: Retries after no response, or after a retryable error.
        patience_s: Total seconds to wait for a busy service.
        outage_s: Seconds to wait for a service that is away, since its last response in this call;
            it is requested at least once more after each of the `retries`.
    """

    retries: int = 3
    patience_s: float = 600.0
    outage_s: float = 0.0


@dataclass(frozen=True)
class ExpectedCode:
    """The code whose responses are accepted.

    Attributes:
        build: Identity of the code.
        digest: Of its description.
    """

    build: str
    digest: str

    def require(self, reply: Reply, where: str) -> None:
        """Check that a response is of this code; one of a proxy, an error, states no code.

        Raises:
            ProcessChanged: it is of another code, or a result that states no code.
        """
        build, digest = reply.headers.get(BUILD_HEADER), reply.headers.get(DIGEST_HEADER)
        if build == self.build and digest == self.digest:
            return
        if build is not None or digest is not None or 200 <= reply.status < 300:
            raise process_changed(
                where, planned=(self.build, self.digest), found=(build or "", digest or "")
            )


def process_changed(
    where: str, *, planned: tuple[str, str], found: tuple[str, str]
) -> ProcessChanged:
    """Return the error of a service with another code; a pair is a build and a digest."""
    parts = [
        f"{name} {new or 'not stated'}, planned {old}"
        for name, old, new in zip(("build", "digest"), planned, found, strict=True)
        if old != new
    ]
    return ProcessChanged(
        f"{where} does not run the code that was planned: {'; '.join(parts)}; run again for a "
        "new plan, or serve the planned code"
    )


def exchange(
    request: Request, where: str, patience: Patience, expected: ExpectedCode | None = None
) -> Steps[Reply]:
    """Send a request, and repeat it after a retryable error; return the successful reply.

    Raises:
        ProcessChanged: the response is not of the expected code.
        PestoError: the error that the service returned, or `Unreachable`.
    """
    waited_s, failures, refusals = 0.0, 0, 0
    answered = time.monotonic()
    while True:
        received = yield request
        if expected is not None and isinstance(received, Reply):
            expected.require(received, where)
        outcome = _reply_or_error(received, where)
        if isinstance(outcome, Reply):
            return outcome
        error = _as_outage(outcome, received) if patience.outage_s else outcome
        # A call whose worker was killed had begun: only the caller knows whether it may run twice.
        if not error.retryable or isinstance(error, AlgorithmFailed):
            raise error
        # A busy service does not count as a failure: only the total waiting time is limited.
        if isinstance(error, Busy):
            refusals += 1
            wait_s = error.retry_after_s or _backoff_s(refusals)
            waited_s += wait_s
            if waited_s > patience.patience_s:
                limit = f"the total wait would exceed {patience.patience_s} s"
                raise Busy(
                    f"{error.detail}; no further retry: {limit}", retry_after_s=error.retry_after_s
                )
            answered = time.monotonic() + wait_s  # the wait that it asked for is no outage
        else:
            failures += 1
            wait_s = _backoff_s(failures)
            away_s = time.monotonic() - answered
            if failures > patience.retries and not (
                isinstance(error, Unreachable) and away_s < patience.outage_s
            ):
                raise _after_waiting(error, away_s)
        yield Wait(wait_s)


def _after_waiting(error: PestoError, away_s: float) -> PestoError:
    """Return the same error with the time that was waited; a service that is away says none."""
    if not isinstance(error, Unreachable) or away_s < 1:
        return error
    return Unreachable(
        f"{error.detail} (waited for {away_s:.0f} s, the patience of the call)",
        retry_after_s=error.retry_after_s,
    )


def advance(
    steps: Steps[T], outcome: Outcome
) -> tuple[Request | Wait | Exclusive | None, T | None]:
    """Resume steps with the outcome of the last one; return the next step, or None and the result.

    The first outcome, and that of a `Wait` or `Exclusive`, is None.
    """
    try:
        return steps.send(outcome), None
    except StopIteration as end:
        return None, end.value


def present_as(operation: Callable[..., Steps[T]], method: Callable[..., object]) -> None:
    """Give a method the name, docstring and signature of the operation that it runs."""
    # Without them, `help`, the documentation and typed signatures would show `method(*args)`.
    signature = inspect.signature(operation)
    returned = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    method.__name__ = operation.__name__.removeprefix("_")
    method.__qualname__ = f"{method.__annotations__['self']}.{method.__name__}"
    method.__doc__ = operation.__doc__
    method.__annotations__ = {**operation.__annotations__, "return": returned}
    vars(method)["__signature__"] = signature.replace(return_annotation=returned)


def json_of(reply: Reply, where: str) -> JsonValue:
    """Return the JSON value of a reply.

    Raises:
        ServiceMisbehaved: the content is not JSON.
    """
    try:
        document: JsonValue = json.loads(reply.content)
    except (ValueError, RecursionError) as error:
        raise misbehaved(reply, where, "not JSON") from error
    return document


def misbehaved(reply: Reply, where: str, fault: str) -> ServiceMisbehaved:
    """Return an error with the service, the fault of its reply, and the start of the content."""
    media_type = reply.media_type or "without a media type"
    return ServiceMisbehaved(
        f"{where} returned HTTP {reply.status} {media_type}, {fault}: "
        f"it begins {shortened(reply.content[:60])}"
    )


def credentials_refused(reply: Reply, where: str) -> CredentialsRefused:
    """Return an error with the status alone: a gateway may repeat in its body what it refuses."""
    return CredentialsRefused(f"{where} returned HTTP {reply.status}: {_CREDENTIALS}")


def _reply_or_error(outcome: Outcome, where: str) -> Reply | PestoError:
    """Return a successful reply, or else the error of the service or of the transport."""
    if outcome is None:
        raise TypeError(f"{where}: a request requires a reply or an error")
    if isinstance(outcome, PestoError) or 200 <= outcome.status < 300:
        return outcome
    return _error_of(outcome, where)


def _as_outage(error: PestoError, received: Outcome) -> PestoError:
    """Return `Unreachable` for the 503 of a proxy whose service is away: it has no Retry-After."""
    is_away = isinstance(received, Reply) and received.status == 503
    if is_away and isinstance(error, Busy) and error.retry_after_s is None:
        return Unreachable(error.detail)
    return error


def _error_of(reply: Reply, where: str) -> PestoError:
    try:
        problem: JsonValue = json.loads(reply.content)
    except (ValueError, RecursionError):
        problem = None
    if isinstance(problem, dict) and "code" in problem and "description" in problem:
        # Exceptions of OGC API - Processes before its version 1.0, as pygeoapi has them
        problem = {"detail": problem["description"], "title": problem["code"]}
    if not isinstance(problem, dict) or not {"detail", "title"} & problem.keys():
        if reply.status in CREDENTIAL_STATUSES:
            return credentials_refused(reply, where)
        if reply.status not in _PROXY_STATUSES:
            return misbehaved(reply, where, "not a PESTO response")
        problem = {"detail": f"HTTP {reply.status} {shortened(reply.content[:60])}"}
    detail = problem.get("detail") or problem.get("title")
    return error_from_problem(
        {**problem, "detail": f"{where}: {detail}"},
        status=reply.status,
        retry_after_s=_seconds(reply.headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After; None for a date, so that our own backoff applies."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _backoff_s(times: int) -> float:
    """Return 0.1 s, doubled for each time up to 5 s, and randomised."""
    # A random value of the upper half: callers that failed together do not return together.
    full = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(times - 1, 10))
    return full * (0.5 + secrets.randbelow(1000) / 2000)
