"""A worker is rejected at its start if the server can never have a task for it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import supervisor
from pesto_conductor.supervisor import Supervisor
from pesto_conductor.taskdefs import registered_types, task_definition
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue


@contextmanager
def knowing(*types: str) -> Iterator[str]:
    """Run a healthy server with some task types; yield its URL."""

    class Play(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            definitions = [{"name": each} for each in types]
            document = {} if self.path.startswith("/api/tasks/queue") else definitions
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write no log line."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Play) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def test_an_unregistered_type_is_rejected_with_a_list_of_registered_ones() -> None:
    """Exit code 2; types without our prefix are not listed."""
    with (
        knowing("pesto_plan", "send_mail", "pesto_call") as url,
        pytest.raises(
            InvalidInput, match=r"pesto_paln; registered are: pesto_call, pesto_plan$"
        ) as caught,
    ):
        supervisor.run(url, types=["pesto_plan", "pesto_paln"])
    assert caught.value.exit_code == 2


def test_if_no_type_is_registered_the_error_names_the_command() -> None:
    """A new server has no types."""
    with knowing() as url, pytest.raises(InvalidInput, match="pesto conductor register"):
        supervisor.run(url, types=["pesto_plan"])


def test_a_registered_type_starts_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the call reaches the worker process."""
    started: list[tuple[str, ...]] = []

    def run(self: Supervisor) -> int:
        started.append(self.settings.types)
        return 0

    monkeypatch.setattr(Supervisor, "run", run)
    with knowing("pesto_plan") as url:
        assert supervisor.run(url, types=["pesto_plan"]) == 0
    assert started == [("pesto_plan",)]


def test_a_worker_takes_only_types_that_this_package_has_registered() -> None:
    """Another team's type with our prefix is theirs; those of services are ours."""
    ours = {**task_definition("pesto_plan").to_json(), "name": "pesto_cloud_mask"}
    known: list[dict[str, JsonValue]] = [
        {**ours, "name": "pesto_export", "ownerApp": "export/2"}, {"name": "pesto_mine"},
        ours, {**ours, "name": "send_mail"},
    ]  # fmt: skip
    assert registered_types(known) == ["pesto_cloud_mask"]
