"""Errors as problem documents: bounded, and never a traceback on the wire."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from fastapi import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.errors import PestoError

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
