"""Conductor servers over one Postgres, and a balancer of connections before them."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.client import Conductor
from pesto_conductor.provision import java, server_jar, unpacked
from tests.support.commands import waited
from tests.support.conductor_workers import Desk
from tests.support.deployment import free_port
from tests.support.postgres import postgres, postgres_commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROPERTIES = {
    "conductor.db.type": "postgres",
    "conductor.queue.type": "postgres",
    "conductor.indexing.enabled": "true",
    "conductor.indexing.type": "postgres",
    "conductor.app.workflow-execution-lock-enabled": "true",
    "conductor.workflow-execution-lock.type": "postgres",
    "conductor.integrations.ai.enabled": "false",
}
"""Those of the page about production; a test compares them."""


@dataclass
class Replica:
    """One server.

    Attributes:
        folder: For its files and its log.
        database: JDBC URL.
        port: Its port.
        process: The running server; None while it is stopped.
    """

    folder: Path
    database: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it need not be ready."""
        self.folder.mkdir(exist_ok=True)
        executable = java()
        command = [
            str(executable), "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Duser.home={self.folder}",
            "-jar", str(unpacked(server_jar(), executable)), "--server.address=127.0.0.1",
            f"--server.port={self.port}", f"--spring.datasource.url={self.database}",
            "--spring.datasource.username=conductor", "--spring.datasource.password=none",
            *(f"--{name}={value}" for name, value in PROPERTIES.items()),
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def is_ready(self) -> bool:
        """Whether it is healthy."""
        with Conductor(f"http://127.0.0.1:{self.port}/api") as server:
            return server.is_healthy()


@dataclass(frozen=True)
class ReplicatedDesk(Desk):
    """A Conductor of several servers, by the ports of their balancer and of their database."""

    replicas: tuple[Replica, ...] = ()
    port: int = 0
    database_port: int = 0

    @property
    def url(self) -> str:
        """Base of the REST interface of all of them."""
        return f"http://127.0.0.1:{self.port}/api"


@contextmanager
def conductor_on_postgres(folder: Path, *, replicas: int) -> Iterator[ReplicatedDesk]:
    """Run servers over a Postgres of Debian; skip where it is not installed."""
    commands = postgres_commands()
    if commands is None:
        pytest.skip("NOT TESTED: Conductor on Postgres, which needs the package postgresql")
    with ExitStack() as stack:
        port = stack.enter_context(postgres(commands, "conductor"))
        url = f"jdbc:postgresql://127.0.0.1:{port}/postgres"
        servers = tuple(Replica(folder / f"replica-{n}", url) for n in range(replicas))
        for server in servers:  # the first one makes the tables
            stack.callback(server.kill)
            server.start()
            waited(server.is_ready, timeout_s=600)
        balancer = stack.enter_context(_balancer([each.port for each in servers]))
        desk = ReplicatedDesk(folder, servers, balancer, port)
        desk.register()
        yield desk


@contextmanager
def _balancer(ports: list[int]) -> Iterator[int]:
    """Give the port of a balancer: each connection goes to the next server that accepts it."""
    numbers = count()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def connect() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket) -> None:
            first = next(numbers)
            with client:
                for offset in range(len(ports)):
                    address = ("127.0.0.1", ports[(first + offset) % len(ports)])
                    with suppress(OSError), socket.create_connection(address) as upstream:
                        back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
                        back.start()
                        _copy(client, upstream)
                        back.join()
                        return

        threading.Thread(target=connect, daemon=True).start()
        yield listening.getsockname()[1]


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Send all bytes of one connection to another one, then end both."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
