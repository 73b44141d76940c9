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
import tempfile
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_airflow.trial.standalone import Standalone, free_port
from tests.support.airflow_standalone import Airflow, until
from tests.support.commands import waited

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    Command: TypeAlias = Sequence[str | Path]

HOST = "shared"
"""Name by which workers reach servers of 127.0.0.1, as other machines would: not by `localhost`."""
WORKERS = {"worker-a": "default,cpu", "worker-b": "default,gpu"}
"""Host name of a worker -> its queues."""
SLOTS = 2
_PARTS = ("scheduler", "triggerer", "dag-processor", "api-server")
# A new disk is made at /mnt, with what all machines have: DAG files and Airflow's own logs. Then it
# is put over the folder of the tests.
_ISOLATE = """
set -e
name=$1 base=$2 dags=$3 logs=$4 hosts=$5
shift 5
mount -t tmpfs none /mnt
mkdir /mnt/home /mnt/tmp /mnt/logs "/mnt/dags-$name"
mount --bind "$dags" "/mnt/dags-$name"
mount -o remount,bind,ro "/mnt/dags-$name"
mount --bind "$logs" /mnt/logs
mount --bind "$hosts" /etc/hosts
mount -t tmpfs none /var/tmp
mount -t tmpfs none /dev/shm
mount --move /mnt "$base"
hostname "$name"
cd "$base/home"
exec "$@"
"""


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
        # A name is looked up by its address, so each host has its own.
        hosts = enumerate(("localhost", *WORKERS, *_PARTS), start=1)
        lines = [*(f"127.0.0.{number} {name}\n" for number, name in hosts), f"127.0.0.1 {HOST}\n"]
        (home / "hosts").write_text("".join(lines))

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
            "HOME": self.base / "home",
            "TMPDIR": self.base / "tmp",
            "AIRFLOW__CORE__DAGS_FOLDER": self.base / f"dags-{name}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": self.base / "logs",
        }
        places = [self.base, self.dags, self.home / "logs", self.home / "hosts"]
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["unshare", "--mount", "--uts", "sh", "-c", _ISOLATE, "sh",  # noqa: S607
                 name, *map(str, places), sys.executable, "-m", "airflow", *command],
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
    postgres = _require_means()
    with ExitStack() as servers:
        database = servers.enter_context(_postgres(postgres))
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
    postgres = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    if postgres is None or shutil.which("redis-server") is None:
        pytest.skip("an Airflow of several machines needs the packages postgresql and redis-server")
    probe = ["unshare", "--mount", "--uts", "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("NOT TESTED: pipelines on machines without a common disk, since this machine "
                    "permits no mount namespaces (they need root)")  # fmt: skip
    return postgres.parent


@contextmanager
def _postgres(commands: Path) -> Iterator[str]:
    """Run Postgres, which root may not, and give its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="airflow-postgres-") as data:
        shutil.chown(data, "postgres")
        make: Command = [
            commands / "initdb",
            "-D",
            data,
            "-U",
            "airflow",
            "--auth=trust",
            "--no-sync",
        ]
        subprocess.run(make, user="postgres", cwd="/", check=True, capture_output=True)
        run: Command = [commands / "postgres", "-D", data, "-p", str(port), "-c", "fsync=off",
               "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
               "-c", "max_connections=200"]  # fmt: skip
        ready: Command = [commands / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        with _server(run, ready, user="postgres"):
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"


@contextmanager
def _redis(home: Path) -> Iterator[int]:
    port = free_port()
    run = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with _server(run, ["redis-cli", "-p", str(port), "ping"]):
        yield port


@contextmanager
def _server(command: Command, ready: Command, *, user: str | None = None) -> Iterator[None]:
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, user=user, cwd="/", stdout=silent, stderr=silent) as server:
        try:
            waited(lambda: not subprocess.run(ready, check=False, capture_output=True).returncode)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
