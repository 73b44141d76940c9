"""A gateway before a real Conductor that requires tokens, TLS and a path prefix.

`python -m tests.support.token_gateway UPSTREAM CERTIFICATE`: prints its port. A key is exchanged
for a token, which is valid for 20 requests; only the paths below PREFIX/api exist.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
KEY = {"keyId": "me", "keySecret": "hush"}
PREFIX = "/orch/conductor"
_USES = 20
_HOP = ("connection", "transfer-encoding", "host", "date", "server", "keep-alive")


@contextmanager
def token_gateway(upstream: str, certificate: Path) -> Iterator[str]:
    """Run the gateway before a Conductor's /api; yield the URL of its own /api."""
    command = [sys.executable, "-m", "tests.support.token_gateway", upstream, str(certificate)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"https://127.0.0.1:{int(process.stdout.readline())}{PREFIX}/api"
        finally:
            process.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    upstream: str
    numbers = itertools.count()
    uses: Counter[str] = Counter()  # noqa: RUF012  # of the process

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, headers, data = self._answer(body)
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815  # names of http.server

    def _answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not self.path.startswith(f"{PREFIX}/api/"):
            return 404, {}, b"no such page"
        if self.path == f"{PREFIX}/api/token":
            if json.loads(body) != KEY:
                return 401, {}, b"{}"
            token = f"token-{next(self.numbers)}"
            self.uses[token] = _USES
            data = json.dumps({"token": token}).encode()
            return 200, {"Content-Type": "application/json"}, data
        token = self.headers.get("X-Authorization", "")
        self.uses[token] -= 1
        if self.uses[token] < 0:
            return 401, {}, json.dumps({"error": "EXPIRED_TOKEN", "message": "no token"}).encode()
        return self._passed_on(body)

    def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        address = urlsplit(self.upstream)
        passed = {name: text for name, text in self.headers.items() if name.lower() not in _HOP}
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        connection.request(self.command, self.path.removeprefix(PREFIX), body or None, passed)
        with connection.getresponse() as answer:
            data = answer.read()
            hidden = (*_HOP, "content-length")
            headers = {n: t for n, t in answer.getheaders() if n.lower() not in hidden}
            return answer.status, headers, data

    def log_message(self, *_: object) -> None:
        """Write nothing to standard error."""


def _main() -> None:
    _Handler.upstream = sys.argv[1]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        print(server.server_port, flush=True)  # noqa: T201  # for the parent
        server.serve_forever()


if __name__ == "__main__":
    _main()
