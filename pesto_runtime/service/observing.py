"""Figures of one service in Prometheus' format; counting costs microseconds, reading the rest."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pesto_runtime.client.transport import HEADER, Trace, traced
from pesto_runtime.service.http import headers_of
from pesto_runtime.service.logs import bound
from pesto_runtime.service.static_responses import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_ENDPOINTS = ("health", "describe", "version", "openapi", "process", "jobs", "metrics")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Queue(Protocol):
    """Calls that hold a place: a bounded queue, in front of threads or of workers."""

    @property
    def admitted(self) -> int:
        """Running and waiting now."""

    @property
    def workers(self) -> int:
        """That can run at once."""

    @property
    def capacity(self) -> int:
        """Most that are admitted."""


@dataclass(frozen=True)
class _Counted:
    """The figures of one endpoint and status; finding them takes longer than counting."""

    requests: Counter
    seconds: Histogram
    bytes_in: Counter
    bytes_out: Counter


class Metrics:
    """The figures of one service; several services in one process share nothing."""

    def __init__(
        self,
        queue: Queue,
        *,
        jobs: Callable[[], Mapping[str, int]] = dict,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Start counting from nothing.

        Args:
            queue: Looked at at each reading.
            jobs: Jobs by state, asked at each reading.
            about: Labels of `pesto_service_info`: the process, its version and build.
        """
        self._counted: dict[tuple[str, int], _Counted] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Now(queue, jobs, about or {}))
        self._requests = Counter(
            "pesto_requests_total", "Requests answered.", ("endpoint", "status"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "pesto_request_seconds", "From the first byte in to the last byte out.", ("endpoint",),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._bytes_in = Counter(
            "pesto_request_bytes_total", "Bytes of bodies taken in.", ("endpoint",),
            registry=self._registry,
        )  # fmt: skip
        self._bytes_out = Counter(
            "pesto_response_bytes_total", "Bytes of bodies answered.", ("endpoint",),
            registry=self._registry,
        )  # fmt: skip

    def count(self, endpoint: str, status: int, *, seconds: float, sizes: tuple[int, int]) -> None:
        """Count an answered request; `sizes` are the bytes of its body and of its answer."""
        counted = self._counted.get((endpoint, status)) or self._counter_of(endpoint, status)
        counted.requests.inc()
        counted.seconds.observe(seconds)
        counted.bytes_in.inc(sizes[0])
        counted.bytes_out.inc(sizes[1])

    def _counter_of(self, endpoint: str, status: int) -> _Counted:
        counted = self._counted[endpoint, status] = _Counted(
            self._requests.labels(endpoint, str(status)),
            self._seconds.labels(endpoint),
            self._bytes_in.labels(endpoint),
            self._bytes_out.labels(endpoint),
        )
        return counted

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)


@lru_cache(maxsize=256)
def endpoint_of(path: str) -> str:
    """The endpoint that a path belongs to; one name for all that are none of ours.

    >>> endpoint_of("/api/v1/jobs/17/status"), endpoint_of("/docs"), endpoint_of("/wp-login.php")
    ('jobs', 'docs', 'other')
    """
    if path.startswith(PREFIX + "/"):
        first = path[len(PREFIX) + 1 :].partition("/")[0]
        return first if first in _ENDPOINTS else "other"
    return path[1:] if path in ("/docs", "/metrics") else "other"


class _Now(Collector):
    """What is not counted but asked for."""

    def __init__(
        self,
        queue: Queue,
        jobs: Callable[[], Mapping[str, int]],
        about: Mapping[str, str],
    ) -> None:
        self._queue, self._jobs, self._about = queue, jobs, about

    def collect(self) -> Iterable[Metric]:
        queue = self._queue
        yield GaugeMetricFamily("pesto_calls", "Calls running and waiting.", queue.admitted)
        yield GaugeMetricFamily("pesto_calls_capacity", "Most calls at once.", queue.capacity)
        yield GaugeMetricFamily("pesto_workers", "Calls that run at once.", queue.workers)
        jobs = GaugeMetricFamily("pesto_jobs", "Jobs kept, by state.", labels=("state",))
        for state, count in self._jobs().items():
            jobs.add_metric((state,), count)
        yield jobs
        memory = GaugeMetricFamily(
            "pesto_resident_bytes", "Memory held, of the server and its workers.",
            labels=("process", "pid"),
        )  # fmt: skip
        for role, pid, size in _resident():
            memory.add_metric((role, str(pid)), size)
        yield memory
        info = GaugeMetricFamily("pesto_service_info", "What is served.", labels=tuple(self._about))
        info.add_metric(tuple(self._about.values()), 1)
        yield info


def _resident() -> Iterator[tuple[str, int, int]]:
    """Role, process id and resident bytes of this process and of those it started, on Linux."""
    own = os.getpid()
    workers = [
        int(each)
        for task in Path(f"/proc/{own}/task").glob("*/children")
        for each in _told(task).split()
    ]
    for role, pid in (("server", own), *(("worker", each) for each in workers)):
        pages = _told(Path(f"/proc/{pid}/statm")).split()
        if pages:
            yield role, pid, int(pages[1]) * _PAGE_BYTES


def _told(path: Path) -> str:
    """A file of /proc; empty where it is not there, or has ended just now."""
    try:
        return path.read_text()
    except OSError:
        return ""


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
