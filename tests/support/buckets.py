"""A bucket of moto's S3 in a process of its own, and a proxy before it that misbehaves."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from pesto_runtime.places import RemotePath
from tests.support.commands import waited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUCKET = "s3://bucket"
TOOLS = Path(sys.prefix, "tools", "bin", "python")
"""Python of the environment that `make setup` makes for programs that tests run."""


def variables(port: int) -> dict[str, str]:
    """One set of variables for obstore, GDAL and boto; keys are any."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
    }  # fmt: skip


@contextmanager
def moto_server() -> Iterator[int]:
    """Run moto with an empty bucket, and give its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if not TOOLS.exists():
        pytest.skip(f"{TOOLS} does not exist: make setup")
    command = [str(TOOLS), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent) as server:
        try:
            waited(lambda: _responds(port), timeout_s=60)
            urlopen(Request(f"http://127.0.0.1:{port}/bucket", method="PUT"))
            yield port
        finally:
            server.kill()


def _responds(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def names(prefix: str) -> set[str]:
    """The names of all objects below a prefix."""
    from pesto_runtime.store import Store

    return set(Store(prefix).names(""))


def put(name: str, data: bytes) -> str:
    """Write an object of the bucket, and give its href."""
    place = RemotePath(f"{BUCKET}/{name}")
    place.write_bytes(data)
    return place.href


@dataclass
class Proxy:
    """A proxy before a server.

    Attributes:
        port: Where it listens.
        fault: Given the number of a request, `503`, `drop` or nothing.
        held: Requests whose method and path match wait, until this is None.
        seen: Set when a request has been held.
        faults: Number of faults so far.
    """

    port: int
    fault: Callable[[int], str] = lambda _number: ""
    held: re.Pattern[str] | None = None
    seen: threading.Event = field(default_factory=threading.Event)
    faults: int = 0
    requests: int = 0

    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, request: str) -> str:
        """Count a request, let it wait if it is held, and give its fault."""
        with self._lock:
            self.requests += 1
            fault = self.fault(self.requests)
            self.faults += bool(fault)
        held = self.held
        if held is None or not held.search(request):
            return fault
        self.seen.set()
        waited(lambda: self.held is not held, timeout_s=60)
        return "drop"

    def hold(self, pattern: str) -> None:
        """Let requests wait whose `METHOD PATH` matches."""
        self.seen.clear()
        self.held = re.compile(pattern)


@contextmanager
def proxy_before(port: int) -> Iterator[Proxy]:
    """Run a proxy before the server at a port."""
    server = _ProxyServer(("127.0.0.1", 0), _Handler)
    server.upstream, server.proxy = port, Proxy(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        server.proxy.held = None
        server.shutdown()
        server.server_close()


class _ProxyServer(ThreadingHTTPServer):
    daemon_threads = True
    upstream: int
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    server: _ProxyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.proxy.fault_of(f"{self.command} {self.path}")
        if fault == "drop":
            self.close_connection = True
        elif fault:
            self._answer(503, [], b"")
        else:
            upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
            headers = {n: v for n, v in self.headers.items() if n.lower() != "connection"}
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            self._answer(response.status, response.getheaders(), response.read())
            upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""
