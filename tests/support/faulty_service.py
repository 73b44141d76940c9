"""A proxy of a service, with one planted fault for each path: `http://HOST:PORT/FAULT/api/v1`.

Each fault breaks one promise of the contract, and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import numpy as np
import uvicorn

from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Document = dict[str, Any]  # JSON that a fault changes
Fault: TypeAlias = "Callable[[Proxy, Asked, Given], Given]"


@dataclass(frozen=True)
class Asked:
    """A request: method, path below /api/v1, body."""

    method: str
    path: str
    body: bytes

    @property
    def document(self) -> Document:
        """Its body as JSON."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass
class Given:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Document:
        """Its body as JSON."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def of(self, document: Document) -> Given:
        """The same response with another body."""
        return replace(self, body=json.dumps(document).encode())


@dataclass
class Proxy:
    """Forwards requests to a service, and plants the fault that the path names."""

    upstream: str
    http: httpx.Client
    count: int = 0
    running: int = 0
    last: Given | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, scope: Document, receive: Any, send: Any) -> None:
        """Serve a request of ASGI."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        fault, _, path = scope["path"].lstrip("/").partition("/api/v1")
        asked = Asked(scope["method"], path, body)
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        given = await self.answer(fault, asked, headers)
        length = ("content-length", "transfer-encoding", "content-encoding")
        names = [(k.encode(), v.encode()) for k, v in given.headers.items() if k not in length]
        names.append((b"content-length", str(len(given.body)).encode()))
        await send({"type": "http.response.start", "status": given.status, "headers": names})
        await send({"type": "http.response.body", "body": given.body})

    async def answer(self, fault: str, asked: Asked, headers: dict[str, str]) -> Given:
        """Forward a request, and break the promise of a fault."""
        if fault == "held_health":
            async with self.turn:
                return await self.forward(asked, headers)
        if fault == "undead_job" and asked.method == "DELETE":
            return Given(200, {"content-type": "application/json"}, b"{}")
        if fault in ASKED and asked.path == "/process" and asked.body.startswith(b"{"):
            asked = replace(asked, body=json.dumps(ASKED[fault](asked.document)).encode())
        self.running += asked.path == "/process"
        try:
            given = await self.forward(asked, headers)
            if fault == "mixed" and self.running > 1 and self.last is not None:
                given = self.last
            self.last = given if asked.path == "/process" else self.last
        finally:
            self.running -= asked.path == "/process"
        self.count += 1
        if asked.path == "/describe":
            given.headers.pop("accept-post", None)  # images then travel in JSON
        return GIVEN[fault](self, asked, given) if fault in GIVEN else given

    async def forward(self, asked: Asked, headers: dict[str, str]) -> Given:
        """Forward a request."""
        kept = {k: v for k, v in headers.items() if k in ("content-type", "accept", "prefer")}
        # In a thread: a call goes on if its caller leaves, which is the fault "abandoned".
        answer = await asyncio.to_thread(
            self.http.request, asked.method, self.upstream + asked.path,
            content=asked.body, headers=kept,
        )  # fmt: skip
        return Given(answer.status_code, dict(answer.headers), answer.content)


def described(change: Callable[[Proxy, Document], None]) -> Fault:
    """A fault of the description."""

    def fault(proxy: Proxy, asked: Asked, given: Given) -> Given:
        if asked.path != "/describe":
            return given
        document = given.document
        change(proxy, document)
        return given.of(document)

    return fault


def returned(change: Callable[[Proxy, Document], None]) -> Fault:
    """A fault of the outputs of a call."""

    def fault(proxy: Proxy, asked: Asked, given: Given) -> Given:
        if asked.path != "/process" or given.status != 200:
            return given
        document = given.document
        change(proxy, document)
        return given.of(document)

    return fault


def image(name: str, change: Callable[[Image], Image]) -> Fault:
    """A fault of an image output."""

    def recode(_: Proxy, document: Document) -> None:
        found = decode_image(base64.b64decode(document[name]))
        document[name] = base64.b64encode(encode_image(change(found), "image/tiff")).decode()

    return returned(recode)


