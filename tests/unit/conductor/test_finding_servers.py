"""Which server is meant, and which process is ours: without a server."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import commands, trial_server
from pesto_conductor.trial_server import conductor_url
from pesto_runtime.errors import InvalidInput, Unreachable
from tests.support.commands import is_alive, pesto

if TYPE_CHECKING:
    from pathlib import Path


def left_behind(folder: Path, pid: int) -> None:
    """What a server that was killed leaves: its last words, and a lock that nobody holds."""
    folder.mkdir(exist_ok=True)
    (folder / "server.lock").touch()
    told = {"url": "http://127.0.0.1:1/api", "port": 1, "pid": pid, "version": "0",
            "folder": str(folder)}  # fmt: skip
    (folder / "server.json").write_text(json.dumps(told))


def test_a_pid_that_belongs_to_another_process_by_now_is_left_alone(tmp_path: Path) -> None:
    """The file names this very process; it does not hold the lock, so it is not a server."""
    left_behind(tmp_path, os.getpid())
    assert trial_server.find(tmp_path) is None
    assert trial_server.down(tmp_path) is None
    assert is_alive(os.getpid())


def test_a_port_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Nothing is downloaded, and nothing started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port} is in use by another program"):
            trial_server.up(tmp_path, port=port)
    assert trial_server.find(tmp_path) is None


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """By a message with the path, not a traceback."""
    (tmp_path / "x").touch()
    done = pesto("conductor", "server", "up", "--data", tmp_path / "x")
    assert done.returncode == 2
    assert f"{tmp_path / 'x'} cannot hold a server" in done.stderr


def test_where_nothing_runs_every_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None named, none of ours: exit code 1, and the way out."""
    monkeypatch.delenv("CONDUCTOR_SERVER_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for words in (("status",), ("register",), ("start", "x"), ("worker",), ("retry", "x")):
        done = pesto("conductor", *words)
        assert done.returncode == 1, words
        assert "pesto conductor server up" in done.stderr, words


def test_a_server_that_is_named_and_not_there_is_told_by_its_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port is closed; the URL is in the message."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", "http://127.0.0.1:1")
    done = pesto("conductor", "status")
    assert done.returncode == 1
    assert "http://127.0.0.1:1/api" in done.stderr


def test_an_option_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a bare host is completed."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", "http://there:8080/api")
    assert conductor_url() == "http://there:8080/api"
    assert conductor_url("http://here:8080/") == "http://here:8080/api"
    with pytest.raises(InvalidInput, match="not the URL of a Conductor"):
        conductor_url("here:8080")


def test_without_a_name_and_without_ours_there_is_no_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same from Python."""
    monkeypatch.delenv("CONDUCTOR_SERVER_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(Unreachable, match="no Conductor runs here"):
        conductor_url()


def test_up_prints_the_export_where_no_command_would_find_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--data`, for a person; neither for the default folder nor in JSON."""
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
