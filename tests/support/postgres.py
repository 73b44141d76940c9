"""Servers of Debian that tests run: Postgres, and others that end with a block."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.commands import waited
from tests.support.deployment import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    Command: TypeAlias = Sequence[str | Path]


def postgres_commands() -> Path | None:
    """Return the folder of Postgres' commands; None if Debian's package is not there."""
    found = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    return None if found is None else found.parent


@contextmanager
def postgres(commands: Path, user: str) -> Iterator[int]:
    """Run an empty Postgres, which root may not, and give its port; the user needs no password."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pesto-postgres-") as data:
        shutil.chown(data, "postgres")
        make: Command = [
            commands / "initdb", "-D", data, "-U", user, "--auth=trust", "--no-sync",
        ]  # fmt: skip
        subprocess.run(make, user="postgres", cwd="/", check=True, capture_output=True)
        run: Command = [commands / "postgres", "-D", data, "-p", str(port), "-c", "fsync=off",
               "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
               "-c", "max_connections=200"]  # fmt: skip
        ready: Command = [commands / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        with server(run, ready, user="postgres"):
            yield port


@contextmanager
def server(command: Command, ready: Command, *, user: str | None = None) -> Iterator[None]:
    """Run a server while the block runs, once a command says that it is ready."""
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, user=user, cwd="/", stdout=silent, stderr=silent) as process:
        try:
            waited(lambda: not subprocess.run(ready, check=False, capture_output=True).returncode)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
