"""Fake services over real sockets: they describe a process rightly, and then answer as told."""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.processor import load_processor
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image
from tests.support.runs import PROCESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NPY = "application/x-npy"


class FakeService(ThreadingHTTPServer):
    """Describes itself as the test process `grow`, takes .npy, and answers what it is told.

    Attributes:
        answer: Turns the pixels of a call into status, media type and body.
        calls: How many calls came.
        accepts: Its `Accept-Post`; empty for a plain PESTO service.
        headers: Of its description.
        version: Its version document.
    """

    def __init__(self, answer: Callable[[np.ndarray], tuple[int, str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.calls = 0
        self.accepts = NPY
        self.headers: dict[str, str] = {}
        self.version: dict[str, str] = {"version": "1"}
        self.description = load_processor(f"{PROCESSES}:grow").description.to_json()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/api/v1"

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeService
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/describe"):
            body = json.dumps(self.server.description).encode()
            accepts = {"Accept-Post": self.server.accepts} if self.server.accepts else {}
            self._send(200, "application/json", body, {**accepts, **self.server.headers})
        elif self.path.endswith("/version"):
            self._send(200, "application/json", json.dumps(self.server.version).encode(), {})
        else:
            self._send(200, "text/plain", b"OK", {})

    def do_POST(self) -> None:
        self.server.calls += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, media_type, content = self.server.answer(_pixels(body, self.headers))
        self._send(status, media_type, content, {})

    def _send(self, status: int, media_type: str, body: bytes, more: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"Content-Type": media_type, "Content-Length": str(len(body)), **more}
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _pixels(body: bytes, headers: object) -> np.ndarray:
    """The image of a call, however it came."""
    if body[:1] == b"{":
        document = json.loads(body)["image"]
        if isinstance(document, dict):
            _, _, width, height = document["window"]
            return np.zeros((1, height, width), np.uint8)
        return decode_image(base64.b64decode(document)).pixels
    return decode_image(body).pixels


def as_npy(pixels: np.ndarray) -> tuple[int, str, bytes]:
    """An answer that holds an array."""
    return 200, NPY, encode_image(Image(pixels), NPY)


def as_base64(pixels: np.ndarray) -> tuple[int, str, bytes]:
    """An answer that holds an image, as PESTO writes it."""
    image = base64.b64encode(encode_image(Image(pixels), "image/tiff")).decode()
    return 200, "application/json", json.dumps({"image": image}).encode()


def slow(seconds: float) -> Callable[[np.ndarray], tuple[int, str, bytes]]:
    """Answer rightly, but late."""

    def answer(pixels: np.ndarray) -> tuple[int, str, bytes]:
        time.sleep(seconds)
        return as_npy(pixels)

    return answer


@contextmanager
def fake_service(
    answer: Callable[[np.ndarray], tuple[int, str, bytes]],
) -> Iterator[FakeService]:
    """Serve while the block runs."""
    service = FakeService(answer)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        thread.join()
        service.server_close()
