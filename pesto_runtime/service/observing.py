"""Observe every request of a service: count it for Prometheus, log it, and continue its trace.

Counting costs microseconds per request; all other values are read when `/metrics` is requested.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter as Counts
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pesto_runtime.client.transport import HEADER, Trace, traced
from pesto_runtime.service.http import PREFIX, headers_of
from pesto_runtime.service.logs import bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pesto_runtime.service.runner import ProcessFacts


MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_ENDPOINTS = ("health", "describe", "version", "openapi", "process", "jobs", "metrics")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LOG = logging.getLogger(__name__)
_QUIET = ("health", "metrics")
"""Requested every few seconds by monitoring; their log lines would hide the others."""
_FIELD_CHARS = 200
_TILE, _CORRELATION = "x-pesto-tile", "x-correlation-id"
_FIELD_HEADERS = frozenset({_TILE, _CORRELATION})


class Queue(Protocol):
    """The bounded queue of calls, in front of threads or of workers."""

    @property
    def admitted(self) -> int:
        """Calls that run or wait now."""

    @property
    def workers(self) -> int:
        """Calls that can run at the same time."""

    @property
    def capacity(self) -> int:
        """Most calls that are admitted."""


class Jobs(Protocol):
    """The jobs of a process."""

    def counts(self) -> Mapping[str, int]:
        """Return the number of jobs by state."""


class ObservedProcess(Protocol):
    """A process of a service."""

    @property
    def facts(self) -> ProcessFacts:
        """Facts about the process."""

    @property
    def admission(self) -> Queue:
        """Its queue."""

    @property
    def job_manager(self) -> Jobs:
        """Its jobs."""


@dataclass(frozen=True)
class _Counters:
    """The counters of one endpoint and status; `labels()` takes longer than counting."""

    requests: Counter
    seconds: Histogram
    bytes_in: Counter
    bytes_out: Counter


class Metrics:
    """The metrics of one service; services in one process share nothing."""

    def __init__(self, processes: Sequence[ObservedProcess]) -> None:
        """Register the metrics; all counters are 0.

        Args:
            processes: Those that are served; their queues and jobs are read when the metrics are
                requested, and added up.
        """
        self._counters: dict[tuple[str, int], _Counters] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_GaugeCollector(processes))
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
        """Count a request; `sizes` are the bytes of its body and of the body of its response."""
        counters = self._counters.get((endpoint, status)) or self._counter_of(endpoint, status)
        counters.requests.inc()
        counters.seconds.observe(seconds)
        counters.bytes_in.inc(sizes[0])
        counters.bytes_out.inc(sizes[1])

    def _counter_of(self, endpoint: str, status: int) -> _Counters:
        counters = self._counters[endpoint, status] = _Counters(
            self._requests.labels(endpoint, str(status)),
            self._seconds.labels(endpoint),
            self._bytes_in.labels(endpoint),
            self._bytes_out.labels(endpoint),
        )
        return counters

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


@lru_cache(maxsize=256)
def endpoint_of(path: str) -> str:
    """Return the endpoint of a path; `other` for all paths that are not routes.

    Labels must have few values: each different one is a time series in Prometheus.

    >>> endpoint_of("/api/v1/jobs/17/status"), endpoint_of("/docs"), endpoint_of("/wp-login.php")
    ('jobs', 'docs', 'other')
    >>> endpoint_of("/cloud-mask/api/v1/process")
    'process'
    """
    _, mark, rest = path.partition(f"{PREFIX}/")
    if mark:
        first = rest.partition("/")[0]
        return first if first in _ENDPOINTS else "other"
    return path[1:] if path in ("/docs", "/metrics") else "other"


class _GaugeCollector(Collector):
    """Reads the gauges when the metrics are requested."""

    def __init__(self, processes: Sequence[ObservedProcess]) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        queues = [each.admission for each in self._processes]
        for name, text, value in (
            ("pesto_calls", "Calls running and waiting.", sum(q.admitted for q in queues)),
            ("pesto_calls_capacity", "Most calls at once.", sum(q.capacity for q in queues)),
            ("pesto_workers", "Calls that run at once.", sum(q.workers for q in queues)),
        ):
            yield GaugeMetricFamily(name, text, value)
        jobs = GaugeMetricFamily("pesto_jobs", "Jobs kept, by state.", labels=("state",))
        counts: Counts[str] = Counts()
        for each in self._processes:
            counts.update(each.job_manager.counts())
        for state, count in counts.items():
            jobs.add_metric((state,), count)
        yield jobs
        memory = GaugeMetricFamily(
            "pesto_resident_bytes", "Memory held, of the server and its workers.",
            labels=("process", "pid"),
        )  # fmt: skip
        for role, pid, size in _resident():
            memory.add_metric((role, str(pid)), size)
        yield memory
        labels = ("process", "version", "build")
        info = GaugeMetricFamily("pesto_service_info", "What is served.", labels=labels)
        for each in self._processes:
            found = each.facts.description
            info.add_metric((found.name, found.version, each.facts.build), 1)
        yield info


def _resident() -> Iterator[tuple[str, int, int]]:
    """Yield role, process id and resident bytes of this process and its children, on Linux."""
    own = os.getpid()
    workers = [
        int(each)
        for task in Path(f"/proc/{own}/task").glob("*/children")
        for each in _read_proc(task).split()
    ]
    for role, pid in (("server", own), *(("worker", each) for each in workers)):
        pages = _read_proc(Path(f"/proc/{pid}/statm")).split()
        if pages:
            yield role, pid, int(pages[1]) * _PAGE_BYTES


def _read_proc(path: Path) -> str:
    """Return a file of /proc; empty if it does not exist, or its process has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


