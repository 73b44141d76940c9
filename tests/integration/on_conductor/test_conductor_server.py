"""`pesto conductor server`: a real one, started, found, stopped, started again."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import trial_server
from pesto_conductor.client import Conductor
from pesto_conductor.taskdefs import task_definition
from tests.support.commands import ROOT, is_alive, pesto, waited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    trial_server.down(tmp_path / "data")


def test_a_server_starts_once_keeps_what_it_knows_and_stops(folder: Path) -> None:
    """Up, up again, down, up again: one process at a time, at one port, with one memory."""
    waits: list[str] = []
    first = trial_server.up(folder, listener=lambda name, _done, _total: waits.append(name))
    assert "starting" in waits

    said = pesto("conductor", "server", "up", "--data", folder, "--json")
    assert json.loads(said.stdout)["pid"] == first.pid
    other = pesto("conductor", "server", "up", "--data", folder, "--port", first.port + 1)
    assert other.returncode == 2
    assert f"already runs, at {first.url}" in other.stderr
    with Conductor(first.url) as conductor:
        conductor.register_tasks([{"name": "remembered", "ownerEmail": "a@b"}])

    stopped = pesto("conductor", "server", "down", "--data", folder)
    assert stopped.stdout == f"stopped Conductor at {first.url}\n"
    assert not is_alive(first.pid)
    assert pesto("conductor", "server", "status", "--data", folder).returncode == 1
    assert pesto("conductor", "server", "down", "--data", folder).stdout == "nothing runs\n"

    again = trial_server.up(folder)
    assert again.port == first.port
    assert again.pid != first.pid
    with Conductor(again.url) as conductor:
        assert "remembered" in conductor.task_types()

    os.kill(again.pid, signal.SIGKILL)
    waited(lambda: trial_server.find(folder) is None)
    assert (folder / "server.json").exists()  # the file still says that it runs; its lock does not


def test_it_listens_on_loopback_and_writes_into_its_folder_alone(conductor: Desk) -> None:
    """127.0.0.2 is this machine too, and is refused; no file outside is open to write."""
    running = conductor.server
    socket.create_connection(("127.0.0.1", running.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", running.port))
    written = open_to_write(running.pid)
    assert any(path.endswith("conductor.db") for path in written)
    assert [path for path in written if not path.startswith(running.folder)] == []


def test_a_borrowed_server_stays_as_long_as_anybody_has_it(conductor: Desk) -> None:
    """Two borrow what the fixture borrowed before them: it stays as long as one has it."""
    with (
        trial_server.borrowed(conductor.folder) as one,
        trial_server.borrowed(conductor.folder) as other,
    ):
        assert one == other == conductor.server
    assert conductor.server == one
    assert is_alive(one.pid)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its database is a folder: it ends, and the end of its log is told."""
    (tmp_path / "data" / "conductor.db").mkdir(parents=True)
    done = pesto("conductor", "server", "up", "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "Conductor ended while it started" in done.stderr
    assert "server.log" in done.stderr


def open_to_write(pid: int) -> list[str]:
    """Files that a process has open to write."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
            flags = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
        except OSError:  # closed meanwhile
            continue
        mode = int(flags.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE
        if mode != os.O_RDONLY and target.startswith("/") and not target.startswith("/dev/"):
            found.append(target)
    return found


def test_register_leaves_task_types_of_a_newer_version_as_they_are(conductor: Desk) -> None:
    """The other types of this package (control) are registered again."""
    newer: dict[str, JsonValue] = {
        "ownerApp": "pesto-workflows/99.0.0",
        "description": "of a newer version",
    }
    try:
        with conductor.conductor() as server:
            server.register_tasks([task_definition("pesto_discover").to_json() | newer])
        file = ROOT / "workflows" / "conductor" / "cloud_cover.json"
        done = pesto("conductor", "register", file, "--url", conductor.url)
        assert done.returncode == 0, done.stderr
        with conductor.conductor() as server:
            found = {str(each["name"]): each for each in server.task_definitions()}
        assert found["pesto_discover"]["description"] == newer["description"]
        assert found["pesto_plan"]["responseTimeoutSeconds"] == 30  # of tests: 6 s
        assert "pesto_discover" not in done.stdout
    finally:
        conductor.register()
