"""Requests to Conductor: authentication by a token, unchanged JSON, errors with their solution."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import threading
from base64 import b64encode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.client import Conductor
from pesto_conductor.taskqueue import TaskQueue
from pesto_runtime.errors import InvalidInput, NotFound, ServiceMisbehaved, Unreachable
from tests.support.certificates import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_conductor.taskqueue import Assignment

KEY = {"keyId": "me", "keySecret": "hush"}

RESPONSES: dict[str, tuple[int, JsonValue]] = {
    "/api/workflow/gone": (404, {"message": "no such workflow"}),
    "/api/workflow/broken": (500, {"message": "out of order"}),
    "/api/workflow": (200, "d5c3ec98-9f77-424c-8047-2e69c9fe8ae9"),
    "/api/metadata/workflow/validate": (
        400,
        {"message": "invalid", "validationErrors": [{"path": "tasks", "message": "are empty"}]},
    ),
    "/api/metadata/workflow": (200, {"name": "w", "nobodyKnows": {"this": None}}),
    "/api/tasks/poll": (
        200,
        [{"taskId": "t", "workflowInstanceId": "w", "taskType": "pesto_call"}],
    ),
    "/api/tasks/queue": (200, {"pesto_plan": 0}),
    "/api/": (200, [{"name": "pesto_call"}]),
}
"""Start of a path -> status and document; the first that fits."""


class Locked(BaseHTTPRequestHandler):
    """A Conductor that returns a token for a key, and rejects requests without the token."""

    protocol_version = "HTTP/1.1"
    valid = "first"
    requests: list[tuple[str, JsonValue]] = []  # noqa: RUF012  # one server at a time
    peers: set[object] = set()  # noqa: RUF012  # as above
    users: list[str] = []  # noqa: RUF012  # as above

    def do_GET(self) -> None:
        """Definitions, a page of tasks, and three kinds of failure."""
        self.take(None)

    def do_POST(self) -> None:
        """A token for the key; else as any request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/token":
            self.respond(200, {"token": self.valid}) if body == KEY else self.respond(401, {})
        else:
            self.take(body)

    def take(self, body: JsonValue) -> None:
        """Respond to a request that has the token."""
        if not self.path.startswith("/api/"):
            self.respond(404, {"message": "no such page"})
            return
        if self.headers.get("X-Authorization") != self.valid:
            self.respond(401, {"message": "who are you?", "error": "INVALID_TOKEN"})
            return
        self.requests.append((self.path, body))
        self.peers.add(self.client_address)
        if user := self.headers.get("Authorization"):
            self.users.append(user)
        known = (each for each in RESPONSES if self.path.startswith(each))
        self.respond(*RESPONSES[next(known)])

    def respond(self, status: int, document: JsonValue) -> None:
        """Send JSON, or plain text as Conductor does for an id."""
        is_text = isinstance(document, str)
        body = str(document).encode() if is_text else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log line."""


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server that requires a token; the environment has the key for it."""
    monkeypatch.setenv("CONDUCTOR_AUTH_KEY", KEY["keyId"])
    monkeypatch.setenv("CONDUCTOR_AUTH_SECRET", KEY["keySecret"])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # not for this machine
    Locked.valid = "first"
    Locked.requests.clear()
    Locked.peers.clear()
    Locked.users.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@contextmanager
def without_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment that has no credentials."""
    with monkeypatch.context() as patch:
        patch.delenv("CONDUCTOR_AUTH_KEY")
        patch.delenv("CONDUCTOR_AUTH_SECRET")
        yield


def test_a_server_that_requires_a_token_receives_it(
    locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of the environment is exchanged for it; without a key the error names it."""
    with Conductor(locked) as conductor:
        assert conductor.task_types() == ["pesto_call"]
    with (
        without_key(monkeypatch),
        Conductor(locked) as conductor,
        pytest.raises(InvalidInput) as caught,
    ):
        conductor.task_types()
    for part in ("GET /metadata/taskdefs", "who are you?", "CONDUCTOR_AUTH_KEY", locked):
        assert part in str(caught.value)


def test_a_token_that_is_no_longer_valid_is_renewed(locked: str) -> None:
    """As after a restart of the server; the request is sent again."""
    with Conductor(locked) as conductor:
        conductor.task_types()
        Locked.valid = "second"
        assert conductor.task_types() == ["pesto_call"]
    assert len(Locked.requests) == 2


