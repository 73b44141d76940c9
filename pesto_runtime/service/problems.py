"""Errors as problem documents: bounded, and never a traceback on the wire."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING

from fastapi import Response

from pesto_runtime.errors import (
    BadField,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PestoError,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from pydantic import JsonValue


_ABSENT = object()


class Faults:
    """Wrong fields, and the kinds of error they are."""

    def __init__(self) -> None:
        """Start without any."""
        self._fields: list[BadField] = []
        self._kinds: set[type[PestoError]] = set()

    def __bool__(self) -> bool:
        return bool(self._fields)

    def add(self, pointer: str, detail: str, value: object = _ABSENT) -> None:
        """Add a field that does not fit the contract."""
        self.add_field(BadField(pointer, detail, _shown(value)))

    def add_field(self, field: BadField) -> None:
        """Add a field that does not fit the contract, already told."""
        self._fields.append(field)
        self._kinds.add(InvalidInput)

    def add_error(self, pointer: str, error: PestoError, value: object = _ABSENT) -> None:
        """Add what reading a field raised; its own fields come under the pointer."""
        self._kinds.add(type(error))
        inner = [BadField(pointer + f.pointer, f.detail, f.value) for f in error.fields]
        self._fields.extend(inner or [BadField(pointer, error.detail, _shown(value))])

    def raise_any(self, what: str) -> None:
        """Do nothing where nothing is wrong.

        Raises:
            PestoError: the kind that all faults share, `InvalidInput` for a mixture.
        """
        if not self._fields:
            return
        kind = self._kinds.pop() if len(self._kinds) == 1 else InvalidInput
        raise kind.of(what, self._fields)


def _shown(value: object) -> str | None:
    return None if value is _ABSENT else shortened(value)


MEDIA_TYPE = "application/problem+json"
_MOST_BYTES = 4000
_DETAIL_CHARS = 1000


def problem_response(error: PestoError, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with an error: at most 4000 bytes, `Retry-After` where the error knows it."""
    sent = dict(headers or {})
    if error.retry_after_s is not None:
        sent["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return Response(problem_bytes(error), error.status, sent, MEDIA_TYPE)


def problem_bytes(error: PestoError) -> bytes:
    """Write the problem document, shortened until it fits: fields first, from the last one."""
    problem = error.to_problem()
    problem["detail"] = _shortened(error.detail)
    fields = problem.get("errors")
    told = [_short_field(each) for each in fields] if isinstance(fields, list) else []
    if told:
        problem["errors"] = told
    while (text := json.dumps(problem, allow_nan=False).encode()) and len(text) > _MOST_BYTES:
        told.pop()
    return text


def _shortened(text: str) -> str:
    """At most 1000 characters, escaped ones counted six times as JSON writes them."""
    while len(json.dumps(text)) > _DETAIL_CHARS:
        text = text[: max(1, len(text) * 3 // 4)].rstrip(".") + "..." if len(text) > 8 else ""
    return text


def _short_field(field: JsonValue) -> JsonValue:
    if not isinstance(field, dict):
        return field
    return {key: _shortened(str(each)) for key, each in field.items() if each is not None}


_LOG = logging.getLogger(__name__)


def refused(error: PestoError) -> Response:
    """Answer with an error; one that nobody but its operator can mend is logged."""
    if error.status >= 500 and not error.retryable:
        _LOG.error("%s", error, exc_info=error)
    return problem_response(error)


async def problem(_request: Request, error: Exception) -> Response:
    """Answer with an error of ours."""
    if not isinstance(error, PestoError):
        raise TypeError(f"{type(error).__name__} has no problem document") from error
    return refused(error)


async def http_problem(request: Request, error: Exception) -> Response:
    """What the router refuses; `detail` as PESTO's."""
    status = getattr(error, "status_code", 500)
    where = f"{request.method} {request.url.path}"
    if status == 404:
        return problem_response(NotFound(f"Not Found: {where}"))
    if status == 405:
        headers = getattr(error, "headers", None)
        return problem_response(MethodNotAllowed(f"Method Not Allowed: {where}"), headers)
    failed = PestoError(f"{where}: {getattr(error, 'detail', error)}")
    return problem_response(failed)


async def bug(_request: Request, error: Exception) -> Response:
    """A fault of this package; the server logs its traceback."""
    return problem_response(PestoError(f"internal error: {type(error).__name__}"))
