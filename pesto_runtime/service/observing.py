"""Every request seen from outside: counted, timed, logged, and put into its trace."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.client.tracing import HEADER, Trace, traced
from pesto_runtime.service.callers import headers_of
from pesto_runtime.service.logs import bound
from pesto_runtime.service.metrics import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pesto_runtime.service.metrics import Metrics

_LOG = logging.getLogger(__name__)
_QUIET = ("health", "metrics")
"""Asked every few seconds by machines; a line each would bury the others."""
_SHOWN = 200
_TILE, _CORRELATION = "x-pesto-tile", "x-correlation-id"
_TELLING = frozenset({_TILE, _CORRELATION})


@dataclass(slots=True)
class _Seen:
    """What one request has come to so far."""

    began: float = field(default_factory=time.perf_counter)
    status: int = 500
    bytes_in: int = 0
    bytes_out: int = 0


class RequestObserver:
    """ASGI middleware around a whole service."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Wrap an application.

        Args:
            app: What answers.
            metrics: Where it is counted.
        """
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as the application does, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen, headers = _Seen(), headers_of(scope)

        async def receiving() -> Message:
            message = await receive()
            seen.bytes_in += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
            seen.bytes_out += len(message.get("body", b""))
            await send(message)

        with traced(headers.get(HEADER)) as trace, _bound_to(headers, trace):
            try:
                await self._app(scope, receiving, sending)
            finally:
                self._count(scope, seen)

    def _count(self, scope: Scope, seen: _Seen) -> None:
        endpoint = endpoint_of(scope["path"])
        seconds = time.perf_counter() - seen.began
        sizes = (seen.bytes_in, seen.bytes_out)
        self._metrics.count(endpoint, seen.status, seconds=seconds, sizes=sizes)
        if endpoint not in _QUIET and _LOG.isEnabledFor(logging.INFO):
            fields = {
                "method": scope["method"], "path": scope["path"], "status": seen.status,
                "seconds": round(seconds, 6), "bytes_in": sizes[0], "bytes_out": sizes[1],
            }  # fmt: skip
            _LOG.info("%s %s %d", scope["method"], scope["path"], seen.status,
                      extra={"fields": fields})  # fmt: skip


def _bound_to(headers: Mapping[str, str], trace: Trace | None) -> bound:
    """Have log lines say whose request they are about, where it says so itself."""
    if trace is None and _TELLING.isdisjoint(headers):
        return bound()
    return bound(
        trace_id=trace and trace.trace_id,
        span_id=trace and trace.span_id,
        tile=_shown(headers.get(_TILE)),
        correlation_id=_shown(headers.get(_CORRELATION)),
    )


def _shown(header: str | None) -> str | None:
    """A header as a field of the log: bounded, for anybody may send it."""
    return header[:_SHOWN] if header else None
