"""The clients against servers that are slow, gone, busy, or no service at all."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.async_client import AsyncClient
from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference
from pesto_runtime.errors import Busy, InvalidInput, ServiceMisbehaved, Unreachable
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

IMAGE = {"type": "string"}
PIXELS = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
DESCRIPTION = {
    "name": "plain",
    "version": "1",
    "input": {
        "definitions": {"Image": IMAGE},
        "properties": {"image": {"$ref": "#/definitions/Image"}, "n": {"type": "number"}},
        "required": ["image"],
    },
    "output": {
        "definitions": {"Image": IMAGE},
        "properties": {"image": {"$ref": "#/definitions/Image"}, "n": {"type": "number"}},
    },
}


class PlainPesto(BaseHTTPRequestHandler):
    """A server like PESTO 1.7.2: without Accept-Post, with base64, and 429 while it is busy."""

    protocol_version = "HTTP/1.1"
    working = threading.Lock()
    refused = 0
    described = 0
    bodies: list[dict[str, object]] = []  # noqa: RUF012  # one server at a time

    def do_GET(self) -> None:
        """Health and description."""
        if self.path.endswith("/health"):
            self.respond(200, b"OK", "text/plain")
        else:
            type(self).described += 1
            time.sleep(0.05)
            self.respond(200, json.dumps(DESCRIPTION).encode())

    def do_POST(self) -> None:
        """One call at a time, echoed."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.working.acquire(blocking=False):
            type(self).refused += 1
            self.respond(429, b'{"detail": "a processing is already running"}')
            return
        try:
            time.sleep(0.05)
            self.bodies.append(body)
            outputs = {"image": body["image"], "n": body.get("n"), "extra": 1}
        finally:
            self.working.release()
        self.respond(200, json.dumps(outputs).encode())

    def respond(self, status: int, content: bytes, media_type: str = "application/json") -> None:
        """Send one response."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write no log line."""


@pytest.fixture
def plain() -> Iterator[str]:
    """The URL of a plain PESTO service."""
    PlainPesto.bodies.clear()
    PlainPesto.refused = PlainPesto.described = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), PlainPesto) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def answering(reply: bytes, *, hold_s: float = 0.0) -> Iterator[str]:
    """Run a server that returns these bytes to every request."""
    listening = socket.create_server(("127.0.0.1", 0))

    def loop() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                time.sleep(hold_s)
                connection.sendall(reply)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def http(body: bytes, head: str = "HTTP/1.1 200 OK\r\nContent-Type: application/json") -> bytes:
    """A whole HTTP response."""
    return f"{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def test_a_plain_pesto_service_receives_base64_geotiff_and_no_unknown_key(plain: str) -> None:
    """There is no reserved key and no reference; unknown outputs stay JSON."""
    with Client(plain) as client:
        outputs = client.process({"image": PIXELS, "n": 2.5})
    assert client.transports == ()
    assert client.build == "plain@1"
    assert np.array_equal(np.asarray(outputs["image"]), PIXELS)
    assert (outputs["n"], outputs["extra"]) == (2.5, 1)
    (body,) = PlainPesto.bodies
    assert sorted(body) == ["image", "n"]
    sent = base64.b64decode(str(body["image"]))
    assert sent[:2] == b"II"
    assert np.array_equal(decode_image(sent).pixels, PIXELS)


def test_a_plain_pesto_service_receives_the_window_and_bands_of_a_reference(
    plain: str, tmp_path: Path
) -> None:
    """It cannot read a window: the client sends the pixels, with the bands of an overlay."""
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(Image(PIXELS, bands=("red", "nir")), "image/tiff"))
    overlay: dict[str, JsonValue] = {
        "input": {"properties": {"image": {"x-raster": {"bands": ["nir"]}}}}
    }
    with Client(plain) as first:
        described = first.described
    overlaid = replace(described, description=described.description.overlaid(overlay))
    with Client(plain, described=overlaid) as client:
        outputs = client.process(
            {"image": ImageReference(href=file_href(path), window=(1, 1, 2, 2))}
        )
    assert np.array_equal(np.asarray(outputs["image"]), PIXELS[1:, 1:3, 1:3])


def test_one_call_is_in_flight_at_a_plain_pesto_service(plain: str) -> None:
    """Eight threads and two clients of one service: it is never found busy."""
    with Client(plain) as one, Client(plain) as two:
        threads = [
            threading.Thread(target=each.process, args=({"image": PIXELS},))
            for each in (one, two) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(PlainPesto.bodies), PlainPesto.refused) == (8, 0)


