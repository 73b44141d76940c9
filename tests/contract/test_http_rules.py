"""HTTP as the standards say: methods, list fields, encodings, heads and slow bodies."""

from __future__ import annotations

import gzip
import json
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from pesto_runtime.service import bodies, connections
from pesto_runtime.service.header_fields import items, preferred
from tests.contract.serving import served
from tests.contract.web import in_process, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.contract.serving import Server
    from tests.contract.web import Web

NAP = "tests/contract/processes.py:nap"
JSON, TIFF, PNG, ANY = "application/json", "image/tiff", "image/png", "*/*"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A service with a number as input and output."""
    with served(NAP) as server:
        yield server


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", None),
        ("text/html", None),
        (ANY, JSON),
        ("image/*", TIFF),
        ("image/*;q=0.5, image/tiff;q=0", PNG),
        ("*/*, application/json;q=0.1", TIFF),
        ("image/png;q=0.3, image/tiff;q=0.7", TIFF),
        ("image/tiff;q=nan", None),
        ("image/tiff;q=-1, */*;q=0.1", JSON),
        ("image/tiff;q=1.5, image/png;q=0.001", PNG),
        ('image/png;note="a,b;q=0", image/tiff;q=0.9', PNG),
        ("IMAGE/TIFF; Q=1", TIFF),
        (";;;, ;q=1", None),
        ("text/html, */*;q=0.8", JSON),
    ],
)
def test_the_most_specific_range_states_the_weight(accept: str, chosen: str | None) -> None:
    """RFC 9110, section 12.5.1; computed by hand."""
    assert preferred(accept, (JSON, TIFF, PNG)) == chosen


def test_a_list_has_quoted_texts_and_parameters() -> None:
    """Commas and semicolons in quotes do not separate."""
    first, second = items('respond-async;x="a,b;\\"c", , WAIT=5')
    assert (first.name, dict(first.parameters)) == ("respond-async", {"x": 'a,b;"c'})
    assert (second.name, second.value) == ("wait", "5")


@pytest.mark.parametrize(
    "lines",
    [
        ["wait=1", "respond-async"],
        ['respond-async;x="a,b", wait=0'],
        ['respond-async;x="y"'],
        ["return=minimal", "respond-async, wait=1"],
    ],
)
def test_the_lines_of_a_list_are_one_list(server: Server, lines: list[str]) -> None:
    """The control is a preference within a quoted text, which is none."""
    headers = [("Prefer", line) for line in lines]
    answer = server("POST", "/process", json={"seconds": 0.01}, headers=headers)
    assert answer.status_code == 201
    quoted = [("Prefer", 'x="a, respond-async"')]
    assert server("POST", "/process", json={"seconds": 0.01}, headers=quoted).status_code == 200


def test_head_is_get_without_the_body(server: Server) -> None:
    """On each path that can be read; OPTIONS and 405 list the methods of all routes of a path."""
    job = server("POST", "/process", json={"seconds": 0.01}, headers={"Prefer": "respond-async"})
    job_path = f"/jobs/{job.json()['id']}"
    server.over(job.json()["id"])
    host = server.url.removesuffix("/api/v1")
    below = ["/describe", "/health", "/version", "/openapi", "/metrics", "/jobs", job_path,
             f"{job_path}/status", f"{job_path}/results", f"{job_path}/log"]  # fmt: skip
    urls = [*(server.url + each for each in below), f"{host}/docs", f"{host}/metrics"]
    for url in urls:
        head, got = server.http.head(url), server.http.get(url)
        assert (head.status_code, head.content) == (got.status_code, b"") == (200, b""), url
        assert head.headers["content-type"] == got.headers["content-type"]
    for path, methods in ((job_path, "DELETE, GET, HEAD, OPTIONS"), ("/process", "OPTIONS, POST")):
        options = server("OPTIONS", path)
        assert (options.status_code, options.headers["allow"]) == (204, methods)
        refused = server("PUT", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, methods)


def test_the_printed_address_leads_to_the_page(server: Server) -> None:
    """And a path that is none names those that are."""
    host = server.url.removesuffix("/api/v1")
    for url in (host, f"{host}/", server.url, f"{server.url}/"):
        page = server.http.get(url, headers={"Accept": "text/html"}, follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/docs")
    absent = server("GET", "/nothing")
    assert absent.status_code == 404
    assert "/api/v1/describe" in absent.json()["detail"]


def test_a_gzip_body_is_decoded_within_the_limits() -> None:
    """Other encodings are refused by name; a small body may not contain a huge one."""
    from pesto_runtime.service.limits import Limits

    with in_process(NAP, [], Limits(body_bytes=1 << 20)) as web:
        ready(web)
        body = json.dumps({"seconds": 0.25}).encode()
        assert _sent(web, gzip.compress(body), "gzip").json() == {"slept": 0.25}
        assert _sent(web, gzip.compress(body), "identity, x-gzip").json() == {"slept": 0.25}
        assert _sent(web, body, "identity").json() == {"slept": 0.25}
        bomb = gzip.compress(b" " * (64 << 20) + body)
        assert len(bomb) < 1 << 20
        assert _sent(web, bomb, "gzip").status_code == 413
        for data in (body, gzip.compress(body)[:-9], b""):
            assert _sent(web, data, "gzip").status_code == 400
        for encoding in ("br", "deflate", "gzip, gzip"):
            refused = _sent(web, gzip.compress(body), encoding)
            assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "gzip")
            assert encoding in refused.json()["detail"]


def _sent(web: Web, data: bytes, encoding: str) -> httpx.Response:
    headers = {"Content-Type": JSON, "Content-Encoding": encoding}
    return web("POST", "/process", content=data, headers=headers)


def _socket(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((str(address.hostname), address.port or 80), timeout=30)


def _answer(sent: socket.socket) -> bytes:
    data = b""
    while piece := sent.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /api/v1/health HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (70 << 10), b"431"),
        (
            b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (70 << 10) + b"\r\n\r\n",
            b"431",
        ),
        (b"GET /" + b"x" * (70 << 10), b"431"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20000, b"431"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /api/v1/health HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_a_head_has_one_host_and_64_kib(server: Server, head: bytes, status: bytes) -> None:
    """The last two are the controls."""
    with _socket(server) as sent:
        sent.sendall(head)
        assert _answer(sent).split(b" ", 2)[1] == status


def test_many_slow_callers_take_no_place_of_others() -> None:
    """More bodies that stay incomplete than there are places; other calls and health go on."""
    with served(NAP, "--queue", "2") as server:
        slow = [_socket(server) for _ in range(60)]
        head = b"POST /api/v1/process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
        for each in slow:
            each.sendall(head)
        time.sleep(0.5)
        for number in range(5):
            seconds = number / 100
            answer = server("POST", "/process", json={"seconds": seconds})
            assert answer.json() == {"slept": seconds}
        for each in slow:
            each.close()


def test_silence_ends_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """No head, half a head, half a body: each ends after its time, told where that is possible."""
    code = (
        "from pesto_runtime.service import bodies, connections; from pesto_runtime.cli import main;"
        "bodies.SILENCE_S = connections.HEAD_S = 1; main()"
    )
    monkeypatch.setattr("tests.contract.serving._PESTO", code)
    assert (bodies.SILENCE_S, connections.HEAD_S) == (30, 30), "the control: of the package"
    post = b"POST /api/v1/process HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    begun = {
        b"": b"",
        b"GET /api/v1/health HTTP/1.1\r\nHo": b"408",
        post + b"Content-Length: 9\r\n\r\n{": b"408",
    }
    with served(NAP) as server:
        for head, status in begun.items():
            with _socket(server) as sent:
                sent.sendall(head)
                said = _answer(sent)
                assert said.split(b" ", 2)[1:2] == ([status] if status else [])
                assert (b"no byte of the body" in said) == head.startswith(b"POST")
