"""How long /health takes while bodies of 60 MB arrive one after another."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from benchmarks.service.bodies import Body
    from benchmarks.service.servers import Server

_PAUSE_S = 0.01


@dataclass(frozen=True)
class Health:
    """Times of /health, and what was sent meanwhile.

    Attributes:
        p50_ms: Median.
        worst_ms: The longest.
        asked: How often it was asked.
        statuses: Of the big requests.
    """

    p50_ms: float
    worst_ms: float
    asked: int
    statuses: tuple[int, ...]


def health_while(server: Server, body: Body | None, *, senders: int, seconds: float) -> Health:
    """Ask for the health again and again while `senders` send a body; None sends nothing."""
    stop, statuses = threading.Event(), list[int]()
    deadline = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_send, args=(server, body, deadline, statuses))
        for _ in range(senders if body else 0)
    ]
    times: list[float] = []
    asking = threading.Thread(target=_ask, args=(server, stop, times))
    for thread in (asking, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(max(0.0, deadline - time.monotonic()))
    stop.set()
    asking.join()
    return Health(median(times), max(times), len(times), tuple(statuses))


def _ask(server: Server, stop: threading.Event, times: list[float]) -> None:
    connection = _connection(server)
    while not stop.is_set():
        began = time.perf_counter()
        connection.request("GET", "/api/v1/health")
        connection.getresponse().read()
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(_PAUSE_S)
    connection.close()


def _send(server: Server, body: Body, deadline: float, statuses: list[int]) -> None:
    while time.monotonic() < deadline:
        connection = _connection(server)
        connection.request("POST", f"/api/v1{body.path}", body.content, dict(body.headers))
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        connection.close()


def _connection(server: Server) -> http.client.HTTPConnection:
    parts = urlsplit(server.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
