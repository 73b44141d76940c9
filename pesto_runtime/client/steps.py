"""The conversation with a service, without any I/O: it yields what to do, and is told what came.

Both clients drive the same conversations; only sending and sleeping differ between them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pesto_runtime.errors import Busy, PestoError, ServiceMisbehaved, error_from_problem, shortened

if TYPE_CHECKING:
    from pydantic import JsonValue

T = TypeVar("T")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_PROXY_STATUSES = (408, 413, 429, 500, 502, 503, 504)
"""Statuses that mean what they say even without a document that explains them."""


@dataclass(frozen=True)
class Request:
    """One HTTP request below the service's `/api/v1`.

    Attributes:
        alone: Whether no other call to this service may be in flight meanwhile.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    alone: bool = False


@dataclass(frozen=True)
class Reply:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def media_type(self) -> str:
        """Media type of the content, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Wait:
    """Sleep before going on."""

    seconds: float


@dataclass(frozen=True)
class Exclusive:
    """Run steps while no other call of the same client runs such steps."""

    steps: Steps[None]


Outcome: TypeAlias = Reply | PestoError | None
Steps: TypeAlias = Generator[Request | Wait | Exclusive, Outcome, T]


@dataclass(frozen=True)
class Patience:
    """How often and how long one call is tried again.

    Attributes:
        retries: Times after no answer, or an error that says it is retryable.
        patience_s: Seconds to wait in all for a service that is busy.
    """

    retries: int = 3
    patience_s: float = 600.0


def exchange(request: Request, where: str, patience: Patience) -> Steps[Reply]:
    """Send a request until it is answered, or trying again cannot help.

    Raises:
        PestoError: what the service answered, or `Unreachable`.
    """
    waited_s, lost, busy = 0.0, 0, 0
    while True:
        outcome = _judged((yield request), where)
        if isinstance(outcome, Reply):
            return outcome
        error = outcome
        if not error.retryable:
            raise error
        if isinstance(error, Busy):
            busy += 1
            wait_s = error.retry_after_s or _backoff(busy)
            waited_s += wait_s
            if waited_s > patience.patience_s:
                told = f"{error.detail}; given up, {patience.patience_s} s are all we wait"
                raise Busy(told, retry_after_s=error.retry_after_s)
        else:
            lost += 1
            wait_s = _backoff(lost)
            if lost > patience.retries:
                raise error
        yield Wait(wait_s)


def advance(
    steps: Steps[T], outcome: Outcome
) -> tuple[Request | Wait | Exclusive | None, T | None]:
    """Go one step on: what to do next, or None and the result."""
    try:
        return steps.send(outcome), None
    except StopIteration as end:
        return None, end.value


def json_of(reply: Reply, where: str) -> JsonValue:
    """Read the JSON of an answer.

    Raises:
        ServiceMisbehaved: it is none.
    """
    try:
        document: JsonValue = json.loads(reply.content)
    except (ValueError, RecursionError) as error:
        raise misbehaved(reply, where, "not JSON") from error
    return document


def misbehaved(reply: Reply, where: str, what: str) -> ServiceMisbehaved:
    """Name the service, what its answer is not, and how the answer begins."""
    return ServiceMisbehaved(
        f"{where} answered HTTP {reply.status} {reply.media_type or 'of no media type'}, {what}: "
        f"it begins {shortened(reply.content[:60])}"
    )


def _judged(outcome: Outcome, where: str) -> Reply | PestoError:
    """The reply where it is a good one, else the error that it or its absence is."""
    if outcome is None:
        raise TypeError(f"{where}: a request is answered by a reply or an error")
    if isinstance(outcome, PestoError) or 200 <= outcome.status < 300:
        return outcome
    return _error_of(outcome, where)


def _error_of(reply: Reply, where: str) -> PestoError:
    try:
        problem: JsonValue = json.loads(reply.content)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict) or not {"detail", "title"} & problem.keys():
        if reply.status not in _PROXY_STATUSES:
            return misbehaved(reply, where, "not a PESTO answer")
        problem = {"detail": f"HTTP {reply.status} {shortened(reply.content[:60])}"}
    told = problem.get("detail") or problem.get("title")
    return error_from_problem(
        {**problem, "detail": f"{where}: {told}"},
        status=reply.status,
        retry_after_s=_seconds(reply.headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    """Seconds of a Retry-After; a date is not read, our own backing off does instead."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _backoff(times: int) -> float:
    """From 0.1 s doubling to 5 s, each somewhere in its upper half so that callers spread."""
    full = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(times - 1, 10))
    return full * (0.5 + secrets.randbelow(1000) / 2000)