def test_workers_use_the_same_key(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a client of their own; without a key it is rejected."""

    async def polled() -> list[str]:
        queue = TaskQueue(locked)
        try:
            return [each.identity for each in await queue.poll("pesto_call", 1)]
        finally:
            await queue.close()

    assert asyncio.run(polled()) == ["t"]
    with without_key(monkeypatch), pytest.raises(InvalidInput, match="401"):
        asyncio.run(polled())


def test_keys_of_definitions_that_the_sdk_does_not_know_are_not_lost(locked: str) -> None:
    """In both directions, null included; an id is text. All requests use one connection."""
    definition: dict[str, JsonValue] = {"name": "w", "nobodyKnows": {"this": None, "n": [1, "2"]}}
    with Conductor(locked) as conductor:
        assert conductor.definition("w", version=3) == {"name": "w", "nobodyKnows": {"this": None}}
        identity = conductor.start("w", {"a": None}, definition=definition)
    assert identity == "d5c3ec98-9f77-424c-8047-2e69c9fe8ae9"
    assert Locked.requests == [
        ("/api/metadata/workflow/w?version=3", None),
        ("/api/workflow", {"name": "w", "input": {"a": None}, "workflowDef": definition}),
    ]
    assert len(Locked.peers) == 1


def test_an_error_names_the_request_and_the_reason(locked: str) -> None:
    """One class each: not found, an invalid definition, a defect of the server."""
    with Conductor(locked) as conductor:
        with pytest.raises(NotFound, match=r"GET /workflow/gone: no such workflow"):
            conductor.workflow("gone")
        with pytest.raises(InvalidInput, match=r"validate: invalid; tasks: are empty"):
            conductor.validate({"name": "w"})
        with pytest.raises(ServiceMisbehaved, match=r"GET /workflow/broken: out of order.*500"):
            conductor.workflow("broken")


def test_a_server_that_does_not_run_is_unreachable_with_its_address() -> None:
    """The error names the server and the request."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
    with Conductor(url) as conductor, pytest.raises(Unreachable) as caught:
        conductor.task_types()
    assert f"no Conductor responds at {url}: GET /metadata/taskdefs" in str(caught.value)


def test_without_the_sdk_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is sent."""
    monkeypatch.setitem(sys.modules, "conductor", None)
    with (
        Conductor("http://127.0.0.1:1/api") as conductor,
        pytest.raises(InvalidInput, match=r"pip install 'pesto-workflows\[conductor\]'"),
    ):
        conductor.task_types()


def test_a_certificate_is_trusted_by_the_variable_of_openssl_or_named_as_the_cause(
    locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this machine too; another cause than a server that does not run."""
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/api"
        with Conductor(url) as conductor, pytest.raises(InvalidInput) as caught:
            conductor.task_types()
        assert f"the certificate of {url} is not trusted" in str(caught.value)
        assert "SSL_CERT_FILE" in str(caught.value)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with Conductor(url) as conductor:
            assert conductor.task_types() == ["pesto_call"]
        server.shutdown()


def test_a_password_is_sent_and_in_no_message(locked: str) -> None:
    """Unescaped, as a header; the address without it is in errors."""
    url = locked.replace("//", "//ops:p%40ss@")
    with Conductor(url) as conductor, pytest.raises(NotFound) as caught:
        conductor.workflow("gone")
    assert Locked.users == [f"Basic {b64encode(b'ops:p@ss').decode()}"]
    assert "p%40ss" not in f"{caught.value}{conductor.url}"

    async def polled() -> list[Assignment]:
        queue = TaskQueue(url)
        try:
            return await queue.poll("pesto_call", 1)
        finally:
            await queue.close()

    assert asyncio.run(polled())
    assert set(Locked.users) == {f"Basic {b64encode(b'ops:p@ss').decode()}"}


def test_an_address_that_is_not_a_conductor_is_named_with_its_path(locked: str) -> None:
    """A wrong prefix; `require` says so, and does not propose to start a server."""
    url = locked.replace("/api", "/orch/api")
    with Conductor(url) as conductor, pytest.raises(InvalidInput) as caught:
        conductor.require()
    assert f"{url} is not the /api of a Conductor" in str(caught.value)
    with Conductor(locked) as conductor:
        assert conductor.require() is conductor
