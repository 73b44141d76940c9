"""A service that is busy at first: it keeps the time of each call, and says when to come again."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from pesto_runtime.processor import load_processor
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = f"{ROOT}/tests/contract/errands.py:errand"


class BusyService(ThreadingHTTPServer):
    """Describes itself as the errand; answers 503 to the first calls, then the name `a`.

    Attributes:
        times: How many calls find it busy.
        retry_after: What it says then, seconds.
        health: What it says of its health.
        called: When each call came.
        headers: Names (lower case) and values of the headers of the last request.
    """

    def __init__(self, *, times: int, retry_after: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.times = times
        self.retry_after = retry_after
        self.health = "OK"
        self.called: list[float] = []
        self.headers: dict[str, str] = {}
        self.description = load_processor(TARGET).description.to_json()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        port: int = self.server_address[1]
        return port


class _Handler(BaseHTTPRequestHandler):
    server: BusyService

    def do_GET(self) -> None:
        is_health = self.path.endswith("/health")
        self._send(200, self.server.health if is_health else json.dumps(self.server.description))

    def do_POST(self) -> None:
        self.server.called.append(time.monotonic())
        self.rfile.read(int(self.headers["Content-Length"]))
        is_busy = len(self.server.called) <= self.server.times
        document = {"detail": "busy"} if is_busy else {"name": "a"}
        self._send(503 if is_busy else 200, json.dumps(document))

    def _send(self, status: int, text: str) -> None:
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        body = text.encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Accept-Post": "application/json",
            "Retry-After": str(self.server.retry_after),
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def busy_service(*, times: int, retry_after: int) -> Iterator[BusyService]:
    """Serve while the block runs."""
    service = BusyService(times=times, retry_after=retry_after)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        thread.join()
        service.server_close()
