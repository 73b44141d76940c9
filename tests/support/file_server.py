"""Serves a folder over HTTP in a process of its own, as web servers and S3 do: HEAD, GET, ranges.

A process of its own, because GDAL holds the interpreter's lock while it opens a raster.

`python -m tests.support.file_server FOLDER LOG`: prints its port, and writes a line per request.
A file `FOLDER/.states` says what the server states of a file: `etag`, `modified` or `nothing`; with
`refuses` it answers 405 to HEAD, with `broken` 503 to every HEAD.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class FileServer:
    """A running server.

    Attributes:
        folder: The folder that it serves.
        port: Where it listens.
        log: One line per request: method, path, range, client.
    """

    folder: Path
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def states(self, what: str) -> None:
        """State this of every file from now on."""
        (self.folder / ".states").write_text(what)

    def heads(self) -> int:
        """Number of HEAD requests for an identity so far: GDAL makes some of its own."""
        lines = self.log.read_text().splitlines()
        return sum(line.startswith("HEAD ") and "object_store" in line for line in lines)

    @property
    def gdal_variables(self) -> dict[str, str]:
        """Variables by which GDAL takes the server for S3; buckets are folders."""
        return {
            "AWS_S3_ENDPOINT": f"127.0.0.1:{self.port}", "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES",
        }  # fmt: skip

    @property
    def obstore_variables(self) -> dict[str, str]:
        """The same in the spelling of obstore."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true",
        }  # fmt: skip


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[FileServer]:
    """Serve a folder."""
    log.touch()
    command = [sys.executable, "-m", "tests.support.file_server", str(folder), str(log)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield FileServer(folder, int(server.stdout.readline()), log)
        finally:
            server.kill()


def use(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables of S3, and none else."""
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path
    log: Path

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:  # the name that http.server wants
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(None)

    def _answer(self, body: bytes | None) -> None:
        with self.log.open("a") as log:
            agent = self.headers.get("User-Agent", "")
            log.write(f"{self.command} {self.path} {self.headers.get('Range', '')} {agent}\n")
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/moved/"):
            return self._send(302, {"Location": quote(path.removeprefix("/moved")) + "?signed=1"})
        states = self.folder / ".states"
        stated = states.read_text() if states.exists() else "etag"
        if self.command == "HEAD" and stated in ("refuses", "broken"):
            return self._send(405 if stated == "refuses" else 503, {})
        try:
            data = (self.folder / path.lstrip("/")).read_bytes()
        except OSError:
            return self._send(404, {})
        headers = {"Accept-Ranges": "bytes"}
        if stated == "etag":
            headers["ETag"] = f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324  # as S3 does
        if stated in ("etag", "modified"):
            modified = (self.folder / path.lstrip("/")).stat().st_mtime
            headers["Last-Modified"] = email.utils.formatdate(modified, usegmt=True)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self._send(200, headers, data, body)
        first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(206, headers, data[first : last + 1], body)

    def _send(
        self, status: int, headers: dict[str, str], data: bytes = b"", body: bytes | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data if body is None else body)


if __name__ == "__main__":
    _Handler.folder, _Handler.log = Path(sys.argv[1]), Path(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)  # noqa: T201  # to the test that started it
    server.serve_forever()