def refused(change: Callable[[Asked, Given], Given]) -> Fault:
    """A fault of refusals."""

    def fault(_: Proxy, asked: Asked, given: Given) -> Given:
        return change(asked, given) if given.status >= 400 else given

    return fault


def without_header(name: str, least_status: int) -> Fault:
    def fault(_: Proxy, asked: Asked, given: Given) -> Given:
        if given.status >= least_status:
            given.headers.pop(name, None)
        return given

    return fault


def dangling(_: Proxy, document: Document) -> None:
    document["output"]["properties"]["total"] = {"$ref": "#/definitions/Nothing"}


def marginless(_: Proxy, document: Document) -> None:
    document["input"]["properties"]["image"]["x-raster"]["margin"] = 0


def all_valid(document: Document) -> Document:
    if "valid" in document or "image" not in document:
        return document
    shape = decode_image(base64.b64decode(document["image"])).pixels.shape
    mask = encode_image(Image(np.full((1, *shape[1:]), 255, np.uint8)), "image/tiff")
    return {**document, "valid": base64.b64encode(mask).decode()}


def other_status(status: int) -> Fault:
    def change(_: Asked, given: Given) -> Given:
        return replace(given.of({**given.document, "status": status}), status=status)

    return refused(change)


def traced(_: Asked, given: Given) -> Given:
    return given.of({**given.document, "detail": "Traceback (most recent call last): ..."})


AS_JSON = {"content-type": "application/json"}
ASKED: dict[str, Callable[[Document], Document]] = {
    "ignored_default": lambda document: {"threshold": 3, **document},
    "ignored_nodata": all_valid,
}
GIVEN: dict[str, Any] = {
    "no_input": described(lambda _, d: d.pop("input")),
    "dangling_reference": described(dangling),
    "changing_description": described(lambda proxy, d: d.update(title=str(proxy.count))),
    "dead_link": described(lambda _, d: d["_links"]["health"].update(href="/api/v1/nowhere")),
    "no_margin": described(marginless),
    "unstated_code": without_header("x-pesto-build", 400),
    "no_version": lambda _, asked, given: (
        given.of({"name": "x"}) if asked.path == "/version" else given
    ),
    "extra_output": returned(lambda _, d: d.update(extra=1)),
    "missing_outputs": returned(lambda _, d: d.clear()),
    "text_for_number": returned(lambda _, d: d.update(total="12")),
    "counting": returned(lambda proxy, d: d.update(total=proxy.count)),
    "wrong_example": returned(lambda _, d: d.update(result=d["result"] + 1)),
    "wrong_dtype": image("bright", lambda i: replace(i, pixels=i.pixels.astype(np.uint16))),
    "wrong_bands": image(
        "bright", lambda i: replace(i, pixels=np.repeat(i.pixels, 2, 0), bands=())
    ),
    "cut_to_bytes": image("largest", lambda i: replace(i, pixels=i.pixels.astype(np.uint8))),
    "no_crs": image("largest", lambda i: replace(i, crs=None)),
    "no_transform": image("largest", lambda i: replace(i, transform=(1, 0, 0, 0, 1, 0))),
    "no_nodata": image("largest", lambda i: replace(i, nodata=None)),
    "no_retry_after": without_header("retry-after", 400),
    "no_fields": refused(lambda _, given: given.of({**given.document, "errors": []})),
    "server_error": other_status(500),
    "traceback": refused(traced),
    "plain_json": refused(
        lambda _, given: replace(
            given, headers={**given.headers, "content-type": "application/json"}
        )
    ),
    "bad_gateway": other_status(400),
    "echo": refused(
        lambda asked, given: given.of({**given.document, "input": asked.body.decode("latin-1")})
    ),
}


@contextmanager
def faulty(upstream: str) -> Iterator[str]:
    """A proxy of a service; its address, to which the name of a fault is appended."""
    http = httpx.Client(trust_env=False, timeout=60)
    server = uvicorn.Server(uvicorn.Config(Proxy(upstream, http), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        http.close()
