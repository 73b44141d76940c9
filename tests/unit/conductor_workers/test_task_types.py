"""A worker is refused at its start where no task would ever come to it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import supervisor
from pesto_conductor.supervisor import Supervisor
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def knowing(*types: str) -> Iterator[str]:
    """A server that is healthy and knows some task types; answers its URL."""

    class Play(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            healthy = self.path == "/health"
            document = {"healthy": True} if healthy else [{"name": each} for each in types]
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Play) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def test_a_type_that_the_server_does_not_know_is_refused_with_those_it_does() -> None:
    """Exit code 2; types of others are not listed."""
    with (
        knowing("pesto_plan", "send_mail", "pesto_call") as url,
        pytest.raises(
            InvalidInput, match=r"pesto_paln; registered are: pesto_call, pesto_plan$"
        ) as told,
    ):
        supervisor.run(url, types=["pesto_plan", "pesto_paln"])
    assert told.value.exit_code == 2


def test_where_none_is_registered_the_refusal_says_how() -> None:
    """A new server knows no type at all."""
    with knowing() as url, pytest.raises(InvalidInput, match="pesto conductor register"):
        supervisor.run(url, types=["pesto_plan"])


def test_a_known_type_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: it comes as far as the worker process."""
    kept: list[tuple[str, ...]] = []

    def run(self: Supervisor) -> int:
        kept.append(self.settings.types)
        return 0

    monkeypatch.setattr(Supervisor, "run", run)
    with knowing("pesto_plan") as url:
        assert supervisor.run(url, types=["pesto_plan"]) == 0
    assert kept == [("pesto_plan",)]
