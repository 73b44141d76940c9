"""A small real proxy that asks for credentials, in a process of its own.

`python -m tests.support.gatekeeper LOG UPSTREAM NEEDED`: prints its port. A request with the
headers NEEDED (JSON) is passed on without them; others are answered by 401. A text that ends
with `*` is the start of one, which is passed on. A path below `/away` is
redirected to UPSTREAM itself, with or without credentials. LOG has a line per request: JSON of its
method, path, status and headers. With the upstream `-`, each request is answered by 200 and "here".
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
_HOP = ("connection", "transfer-encoding", "host", "date", "server", "keep-alive")


@dataclass(frozen=True)
class Gatekeeper:
    """A running proxy.

    Attributes:
        port: Where it listens.
        log: Its file of requests.
    """

    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address, which is an origin."""
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> list[dict[str, str]]:
        """The headers of every request, lower case, with `:status` and `:path`."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def gatekeeper(
    log: Path, upstream: str = "-", needed: Mapping[str, str] | None = None
) -> Iterator[Gatekeeper]:
    """Run the proxy before a server, for requests that have these headers."""
    log.touch()
    command = [sys.executable, "-m", "tests.support.gatekeeper", str(log), upstream,
               json.dumps(dict(needed or {}))]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Gatekeeper(int(process.stdout.readline()), log)
        finally:
            process.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    log_file: Path
    upstream: str
    needed: Mapping[str, str]

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        found = {name.lower(): text for name, text in self.headers.items()}
        status, headers, data = self._answer(found, body)
        with self.log_file.open("a") as file:
            line = {**found, ":status": str(status), ":path": self.path, ":method": self.command}
            file.write(json.dumps(line) + "\n")
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_HEAD = do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815  # names of http.server

    def _answer(self, found: dict[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if self.path.startswith("/away"):
            return 302, {"Location": self.upstream + self.path.removeprefix("/away")}, b""
        if not all(_is_such(found.get(name.lower()), text) for name, text in self.needed.items()):
            return 401, {"WWW-Authenticate": "Bearer"}, b"credentials, please"
        if self.upstream == "-":
            return 200, {"Content-Type": "text/plain"}, b"here"
        hidden = (*_HOP, *(n.lower() for n, text in self.needed.items() if not text.endswith("*")))
        passed = {name: text for name, text in found.items() if name not in hidden}
        address = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        connection.request(self.command, self.path, body or None, passed)
        with connection.getresponse() as answer:
            data = answer.read()
            headers = {n: t for n, t in answer.getheaders() if n.lower() not in _HOP}
            return answer.status, headers, data

    def log_message(self, *_: object) -> None:
        """Write nothing to standard error."""


def _is_such(text: str | None, needed: str) -> bool:
    if text is None or not needed.endswith("*"):
        return text == needed
    return text.startswith(needed[:-1])


def _main() -> None:
    _Handler.log_file, _Handler.upstream = Path(sys.argv[1]), sys.argv[2]
    _Handler.needed = json.loads(sys.argv[3])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)  # noqa: T201  # for the parent
        server.serve_forever()


if __name__ == "__main__":
    _main()
