"""The URL of the server that commands use, and the process of the trial server; none is started."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import commands, trial_server
from pesto_conductor.trial_server import conductor_url
from pesto_runtime.errors import InvalidInput, Unreachable
from tests.support.commands import is_alive, pesto

if TYPE_CHECKING:
    from pathlib import Path


def left_behind(folder: Path, pid: int) -> None:
    """Write the files of a server that was killed; no process has its lock."""
    folder.mkdir(exist_ok=True)
    (folder / "server.lock").touch()
    server = {"url": "http://127.0.0.1:1/api", "port": 1, "pid": pid, "version": "0",
              "folder": str(folder)}  # fmt: skip
    (folder / "server.json").write_text(json.dumps(server))


def test_a_pid_that_belongs_to_another_process_by_now_is_not_stopped(tmp_path: Path) -> None:
    """The file has the pid of this test; it does not have the lock, so it is not a server."""
    left_behind(tmp_path, os.getpid())
    assert trial_server.find(tmp_path) is None
    assert trial_server.down(tmp_path) is None
    assert is_alive(os.getpid())


def test_a_port_of_another_program_is_rejected(tmp_path: Path) -> None:
    """No file is downloaded, and no process started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port} is in use by another program"):
            trial_server.up(tmp_path, port=port)
    assert trial_server.find(tmp_path) is None


def test_a_folder_that_is_a_file_is_rejected(tmp_path: Path) -> None:
    """With a message that has the path, not with a traceback."""
    (tmp_path / "x").touch()
    done = pesto("conductor", "server", "up", "--data", tmp_path / "x")
    assert done.returncode == 2
    assert f"{tmp_path / 'x'} cannot be the folder of a server" in done.stderr


def test_without_a_server_every_command_names_the_command_that_starts_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No URL is configured, and no trial server runs: exit code 1."""
    monkeypatch.delenv("CONDUCTOR_SERVER_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for words in (("status",), ("register",), ("start", "x"), ("worker",), ("retry", "x")):
        done = pesto("conductor", *words)
        assert done.returncode == 1, words
        assert "pesto conductor server up" in done.stderr, words


def test_the_error_has_the_url_of_a_configured_server_that_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port is closed."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", "http://127.0.0.1:1")
    done = pesto("conductor", "status")
    assert done.returncode == 1
    assert "http://127.0.0.1:1/api" in done.stderr


def test_an_option_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare host is completed by /api."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", "http://there:8080/api")
    assert conductor_url() == "http://there:8080/api"
    assert conductor_url("http://here:8080/") == "http://here:8080/api"
    with pytest.raises(InvalidInput, match="not the URL of a Conductor"):
        conductor_url("here:8080")


def test_without_a_configured_url_and_a_trial_server_there_is_no_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same error as of the commands."""
    monkeypatch.delenv("CONDUCTOR_SERVER_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(Unreachable, match="no Conductor runs here"):
        conductor_url()


def test_up_prints_the_export_that_other_commands_need_to_find_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--data`; neither for the default folder nor in JSON."""
    runs = trial_server.Server("http://127.0.0.1:7/api", 7, 1, "0", str(tmp_path))
    monkeypatch.setattr(trial_server, "up", lambda *_args, **_options: runs)
    commands.up(data=tmp_path)
    assert capsys.readouterr().out.endswith(
        "\nexport CONDUCTOR_SERVER_URL=http://127.0.0.1:7/api\n"
    )
    commands.up()
    assert "CONDUCTOR_SERVER_URL" not in capsys.readouterr().out
    commands.up(data=tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["url"] == runs.url


def test_messages_that_a_killed_server_had_taken_are_released_when_it_starts(
    tmp_path: Path,
) -> None:
    """The control: a message that nobody has taken stays due in an hour."""
    database = tmp_path / "conductor.db"
    trial_server._release_messages(database)  # the first start: there is none
    assert not database.exists()
    with closing(sqlite3.connect(database)) as connection:
        trial_server._release_messages(database)  # it was killed before it made its tables
        # Columns of conductor-sqlite-persistence 3.32.3, V1__initial_schema.sql.
        connection.execute(
            "CREATE TABLE queue_message (message_id TEXT, deliver_on DATETIME, popped INTEGER)"
        )
        rows = [("join", "2999-01-01 00:00:00.000", 1), ("task", "2026-01-01 00:00:00.000", 1),
                ("wait", "2999-01-01 00:00:00.000", 0)]  # fmt: skip
        connection.executemany("INSERT INTO queue_message VALUES (?, ?, ?)", rows)
        connection.commit()
        trial_server._release_messages(database)
        due = "SELECT message_id FROM queue_message WHERE deliver_on <= datetime('now', '1 second')"
        assert connection.execute(due).fetchall() == [("join",), ("task",)]
        assert connection.execute("SELECT sum(popped) FROM queue_message").fetchone() == (0,)
