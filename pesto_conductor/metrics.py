"""Serve the Prometheus metrics and the health of one worker process over HTTP.

The counts are in memory; a restarted worker begins at zero.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOST_AFTER_S = 30.0
_SECONDS = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800)


class WorkerMetrics:
    """Counts of one worker process.

    Attributes:
        has_polled: Whether the server has responded to a poll.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._responded = time.monotonic()
        self.has_polled = False
        self._polls = Counter(
            "pesto_worker_polls", "Polls by outcome.", ["type", "outcome"], registry=self.registry
        )
        self._running = Gauge(
            "pesto_worker_tasks_in_hand", "Running tasks.", ["type"], registry=self.registry
        )
        self._seconds = Histogram(
            "pesto_worker_task_seconds", "Seconds of an attempt.", ["type", "status"],
            registry=self.registry, buckets=_SECONDS,
        )  # fmt: skip
        self._tiles = Counter(
            "pesto_worker_tiles", "Tiles by final state.", ["state"],
            registry=self.registry,
        )  # fmt: skip
        Gauge(
            "pesto_worker_silence_seconds", "Seconds since the last response of the server.",
            registry=self.registry,
        ).set_function(lambda: self.silence_s)  # fmt: skip

    @property
    def silence_s(self) -> float:
        """Seconds since the last response of the server."""
        return time.monotonic() - self._responded

    def polled(self, task_type: str, *, responded: bool) -> None:
        """Count a poll."""
        self._polls.labels(task_type, "answered" if responded else "failed").inc()
        if responded:
            self._responded, self.has_polled = time.monotonic(), True

    def began(self, task_type: str) -> None:
        """Count a task that begins."""
        self._running.labels(task_type).inc()

    def ended(
        self, task_type: str, status: str, *, seconds: float, tiles: Mapping[str, int]
    ) -> None:
        """Count a task that has ended."""
        self._running.labels(task_type).dec()
        self._seconds.labels(task_type, status).observe(seconds)
        for state, count in tiles.items():
            self._tiles.labels(state).inc(count)

    def readiness(self) -> tuple[int, dict[str, object]]:
        """Return HTTP status and document; 503 until the server has responded to a poll."""
        return (200, {"state": "OK"}) if self.has_polled else (503, {"state": "STARTING"})

    def health(self) -> tuple[int, dict[str, object]]:
        """Return HTTP status and document; 503 if the server has not responded for 30 s."""
        is_healthy = self.silence_s < _LOST_AFTER_S
        state = "OK" if is_healthy else "SERVER LOST"
        return 200 if is_healthy else 503, {"state": state, "silence_s": round(self.silence_s, 1)}


def serve_metrics(
    metrics: WorkerMetrics, port: int, *, host: str = "127.0.0.1"
) -> ThreadingHTTPServer:
    """Serve `/metrics` and `/health` from a thread, until the server is shut down.

    Raises:
        InvalidInput: the port cannot be used.
    """

    class Handler(_Handler):
        metrics_of_worker = metrics

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InvalidInput(f"metrics port {port}: {error.strerror}; choose another") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="pesto-metrics", daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    metrics_of_worker: WorkerMetrics

    def do_GET(self) -> None:
        metrics, path = self.metrics_of_worker, self.path.partition("?")[0]
        if path in ("/health", "/ready"):
            status, document = metrics.health() if path == "/health" else metrics.readiness()
            self._send(status, "application/json", json.dumps(document).encode())
        elif self.path.startswith("/metrics"):
            encode, media_type = choose_encoder(self.headers.get("Accept", ""))
            self._send(200, media_type, encode(self.metrics_of_worker.registry))
        else:
            self._send(404, "text/plain", b"there are /metrics, /health and /ready\n")

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log line: probes send a request every few seconds."""
