"""Notes on a run: the account of a connection, an earlier note, and an Airflow that is away."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from pesto_airflow.run_notes import write_note
from tests.support.airflow_tasks import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD, TOKEN = "ann", "s3cret-Zq9-canary", "t0ken"  # of the test


class _Api(BaseHTTPRequestHandler):
    """As much of Airflow's API as is requested: a token for an account, a change of a run."""

    requests: ClassVar[list[tuple[str, object, str | None]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, body, self.headers["Authorization"]))
        data = json.dumps({"access_token": TOKEN}).encode()
        self.send_response(201 if "refused" not in str(body) else 403)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PATCH = do_POST  # noqa: N815  # names of http.server

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Api]]:
    """An API server, and a connection of it with an account."""
    _Api.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        document = {"conn_type": "http", "host": "127.0.0.1", "port": server.server_port,
                    "login": USER, "password": PASSWORD}  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_NOTES", json.dumps(document))
        yield _Api
        server.shutdown()


def test_an_account_is_exchanged_for_a_token_and_an_earlier_note_stays(api: type[_Api]) -> None:
    """A line is added once, also by a second try."""
    run = Run(dag_id="d/1", run_id="manual+1", note="look here")
    write_note("notes", run.context, "PARTIAL")
    assert api.requests == [
        ("/auth/token", {"username": USER, "password": PASSWORD}, None),
        ("/api/v2/dags/d%2F1/dagRuns/manual%2B1?update_mask=note",
         {"note": "look here\nPARTIAL"}, f"Bearer {TOKEN}"),
    ]  # fmt: skip
    run.note = "look here\nPARTIAL"
    write_note("notes", run.context, "PARTIAL")
    assert len(api.requests) == 2


@pytest.mark.parametrize("conn_id", ["notes", "absent", "away"])
def test_a_note_that_is_refused_is_a_warning(
    api: type[_Api], conn_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the API, by a connection that does not exist, and by a server that does not."""
    away = {"conn_type": "http", "host": "http://127.0.0.1:9", "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(away))
    with caplog.at_level("WARNING"):
        write_note(conn_id, Run().context, "refused")
    assert f"no note on the run, by connection '{conn_id}'" in caplog.text
    assert PASSWORD not in caplog.text
    assert TOKEN not in caplog.text
    assert len(api.requests) == 2 * (conn_id == "notes")
