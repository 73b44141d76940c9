"""Connections: how many an address has, requests before a response, small responses at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from pesto_runtime.service.connections import MOST_PIPELINED, AddressCounts, BoundedConnection
from pesto_runtime.service.exposure import Exposure

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what a connection writes."""

    def __init__(self) -> None:
        """Be open."""
        super().__init__({"peername": ("127.0.0.1", 7), "sockname": ("127.0.0.1", 8)})
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep bytes."""
        self.writes.append(bytes(data))

    def close(self) -> None:
        """Be closed."""
        self.is_closed = True

    def is_closing(self) -> bool:
        """Return whether it is closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


def opened(app: Any, addresses: AddressCounts) -> tuple[BoundedConnection, Transport]:
    """A connection to an application, as uvicorn makes it."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    config.load()
    connection = BoundedConnection(
        config=config, server_state=ServerState(), app_state={}, addresses=addresses
    )
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


def response(*messages: Message) -> Any:
    """An application that sends these messages."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for each in messages:
            await send(each)

    return app


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def answered(app: Any, request: bytes = _REQUEST) -> list[bytes]:
    """What is written in response to a request."""
    return (await transport_of(app, request)).writes


async def transport_of(app: Any, request: bytes = _REQUEST) -> Transport:
    """The transport after the response to a request."""
    connection, transport = opened(app, AddressCounts(1))
    connection.data_received(request)
    while connection.tasks:
        await asyncio.wait(connection.tasks)
        await asyncio.sleep(0)
    was_closed = transport.is_closed
    connection.connection_lost(None)
    transport.is_closed = was_closed
    return transport


def test_a_small_response_is_one_write_and_the_same_bytes() -> None:
    """As uvicorn writes it in two; a response in pieces, or without a length, is uvicorn's."""
    fields = ((b"Content-Length", b"4"), (b"X-Name", b"value"))
    whole = asyncio.run(answered(response(start(*fields), body(b"done"))))
    expected = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-name: value\r\n\r\ndone"
    # The control: the same response in pieces.
    pieces = asyncio.run(answered(response(start(*fields), body(b"do", more=True), body(b"ne"))))
    assert len(pieces) == 3
    assert b"".join(pieces) == expected
    lower = tuple((name.lower(), value) for name, value in fields)
    assert asyncio.run(answered(response(start(*lower), body(b"done")))) == [expected]
    assert b"".join(whole) == expected


@pytest.mark.parametrize(
    ("request_", "app", "ends"),
    [
        (_REQUEST.replace(b"GET", b"HEAD"), response(start((b"content-length", b"4")), body(b"")),
         b"content-length: 4\r\n\r\n"),
        (_REQUEST, response(start(), body(b"done")), b"4\r\ndone\r\n0\r\n\r\n"),
        (_REQUEST, response(start((b"content-length", b"0"), (b"connection", b"close")), body(b"")),
         b"connection: close\r\n\r\n"),
        (_REQUEST, response(start(status=304), body(b"")), b"Not Modified\r\n\r\n"),
        (_REQUEST, response(start((b"content-length", b"9"))), b"Internal Server Error"),
        (_REQUEST, response(start((b"content-length", b"1"), (b"x", b"a\r\nb")), body(b"1")), b""),
    ],
)  # fmt: skip
def test_other_responses_are_those_of_uvicorn(request_: bytes, app: Any, ends: bytes) -> None:
    """HEAD, chunks, a connection that ends, no body, an unfinished one, a field of two lines."""
    written = b"".join(asyncio.run(answered(app, request_)))
    assert written.endswith(ends)
    assert b"a\r\nb" not in written


def test_a_body_is_not_sent_to_head_and_a_wrong_length_ends_the_connection() -> None:
    """As uvicorn does; the control stays open."""
    whole = (start((b"content-length", b"4")), body(b"done"))
    head = asyncio.run(answered(response(*whole), _REQUEST.replace(b"GET", b"HEAD")))
    assert b"done" not in b"".join(head)
    assert not asyncio.run(transport_of(response(*whole))).is_closed
    for fields in (
        [(b"content-length", b"9")],
        [(b"content-length", b"4"), (b"connection", b"close")],
    ):
        ended = response(start(*fields), body(b"done"))
        assert asyncio.run(transport_of(ended)).is_closed


def test_an_address_has_so_many_connections_and_a_proxy_any_number() -> None:
    """The next one is refused; when one ends, another is admitted."""

    async def refused(addresses: AddressCounts, connections: int) -> list[bool]:
        made = [opened(response(), addresses) for _ in range(connections)]
        for connection, _ in made:
            connection.data_received(_REQUEST)
        started = [bool(connection.tasks) for connection, _ in made]
        found = [bool(t.writes) and b" 429 " in t.writes[0] and t.is_closed for _, t in made]
        assert started == [not each for each in found]
        for connection, _ in made:
            connection.connection_lost(None)
        return found

    counts = AddressCounts(2)
    for _ in range(2):  # what has ended does not count
        assert asyncio.run(refused(counts, 3)) == [False, False, True]
    proxies = Exposure(proxies=("127.0.0.0/8",))
    assert asyncio.run(refused(AddressCounts(2, proxies.is_proxy), 3)) == [False] * 3
    others = Exposure(proxies=("10.0.0.1",))
    assert asyncio.run(refused(AddressCounts(2, others.is_proxy), 3)) == [False, False, True]


def test_a_connection_sends_so_many_requests_before_a_response() -> None:
    """One more closes it, without a response that the client would take for an earlier one's."""

    async def closed(requests: int) -> tuple[bool, int]:
        may_end = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await may_end.wait()
            await send(start((b"content-length", b"0")))
            await send(body(b""))

        connection, transport = opened(app, AddressCounts(1))
        connection.data_received(_REQUEST * requests)
        was_closed, written = transport.is_closed, len(transport.writes)
        assert written == 0
        may_end.set()
        while connection.tasks and not was_closed:
            await asyncio.wait(connection.tasks)
            await asyncio.sleep(0)
        return was_closed, len(transport.writes)

    assert asyncio.run(closed(MOST_PIPELINED + 1)) == (False, MOST_PIPELINED + 1)
    assert asyncio.run(closed(MOST_PIPELINED + 2))[0]