def test_a_plain_pesto_service_that_others_keep_busy_is_waited_for(plain: str) -> None:
    """Two event loops share no lock, so one is refused, waits, and receives its response."""

    async def call() -> None:
        async with AsyncClient(plain) as client:
            await asyncio.gather(*(client.process({"image": PIXELS}) for _ in range(3)))

    threads = [threading.Thread(target=asyncio.run, args=(call(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(PlainPesto.bodies) == 9
    assert PlainPesto.refused > 0


def test_without_patience_a_busy_service_is_an_error(plain: str) -> None:
    """The control: the same service, and no time to wait."""
    with Client(plain, patience_s=0) as client, PlainPesto.working, pytest.raises(Busy):
        client.process({"image": PIXELS})


@pytest.mark.parametrize("keyword", [{"out": {"image": "file:///a"}}, {"partial": True}])
def test_an_option_that_a_plain_pesto_service_does_not_have_is_an_error(
    plain: str, keyword: dict[str, object]
) -> None:
    """The service would ignore the option without a message."""
    with Client(plain) as client, pytest.raises(InvalidInput, match="plain PESTO"):
        client.process({"image": PIXELS}, **keyword)  # type: ignore[arg-type]  # one of several
    assert not PlainPesto.bodies


def test_an_input_that_the_process_does_not_have_is_an_error(plain: str) -> None:
    """PESTO would ignore it without a message; the error has the names of the inputs."""
    with Client(plain) as client, pytest.raises(InvalidInput, match="there are image, n"):
        client.process({"image": PIXELS, "N": 1})


def test_a_closed_port_is_unreachable() -> None:
    """Refused connections are retried, then the error is raised."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url, retries=1) as client, pytest.raises(Unreachable, match=url):
        client.describe()


def test_a_slow_service_is_unreachable_after_the_seconds_given() -> None:
    """The message has the number of seconds."""
    with (
        answering(b"", hold_s=0.4) as url,
        Client(url, timeout_s=0.1, retries=0) as client,
        pytest.raises(Unreachable, match=r"no response within 0\.1 s"),
    ):
        client.health()


def test_a_service_that_hangs_up_is_unreachable() -> None:
    """Also in the middle of its response."""
    for reply in (b"", http(b"{}" * 50)[:-20]):
        with (
            answering(reply) as url,
            Client(url, retries=0) as client,
            pytest.raises(Unreachable, match=url),
        ):
            client.describe()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP"),
        (http(b"<html>"), "not JSON: it begins b'<html>'"),
        (http(b"[]"), "not a description"),
        (http(b'{"name": "a"}'), "not a description"),
        (http(b"<html>", "HTTP/1.1 404 Not Found"), "HTTP 404"),
        (http(b"", "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/"), "HTTP 302"),
        (http(b"no gzip at all", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip"), "cannot be decoded"),
    ],
)
def test_the_error_of_an_invalid_response_names_its_fault(reply: bytes, message: str) -> None:
    """With the URL and the first bytes; it is never retried, and redirects are not followed."""
    with (
        answering(reply) as url,
        Client(url) as client,
        pytest.raises(ServiceMisbehaved, match=message) as caught,
    ):
        client.describe()
    assert url in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("outputs", [{"image": 7}, {"image": "!!"}, {"image": "aGVsbG8="}, []])
def test_an_output_that_is_not_an_image_is_misbehaviour(plain: str, outputs: object) -> None:
    """The description declares an image."""
    with Client(plain) as first:
        described = first.described
    with (
        answering(http(json.dumps(outputs).encode())) as url,
        Client(url, described=described) as client,
        pytest.raises(ServiceMisbehaved, match=r"image|object"),
    ):
        client.process({"image": PIXELS})


def test_health_is_a_state_and_never_an_error() -> None:
    """A service that starts returns 503: that is a state, not a failure."""
    head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain"
    with answering(http(b"STARTING", head)) as url, Client(url) as client:
        assert client.health() == "STARTING"
    with (
        answering(http(b"hello", head)) as url,
        Client(url) as client,
        pytest.raises(ServiceMisbehaved, match="state of health"),
    ):
        client.health()


def test_the_asynchronous_client_returns_the_same(plain: str) -> None:
    """Both clients run the same steps."""

    async def call() -> tuple[dict[str, object], str]:
        async with AsyncClient(plain) as client:
            assert (await client.describe()).name == "plain"
            return await client.process({"image": PIXELS}), await client.health()

    outputs, health = asyncio.run(call())
    with Client(plain) as client:
        expected = client.process({"image": PIXELS})
    assert np.array_equal(np.asarray(outputs["image"]), np.asarray(expected["image"]))
    assert health == client_health(plain) == "OK"


def test_calls_that_begin_together_request_the_description_once(plain: str) -> None:
    """Four at once, from threads or from one event loop; a second client is the control."""

    async def call() -> None:
        async with AsyncClient(plain) as client:
            await asyncio.gather(*(client.describe() for _ in range(4)))

    with Client(plain) as client:
        threads = [threading.Thread(target=client.describe) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert PlainPesto.described == 1
    asyncio.run(call())
    assert PlainPesto.described == 2


def test_both_clients_have_the_same_operations() -> None:
    """One signature and one docstring each; a result to wait for, or to await."""
    names = {"describe", "health", "process", "process_many", "submit", "status", "wait", "result",
             "cancel", "find"}  # fmt: skip
    for name in names:
        blocking, awaited = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(blocking) == inspect.signature(awaited)
        assert blocking.__doc__ == awaited.__doc__
        assert (blocking.__qualname__, awaited.__qualname__) == (
            f"Client.{name}", f"AsyncClient.{name}",
        )  # fmt: skip
        assert not inspect.iscoroutinefunction(blocking)
        assert inspect.iscoroutinefunction(awaited)
    assert str(inspect.signature(Client.wait)) == (
        "(self, job_id: 'str', *, timeout_s: 'float | None' = None) -> 'Job'"
    )
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def client_health(url: str) -> str:
    """The health that the blocking client sees."""
    with Client(url) as client:
        return client.health()
