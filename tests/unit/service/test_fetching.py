"""Rasters of web servers: which hops, addresses, sizes and changes are let through."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import ImageReference
from pesto_runtime.errors import (
    HrefRefused,
    PestoError,
    RasterUnreadable,
    SceneChanged,
    TooLarge,
    Unreachable,
)
from pesto_runtime.hrefs import Gate
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.raster.image import Bounds, Image
from pesto_runtime.service import fetching
from pesto_runtime.service.image_loader import ImageLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

PIXELS = np.random.default_rng(7).integers(0, 4000, (2, 300, 400), np.uint16)  # 480 000 bytes
TIFF = encode_image(Image(PIXELS), "image/tiff")
LATER = encode_image(Image(PIXELS + 1), "image/tiff")


@dataclass
class Origin:
    """A web server.

    Attributes:
        files: Path -> bytes.
        moved: Path -> where it redirects to.
        parts: Whether it answers ranges.
        statuses: Sent to the next requests in place of the file.
        pause_s: Before every 1000 bytes of a body.
        seen: The requests: path, and range.
        on_request: Called before each answer.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=lambda: {"/a.tif": TIFF})
    moved: dict[str, str] = field(default_factory=dict)
    parts: bool = True
    statuses: list[int] = field(default_factory=list)
    pause_s: float = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    on_request: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        span = request.headers.get("Range", "")
        self.seen.append((request.path, span))
        self.on_request()
        if request.path in self.moved:
            self.send(request, 302, b"", Location=self.moved[request.path])
        elif self.statuses:
            self.send(request, self.statuses.pop(0), b"")
        elif (data := self.files.get(request.path)) is None:
            self.send(request, 404, b"")
        elif not self.parts or not span:
            self.send(request, 200, data, ETag=f'"{hash(data)}"')
        else:
            first, last = (int(each) for each in span.removeprefix("bytes=").split("-"))
            body = data[first : last + 1]
            about = f"bytes {first}-{first + len(body) - 1}/{len(data)}"
            tag = f'"{hash(data)}"'
            self.send(request, 206, body, **{"Content-Range": about, "ETag": tag})

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str
    ) -> None:
        """Send an answer."""
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        with contextlib.suppress(OSError):  # the reader went away
            step = 1000 if self.pause_s else max(1, len(body))
            for at in range(0, len(body), step):
                time.sleep(self.pause_s)
                request.wfile.write(body[at : at + step])


