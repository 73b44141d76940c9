"""Sends the requests of `pesto_requests` to a service, and writes its answers so that they compare.

`python -m tests.support.pesto_answers URL STATEFUL_URL` prints the answers of two services as JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
import numpy as np
import rasterio

from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image
from tests.support.pesto_requests import cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from tests.support.pesto_requests import Case, Step

_STANDS_FOR = re.compile(r"\{(file|base64|http|path):([\w.]+)\}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}=*")
_JOB = re.compile(r"/jobs/(\w+)/status")
_KINDS = {b"\x89PNG": "png", b"II*\x00": "tiff", b"MM\x00*": "tiff", b"\xff\xd8\xff": "jpeg"}
_TIFF, _PNG = "image/tiff", "image/png"


@dataclass(frozen=True)
class Images:
    """The images that requests refer to: in a folder, and behind an address."""

    folder: Path
    address: str

    def filled_in(self, value: JsonValue) -> JsonValue:
        """A request with its images in place."""
        if isinstance(value, dict):
            return {key: self.filled_in(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.filled_in(each) for each in value]
        return _STANDS_FOR.sub(self._form, value) if isinstance(value, str) else value

    def _form(self, found: re.Match[str]) -> str:
        path = self.folder / found[2]
        if found[1] == "base64":
            return base64.b64encode(path.read_bytes()).decode()
        if found[1] == "http":
            return f"{self.address}/{found[2]}"
        return str(path) if found[1] == "path" else file_href(path)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def images() -> Iterator[Images]:
    """Make the images, and serve them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _fill(folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=name))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Images(folder, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _fill(folder: Path) -> None:
    def ramp(bands: int, dtype: str, size: tuple[int, int] = (12, 16)) -> np.ndarray:
        return np.arange(bands * size[0] * size[1]).astype(dtype).reshape(bands, *size)

    for name, pixels, kind in (
        ("rgb.tif", ramp(3, "uint8"), _TIFF), ("rgb.png", ramp(3, "uint8"), _PNG),
        ("grey.png", ramp(1, "uint8"), _PNG), ("u16.tif", ramp(1, "uint16") * 300, _TIFF),
        ("u16x4.tif", ramp(4, "uint16"), _TIFF), ("u8x6.tif", ramp(6, "uint8"), _TIFF),
        ("f32.tif", ramp(1, "float32"), _TIFF), ("wide.tif", ramp(1, "uint16", (64, 64)), _TIFF),
    ):  # fmt: skip
        (folder / name).write_bytes(encode_image(Image(pixels), kind))
    _write_grey_jpeg(folder / "rgb.jpg")
    (folder / "text.txt").write_text("not an image at all")
    (folder / "broken.tif").write_bytes((folder / "rgb.tif").read_bytes()[:60])


def _write_grey_jpeg(path: Path) -> None:
    """One grey: decoders differ by a step or two elsewhere."""
    with rasterio.open(
        path, "w", driver="JPEG", width=16, height=12, count=3, dtype="uint8"
    ) as dataset:
        dataset.write(np.full((3, 12, 16), 128, np.uint8))


def answers(case: Case, url: str, found: Images) -> list[JsonValue]:
    """What a service answers, step by step, so that answers of two services compare.

    Args:
        case: What to send.
        url: Of the service, with `/api/v1`.
        found: The images it refers to.
    """
    told: list[JsonValue] = []
    job = "nosuch"
    with httpx.Client(trust_env=False, timeout=60, limits=_ONE_EACH) as http:
        for step in case.steps:
            answer = _sent(http, step, url, found, job)
            made = _JOB.search(answer.text) if step.method == "POST" else None
            job = made[1] if made else job
            told.append(_told(answer, {url: "URL", job: "JOB", str(found.folder): "FOLDER"}))
    return told


_ONE_EACH = httpx.Limits(max_keepalive_connections=0)


def _sent(http: httpx.Client, step: Step, url: str, found: Images, job: str) -> httpx.Response:
    headers = dict(step.headers)
    content = step.raw
    if content is None and step.method == "POST":
        content = json.dumps(found.filled_in(step.document))
    if content is not None:
        headers = {"Content-Type": "application/json", **headers}
    return http.request(
        step.method, url + step.path.replace("{job}", job), content=content, headers=headers
    )


def _told(answer: httpx.Response, names: dict[str, str]) -> JsonValue:
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    head: dict[str, JsonValue] = {"status": answer.status_code, "type": media_type}
    if answer.status_code >= 400:
        return head  # the words of an error are its own
    if media_type == "application/json":
        return {**head, "body": _compared(answer.json(), names)}
    return {**head, "body": _image(answer.content) or _compared(answer.text, names)}


def _compared(value: JsonValue, names: dict[str, str]) -> JsonValue:
    if isinstance(value, dict):
        return {key: _compared(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_compared(each, names) for each in value]
    if not isinstance(value, str):
        return value
    if _BASE64.fullmatch(value):
        try:
            return _image(base64.b64decode(value)) or value
        except binascii.Error:
            return value
    for text, name in names.items():
        value = value.replace(text, name)
    return value


def _image(data: bytes) -> JsonValue:
    """What an image file holds; None for what is none."""
    kind = next((name for magic, name in _KINDS.items() if data.startswith(magic)), None)
    if kind is None:
        return None
    pixels = decode_image(data).pixels
    crc = binascii.crc32(np.ascontiguousarray(pixels).tobytes())
    return {"image": kind, "dtype": pixels.dtype.name, "shape": list(pixels.shape), "crc": crc}


def main(url: str, stateful_url: str) -> None:
    """Print all answers of a service and of its asynchronous profile."""
    with images() as found:
        told = {
            case.id: answers(case, stateful_url if case.is_stateful else url, found)
            for case in cases()
        }
    lines = (f" {json.dumps(name)}: {json.dumps(each)}" for name, each in told.items())
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