@dataclass(slots=True)
class _RequestRecord:
    """Status, sizes and start time of one request."""

    began: float = field(default_factory=time.perf_counter)
    status: int = 500
    bytes_in: int = 0
    bytes_out: int = 0


class RequestObserver:
    """ASGI middleware around a whole service."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Wrap an application.

        Args:
            app: Serves the requests.
            metrics: Counts them.
        """
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request to the application, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record, headers = _RequestRecord(), headers_of(scope)

        async def receiving() -> Message:
            message = await receive()
            record.bytes_in += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            record.bytes_out += len(message.get("body", b""))
            await send(message)

        with traced(headers.get(HEADER)) as trace, _bound_to(headers, trace):
            try:
                await self._app(scope, receiving, sending)
            finally:
                self._count(scope, record)

    def _count(self, scope: Scope, record: _RequestRecord) -> None:
        endpoint = endpoint_of(scope["path"])
        seconds = time.perf_counter() - record.began
        sizes = (record.bytes_in, record.bytes_out)
        self._metrics.count(endpoint, record.status, seconds=seconds, sizes=sizes)
        if endpoint not in _QUIET and _LOG.isEnabledFor(logging.INFO):
            fields = {
                "method": scope["method"], "path": scope["path"], "status": record.status,
                "seconds": round(seconds, 6), "bytes_in": sizes[0], "bytes_out": sizes[1],
            }  # fmt: skip
            _LOG.info("%s %s %d", scope["method"], scope["path"], record.status,
                      extra={"fields": fields})  # fmt: skip


def _bound_to(headers: Mapping[str, str], trace: Trace | None) -> bound:
    """Return the log fields of a request: its trace, and its tile and correlation id if given."""
    if trace is None and _FIELD_HEADERS.isdisjoint(headers):
        return bound()
    return bound(
        trace_id=trace and trace.trace_id,
        span_id=trace and trace.span_id,
        tile=_shown(headers.get(_TILE)),
        correlation_id=_shown(headers.get(_CORRELATION)),
    )


def _shown(header: str | None) -> str | None:
    """Return a header as a log field, shortened: its value comes from the caller."""
    return header[:_FIELD_CHARS] if header else None
