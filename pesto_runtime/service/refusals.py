"""Errors as answers: ours, the router's, and faults of this package."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pesto_runtime.errors import MethodNotAllowed, NotFound, PestoError
from pesto_runtime.service.problems import problem_response

if TYPE_CHECKING:
    from fastapi import Request, Response

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
