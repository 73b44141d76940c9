"""Any bytes lead to an answer below 500: bodies, queries and fields, from a seed.

`make fuzz` sends 10^6 of them; `FUZZ_BODIES` and `FUZZ_SEED` choose others.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.service.limits import Limits
from tests.contract.web import in_process, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.contract.web import Web

BODIES = int(os.environ.get("FUZZ_BODIES", "5000"))
SEED = int(os.environ.get("FUZZ_SEED", "20"))
TARGETS = ("tests/contract/processes.py:facts", "tests/contract/batched.py:add")
LIMITS = Limits(
    body_bytes=1 << 20, image_pixels=1 << 20, image_bytes=8 << 20, request_bytes=8 << 20
)

_SCENE = encode_image(Image(np.arange(60, dtype=np.uint16).reshape(2, 5, 6)), "image/tiff")
_NPY = io.BytesIO()
np.save(_NPY, np.arange(30.0).reshape(1, 5, 6))
_TEXTS = [
    "", "a", "\ud800", "\x00", "file:///tmp", "file:///\udcff", "s3://b/k", "http://127.0.0.1:1/",
    "/vsizip/a", "#window=0,0", "x" * 3000, base64.b64encode(_SCENE).decode(), "é" * 300,
]  # fmt: skip
_NUMBERS = [
    "0", "-1", "1e999", "-1e999", "1e-400", "9" * 400, "9" * 5000, "0.1", "NaN", "Infinity", "01",
    "1e9", "2.0",
]  # fmt: skip
_NAMES = [
    "image", "note", "factors", "a", "b", "/0/a", "pesto", "out", "tile", "roi", "finish",
    "partial", "lease_s", "read", "href", "window", "bands", "\ud800", "", "no",
]  # fmt: skip
_TYPES = [
    "application/json", "image/tiff", "image/png", "application/x-npy", "text/plain", "", "*/*",
    "multipart/form-data; boundary=b", "multipart/form-data", "text/csv", "image/x",
    "application/x-www-form-urlencoded", 'multipart/form-data; boundary="', "application/ld+json",
]  # fmt: skip
_FIELDS = {
    "prefer": ["respond-async", "wait=1e999", "wait=-1", 'x="', "wait=nan, respond-async"],
    "idempotency-key": ["", "k", '"', "k" * 300],
    "x-pesto-lease": ["0", "1e300", "nan", "-1", "5"],
    "accept": ["image/tiff", "image/*;q=", "multipart/form-data", "*/*;q=9", ";;;", "a/b;q=0"],
    "content-encoding": ["gzip", "br", "identity", "gzip, gzip"],
    "x-pesto-tile": ["x" * 500],
    "traceparent": ["00-0-0-0", "z"],
}


def _json(random_: random.Random, depth: int) -> str:
    """A JSON text, or nearly one."""
    kind = random_.random()
    if depth > 4 or kind < 0.3:
        return json.dumps(random_.choice(_TEXTS))
    if kind < 0.5:
        return random_.choice(_NUMBERS)
    if kind < 0.6:
        return random_.choice(["null", "true", "[" * 2000, "[" * 300 + "]" * 300, '{"a":' * 200])
    inner = [_json(random_, depth + 1) for _ in range(random_.randrange(4))]
    if kind < 0.75:
        return f"[{','.join(inner)}]"
    return "{" + ",".join(f"{json.dumps(random_.choice(_NAMES))}:{each}" for each in inner) + "}"


def _mutated(random_: random.Random, data: bytes) -> bytes:
    """Bytes with some changed, cut, doubled or put in."""
    found = bytearray(data)
    for _ in range(random_.randrange(6)):
        at = random_.randrange(len(found) + 1)
        kind = random_.randrange(4)
        if kind == 0 and at < len(found):
            found[at] = random_.randrange(256)
        elif kind == 1:
            del found[at : at + random_.randrange(1 + len(found) // 4)]
        elif kind == 2:
            found[at:at] = random_.randbytes(random_.randrange(9))
        else:
            found[at:at] = found[at : at + 20]
    return bytes(found)


def _npy(random_: random.Random) -> bytes:
    """An .npy file whose header is any text."""
    text = random_.choice(
        ["(", "-" * 9000, "(" * 9000, "-" * 3000 + "1", "{'shape':(1e9,)}", "{", "a"]
    )
    header = f"{text}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def _form(random_: random.Random) -> bytes:
    """A form of boundary b, or nearly one."""
    parts = b""
    for _ in range(random_.randrange(5)):
        name, kind = random_.choice(_NAMES), random_.choice(_TYPES)
        data = random_.choice([_SCENE, b"", b"5", _json(random_, 3).encode(errors="replace")])
        head = f'Content-Disposition: form-data; name="{name}"'.encode(errors="replace")
        file = random_.choice(
            [b"", b'; filename=""', b'; filename="a.tif"', b"; filename*=utf-8''a"]
        )
        parts += (
            b"--b\r\n" + head + file + b"\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + data
        )
        parts += b"\r\n"
    return parts + random_.choice([b"--b--\r\n", b"--b--", b"", b"--b\r\n"])


def _request(random_: random.Random) -> dict[str, object]:
    """One request of `POST /process`."""
    text = _json(random_, 0).encode(errors="surrogatepass")
    body = random_.choice(
        [text, text, text, _SCENE, _NPY.getvalue(), _npy(random_), _form(random_)]
    )
    if random_.random() < 0.6:
        body = _mutated(random_, body)
    headers = {"content-type": random_.choice(_TYPES)}
    for name, values in _FIELDS.items():
        if random_.random() < 0.1:
            headers[name] = random_.choice(values)
    pair = [random_.choice(_NAMES), random_.choice([*_NUMBERS, "%ff", "[" * 1000, "null", "a=b&c"])]
    query = "=".join(pair).encode(errors="replace") if random_.random() < 0.3 else b""
    return {"content": body[: 1 << 19], "headers": headers, "params": query}


@pytest.fixture(scope="module", params=TARGETS)
def web(request: pytest.FixtureRequest) -> Iterator[Web]:
    """A service that never fails by itself."""
    with in_process(request.param, [], LIMITS) as web:
        ready(web)
        yield web


@pytest.mark.timeout(0)
def test_any_bytes_have_an_answer_below_500(web: Web) -> None:
    """Each request has a random state of its own, so that one can be sent again alone."""
    statuses: dict[int, int] = {}
    for number in range(BODIES // len(TARGETS)):
        request = _request(random.Random(f"{SEED}-{number}"))  # noqa: S311  # not for security
        answer = _sent(web, request)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        told = f"{SEED}-{number}: {answer.status_code} {answer.text[:400]}"
        assert answer.status_code < 500, told
        if answer.status_code >= 400:
            assert answer.json()["type"].startswith("urn:pesto:error:"), told
    assert {*statuses} >= {200, 400, 415, 422}, "the control: it does not only reach one answer"


def _sent(web: Web, request: dict[str, object]) -> httpx.Response:
    return web("POST", "/process", **request)