@contextmanager
def web_server(address: str = "127.0.0.1", port: int = 0) -> Iterator[Origin]:
    """A running web server."""
    origin = Origin()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            origin.answer(self)

        def do_HEAD(self) -> None:
            origin.answer(self)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    origin.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """A web server with one raster; pauses between attempts are short."""
    monkeypatch.setattr(fetching, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    make, pools = fetching._pool.__wrapped__, ExitStack()  # to close them here
    monkeypatch.setattr(fetching, "_pool", lru_cache(lambda *key: pools.enter_context(make(*key))))
    with pools, web_server() as origin:
        yield origin


def loaded(href: str, *allow: str, identity: str | None = None, **rules: object) -> Image:
    """Read an image as a service does for its callers."""
    gate = Gate(allow or (href.rpartition("/")[0],), **rules)  # type: ignore[arg-type]  # the test's own
    loader = ImageLoader(gate, Bounds(), fetched_bytes=1 << 20)
    reference = ImageReference(href=href, identity=identity)
    return loader.load(reference.model_dump(mode="json", exclude_none=True), None)


def refusal(kind: type[PestoError], href: str, *allow: str, **rules: object) -> str:
    """The message with which an image is refused."""
    with pytest.raises(kind) as caught:
        loaded(href, *allow, **rules)  # type: ignore[arg-type]  # the test's own
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize("parts", [True, False])
def test_a_raster_is_read_in_parts_or_whole(origin: Origin, parts: bool) -> None:
    """A server without ranges sends it once; one with ranges, parts of it."""
    origin.parts = parts
    np.testing.assert_array_equal(loaded(f"{origin.url}/a.tif").pixels, PIXELS)
    assert all(span for _, span in origin.seen)
    assert (len(origin.seen) == 1) is not parts


def test_a_window_reads_only_its_parts(origin: Origin) -> None:
    """Of 10 rows of 300, a fraction of the file is sent."""
    reference: JsonValue = {"href": f"{origin.url}/a.tif", "window": [0, 0, 400, 10]}
    image = ImageLoader(Gate((origin.url,)), Bounds()).load(reference, None)
    np.testing.assert_array_equal(image.pixels, PIXELS[:, :10])
    spans = [span.removeprefix("bytes=").split("-") for _, span in origin.seen]
    assert sum(int(end) - int(begin) + 1 for begin, end in spans) < len(TIFF) * 3 / 4


def test_a_file_that_is_sent_whole_has_a_limit(origin: Origin) -> None:
    """The error says what the server lacks; with ranges, the same file is read."""
    origin.files["/a.tif"] = TIFF + bytes(1 << 20)
    np.testing.assert_array_equal(loaded(f"{origin.url}/a.tif").pixels, PIXELS)
    origin.parts = False
    assert "range requests" in refusal(TooLarge, f"{origin.url}/a.tif")


def test_redirects_are_not_followed_unless_that_is_asked_for(origin: Origin) -> None:
    """Neither to the same server nor to another one."""
    origin.moved = {"/m/a.tif": "/a.tif"}
    assert "--follow-redirects" in refusal(HrefRefused, f"{origin.url}/m/a.tif", origin.url)
    assert origin.seen == [("/m/a.tif", "bytes=0-65535")]
    found = loaded(f"{origin.url}/m/a.tif", origin.url, redirects=True)
    np.testing.assert_array_equal(found.pixels, PIXELS)


@pytest.mark.parametrize("target", ["other", "file", "ftp", "vsi", "meta", "loop", "user", "path"])
def test_each_hop_is_admitted_by_the_gate(origin: Origin, target: str) -> None:
    """A redirect leads to no other server, folder or scheme than the href itself may have."""
    with web_server() as other:
        origin.moved["/m/a.tif"] = {
            "other": f"{other.url}/a.tif",
            "file": "file:///etc/hostname",
            "ftp": f"ftp://127.0.0.1:{other.port}/a.tif",
            "vsi": f"/vsicurl/{other.url}/a.tif",
            "meta": "http://169.254.169.254/latest/meta-data",
            "loop": "/m/a.tif",
            "user": f"http://127.0.0.1:{origin.port}@127.0.0.1:{other.port}/m/a.tif",
            "path": "/m/../a.tif",
        }[target]
        refusal(HrefRefused, f"{origin.url}/m/a.tif", f"{origin.url}/m", redirects=True,
                local_files=True)  # fmt: skip
        assert other.seen == []
        assert {path for path, _ in origin.seen} == {"/m/a.tif"}


def resolver(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> list[str]:
    """Resolve names by a table in place of DNS; return the names that are asked for."""
    asked: list[str] = []

    def found(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        mine = answers.get(host, [host])
        if host in answers:
            asked.append(host)
        address = mine.pop(0) if len(mine) > 1 else mine[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return asked


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_a_name_is_not_connected_to_an_address_inside(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """An admitted name that DNS maps to this machine or its network is refused."""
    resolver(monkeypatch, {"tiles.example.org": [address]})
    href = f"http://tiles.example.org:{origin.port}/a.tif"
    assert f"--allow-network {address}" in refusal(HrefRefused, href)
    assert origin.seen == []


def test_a_name_keeps_the_address_that_was_admitted(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is resolved once for each connection; that address is used, and no later answer."""
    asked = resolver(monkeypatch, {"tiles.example.org": ["127.0.0.1", "127.0.0.9"]})
    href = f"http://tiles.example.org:{origin.port}/a.tif"
    found = loaded(href, networks=("127.0.0.1/32",))
    np.testing.assert_array_equal(found.pixels, PIXELS)
    assert asked == ["tiles.example.org"]  # several parts, one connection


def test_a_rebound_name_is_refused_at_the_next_connection(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address changes between two parts, when a connection ends: the second is not read."""
    resolver(monkeypatch, {"tiles.example.org": ["127.0.0.1", "127.0.0.9"]})
    origin.on_request = fetching._pool.cache_clear  # as when a connection expires
    href = f"http://tiles.example.org:{origin.port}/a.tif"
    assert "127.0.0.9" in refusal(HrefRefused, href, networks=("127.0.0.1/32",))


def test_a_raster_that_is_replaced_while_it_is_read_is_no_result(origin: Origin) -> None:
    """Its parts would come from two versions; the control reads one."""
    calls = iter(range(100))
    origin.on_request = lambda: origin.files.update({"/a.tif": LATER}) if next(calls) == 2 else None
    assert "replaced" in refusal(SceneChanged, f"{origin.url}/a.tif")
    np.testing.assert_array_equal(loaded(f"{origin.url}/a.tif").pixels, PIXELS + 1)


def test_the_identity_is_the_one_of_the_plan(origin: Origin) -> None:
    """What a run's HEAD states is what is compared here; another version is refused."""
    planned = identity_of(f"{origin.url}/a.tif")
    assert planned.startswith(f"{len(TIFF)}-")
    np.testing.assert_array_equal(loaded(f"{origin.url}/a.tif", identity=planned).pixels, PIXELS)
    origin.files["/a.tif"] = LATER
    assert planned in refusal(SceneChanged, f"{origin.url}/a.tif", identity=planned)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (404, RasterUnreadable, "does not exist"),
        (410, RasterUnreadable, "does not exist"),
        (401, RasterUnreadable, "credentials"),
        (403, RasterUnreadable, "credentials"),
        (416, RasterUnreadable, "empty"),
        (500, Unreachable, "500"),
        (503, Unreachable, "503"),
        (204, RasterUnreadable, "204"),
        (418, RasterUnreadable, "418"),
    ],
)
def test_each_status_has_its_error(
    origin: Origin, status: int, kind: type[PestoError], says: str
) -> None:
    """Those that pass by themselves are tried three times."""
    origin.statuses = [status] * 3
    assert says in refusal(kind, f"{origin.url}/a.tif")
    assert len(origin.seen) == (3 if kind is Unreachable else 1)


def test_a_server_that_comes_back_is_waited_for(origin: Origin) -> None:
    """Two failures in the middle of a raster cost no call."""
    origin.statuses = [503, 429]
    np.testing.assert_array_equal(loaded(f"{origin.url}/a.tif").pixels, PIXELS)


def test_no_server_and_a_slow_one_are_unreachable(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body has a deadline that grows with what has come; the control is in time."""
    monkeypatch.setattr(fetching, "_RESPONSE_S", 0.1)
    monkeypatch.setattr(fetching, "_LEAST_RATE", 1 << 30)
    origin.pause_s = 0.02
    assert "slowly" in refusal(Unreachable, f"{origin.url}/a.tif")
    monkeypatch.setattr(fetching, "_RESPONSE_S", 100.0)
    np.testing.assert_array_equal(loaded(f"{origin.url}/a.tif").pixels, PIXELS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        href = f"http://127.0.0.1:{free.getsockname()[1]}/a.tif"
        assert "away" in refusal(Unreachable, href)


def test_what_is_no_raster_is_told(origin: Origin) -> None:
    """A page of HTML, and a raster that ends in the middle."""
    origin.files = {"/a.tif": b"<html>" * 100, "/b.tif": TIFF[: len(TIFF) // 2]}
    assert "is not a raster" in refusal(RasterUnreadable, f"{origin.url}/a.tif")
    assert "truncated" in refusal(RasterUnreadable, f"{origin.url}/b.tif")


@pytest.mark.parametrize("href", ["http://127.0.0.1:{port}\t/a.tif", "http://[::1/a.tif"])
def test_an_href_that_two_parsers_read_differently_is_refused(origin: Origin, href: str) -> None:
    """Nothing is requested."""
    refusal(HrefRefused, href.format(port=origin.port), origin.url)
    assert origin.seen == []
