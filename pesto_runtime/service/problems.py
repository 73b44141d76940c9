"""Write errors as problem documents (RFC 9457): bounded in size, without a traceback.

It does not decide which errors are raised. Faults of a request are collected in `request`.
"""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING

from fastapi import Response
from starlette.routing import Match

from pesto_runtime.errors import MethodNotAllowed, NotFound, PestoError, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from pydantic import JsonValue


MEDIA_TYPE = "application/problem+json"

_LOG = logging.getLogger(__name__)
_MOST_BYTES = 4000
_DETAIL_CHARS = 1000


def error_response(error: PestoError) -> Response:
    """Return the response to an error; log it if only the operator can correct it."""
    if error.status >= 500 and not error.retryable:
        _LOG.error("%s", error, exc_info=error)
    return problem_response(error)


async def handle_pesto_error(_request: Request, error: Exception) -> Response:
    """Handle an error class of this package.

    Raises:
        TypeError: it is of another class.
    """
    if not isinstance(error, PestoError):
        raise TypeError(f"{type(error).__name__} has no problem document") from error
    return error_response(error)


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Handle an error of the router; the `detail` is that of PESTO."""
    status = getattr(error, "status_code", 500)
    where = f"{request.method} {request.url.path}"
    if status == 404:
        paths = sorted({str(getattr(each, "path", "")) for each in request.app.routes})
        return problem_response(NotFound(f"Not Found: {where}; paths are {', '.join(paths)}"))
    if status == 405:
        headers = {"Allow": ", ".join(_allowed(request))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        return problem_response(MethodNotAllowed(f"Method Not Allowed: {where}"), headers)
    return problem_response(PestoError(f"{where}: {getattr(error, 'detail', error)}"))


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path: several routes may have it."""
    routes = [each for each in request.app.routes if each.matches(request.scope)[0] != Match.NONE]
    return sorted({"OPTIONS", *(method for each in routes for method in each.methods)})


async def handle_bug(
    _request: Request, error: Exception, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Handle any other exception, a bug of this package; the server logs its traceback."""
    return problem_response(PestoError(f"internal error: {type(error).__name__}"), headers)


def problem_response(error: PestoError, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem document of at most 4000 bytes, with `Retry-After` if the error has it."""
    headers = dict(headers or {})
    if error.status == UnsupportedMedia.status:
        headers["Accept-Encoding"] = "gzip"  # RFC 9110 section 15.5.16
    if error.retry_after_s is not None:
        # RFC 9110 section 10.2.3: whole seconds; 0 would make clients retry in a tight loop.
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return Response(problem_bytes(error), error.status, headers, MEDIA_TYPE)


def problem_bytes(error: PestoError) -> bytes:
    """Write the problem document; fields are omitted, the last first, until it is short enough."""
    problem = error.to_problem()
    problem["detail"] = _shortened(error.detail)
    fields = problem.get("errors")
    short = [_short_field(each) for each in fields] if isinstance(fields, list) else []
    if short:
        problem["errors"] = short
    while (text := json.dumps(problem, allow_nan=False).encode()) and len(text) > _MOST_BYTES:
        short.pop()
    return text


def _shortened(text: str) -> str:
    """Return at most 1000 characters; escaped ones count six times, as JSON writes them."""
    while len(json.dumps(text)) > _DETAIL_CHARS:
        text = text[: max(1, len(text) * 3 // 4)].rstrip(".") + "..." if len(text) > 8 else ""
    return text


def _short_field(field: JsonValue) -> JsonValue:
    if not isinstance(field, dict):
        return field
    return {key: _shortened(str(each)) for key, each in field.items() if each is not None}
