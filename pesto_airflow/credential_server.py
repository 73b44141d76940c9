"""Serve a document with credentials to clients of AWS on this machine, until standard input ends.

Standard input has the path at which it is served, then a line for each version of the document.
The port is printed. It is a process of its own: GDAL requests credentials while it holds Python's
lock, so that a thread of its process could not respond.
"""

from __future__ import annotations

import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class _Handler(BaseHTTPRequestHandler):
    path_of_document = ""
    document = b""

    def do_GET(self) -> None:
        """Respond with the document to those who know its path."""
        if not secrets.compare_digest(self.path, self.path_of_document):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = self.document
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing: its lines would have the path."""


def main() -> None:
    """Serve until the process that started this one has ended."""
    _Handler.path_of_document = sys.stdin.readline().strip()
    _Handler.document = sys.stdin.readline().encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201  # for the parent
    for line in sys.stdin:
        _Handler.document = line.encode()


if __name__ == "__main__":
    main()
