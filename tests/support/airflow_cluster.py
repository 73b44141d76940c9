"""An Airflow whose workers share no disk: Celery over Redis, Postgres, two workers of two slots.

Each of its processes has a host name and a disk of its own, by a mount namespace: what tests write
to theirs is on none of them. As with a git checkout, each has the DAG files, at another path.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from pesto_airflow.trial.standalone import Standalone, free_port
from tests.support.airflow_standalone import Airflow, until
from tests.support.machines import (
    disk_variables,
    on_machine,
    require_machines,
    write_hosts,
)
from tests.support.postgres import postgres, postgres_commands, server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    Command: TypeAlias = Sequence[str | Path]

WORKERS = {"worker-a": "default,cpu", "worker-b": "default,gpu"}
"""Host name of a worker -> its queues."""
SLOTS = 2
_PARTS = ("scheduler", "triggerer", "dag-processor", "api-server")


class Cluster(Standalone):
    """The processes of such an Airflow.

    Args:
        base: The folder of the tests, which each process sees as an empty disk.
        home: A folder of this Airflow, in `base`.
        env: Additional environment variables.
    """

    def __init__(self, base: Path, home: Path, env: Mapping[str, str]) -> None:
        super().__init__(home, home / "dags", parallelism=64, env=env)
        self.base, self.dags = base, home / "dags"
        self._sessions: dict[str, int] = {}
        for folder in ("dags", "logs"):
            (home / folder).mkdir(parents=True)
        write_hosts(home / "hosts", (*WORKERS, *_PARTS))

    def start(self, *, timeout_s: float = 240) -> None:
        """Make the database, start all processes, and return when they are healthy."""
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=self.env, check=True, capture_output=True, timeout=timeout_s)
        for part in _PARTS:
            self.begin(part)
        for worker in WORKERS:
            self.begin_worker(worker)
        until(self.api.is_healthy, timeout_s=timeout_s)
        until(lambda: all(map(self.is_ready, WORKERS)), timeout_s=timeout_s)

    def begin(self, *command: str, host: str = "") -> None:
        """Start an `airflow` command on a machine of its own."""
        name = host or command[0]
        disk = {
            "AIRFLOW_HOME": self.base / "home",
            **disk_variables(self.base),
            "AIRFLOW__CORE__DAGS_FOLDER": self.base / f"dags-{name}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": self.base / "logs",
        }
        isolated = on_machine(
            name,
            [sys.executable, "-m", "airflow", *command],
            base=self.base,
            hosts=self.home / "hosts",
            read_only={f"dags-{name}": self.dags},
            writable={"logs": self.home / "logs"},
        )
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                isolated,
                env={**self.env, **{key: str(value) for key, value in disk.items()}},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._commands.append(process)
        self._sessions[name] = process.pid

    def begin_worker(self, name: str) -> None:
        """Start a worker."""
        self.begin(
            "celery", "worker", "--queues", WORKERS[name], "--concurrency", str(SLOTS),
            "--celery-hostname", f"celery@{name}", "--skip-serve-logs", "--without-mingle",
            "--without-gossip", host=name,
        )  # fmt: skip

    def is_ready(self, name: str) -> bool:
        """Whether a worker takes tasks."""
        return f"celery@{name} ready." in (self.home / f"{name}.log").read_text()

    def replace(self, name: str, file: str, text: str) -> None:
        """Give one machine another text of a file among its DAG files."""
        there = f"mount --bind {self.base}/home/new {self.base}/dags-{name}/{file}"
        enter = ["nsenter", "--mount", "--target", str(self._sessions[name])]
        command = [*enter, "sh", "-ec", f"cat > {self.base}/home/new; {there}"]
        subprocess.run(command, input=text, text=True, check=True)

    def kill_machine(self, name: str) -> None:
        """SIGKILL all processes of a machine, with the tasks that it runs."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                if os.getsid(pid) == self._sessions[name]:
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def airflow_cluster(base: Path, home: Path, env: Mapping[str, str]) -> Iterator[Airflow]:
    """Run such an Airflow; skip where this machine cannot.

    Args:
        base: The folder of the tests, which no process of it sees.
        home: Where it lives, in `base`.
        env: Additional environment variables of its processes.
    """
    commands = _require_means()
    with ExitStack() as servers:
        port = servers.enter_context(postgres(commands, "airflow"))
        database = f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
        redis = f"redis://127.0.0.1:{servers.enter_context(_redis(home))}/0"
        settings = {
            "CORE__EXECUTOR": "CeleryExecutor",
            "DATABASE__SQL_ALCHEMY_CONN": database,
            "CELERY__BROKER_URL": redis,
            "CELERY__RESULT_BACKEND": redis,
            "CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            # Of tasks of a killed machine; 300 s by default.
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        }
        named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        cluster = Cluster(base, home, {**named, **env})
        airflow = Airflow(cluster, cluster.dags)
        with closing(airflow.api):
            try:
                cluster.start()
                yield airflow
            finally:
                cluster.stop()


def _require_means() -> Path:
    """Return the folder of Postgres' commands; skip if a means is not there."""
    commands = postgres_commands()
    if commands is None or shutil.which("redis-server") is None:
        pytest.skip("an Airflow of several machines needs the packages postgresql and redis-server")
    require_machines()
    return commands


@contextmanager
def _redis(home: Path) -> Iterator[int]:
    port = free_port()
    run = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with server(run, ["redis-cli", "-p", str(port), "ping"]):
        yield port
