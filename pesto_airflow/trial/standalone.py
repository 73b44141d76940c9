"""Start an Airflow in a home of its own, and stop all its processes.

It runs `airflow standalone`: scheduler, triggerer, API server and DAG processor over SQLite, tasks
by LocalExecutor, every user an admin, bound to 127.0.0.1. For runs and tests, not for production.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_airflow.trial.rest import AirflowApi
from pesto_runtime.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_START_S = 180.0
_STOP_S = 1.0
_LOG = "standalone.log"
_SHOWN_LINES = 20


@contextmanager
def running_standalone(
    home: Path, dags: Path, *, parallelism: int = 4, env: Mapping[str, str] | None = None
) -> Iterator[Standalone]:
    """Run an Airflow while the block runs.

    Args:
        home: Its home; created, never removed.
        dags: Folder of its DAG files.
        parallelism: Tasks at once.
        env: Additional environment variables.

    Raises:
        RunFailed: it did not start.
    """
    airflow = Standalone(home, dags, parallelism=parallelism, env=env)
    try:
        airflow.start()
        yield airflow
    except BaseException as error:
        _stop_after(error, airflow)
        raise
    airflow.stop()


def _stop_after(error: BaseException, airflow: Standalone) -> None:
    """Stop it; an error of that becomes a note on the first error."""
    try:
        airflow.stop()
    except OSError as second:
        error.add_note(f"and Airflow at {airflow.url} could not be stopped: {second}")


class Standalone:
    """An Airflow in a home of its own.

    Attributes:
        home: Its `AIRFLOW_HOME`: database, logs, `standalone.log`.
        url: URL of its API and its pages.
        api: Its REST API.
        env: Environment of its processes.
    """

    def __init__(
        self, home: Path, dags: Path, *, parallelism: int = 4, env: Mapping[str, str] | None = None
    ) -> None:
        port = free_port()
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.api = AirflowApi(self.url)
        settings = _settings(home, dags, port=port, parallelism=parallelism)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self.env = {**os.environ, "PATH": path, **settings, **(env or {})}
        self._commands: list[subprocess.Popen[bytes]] = []

    def start(self, *, timeout_s: float = _START_S) -> None:
        """Start it, and return when all four parts report that they are healthy.

        Raises:
            RunFailed: they did not in time; with the end of its log.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        self.begin("standalone")
        deadline = time.monotonic() + timeout_s
        while not self.api.is_healthy():
            if self._commands[0].poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"Airflow did not start; its log ends:\n{self._last_lines()}")
            time.sleep(0.2)

    def begin(self, *command: str) -> None:
        """Start an `airflow` command of this home, in a session of its own."""
        with (self.home / _LOG).open("ab") as log:
            self._commands.append(
                subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
                    [sys.executable, "-m", "airflow", *command],
                    env=self.env,
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def processes(self) -> dict[int, str]:
        """Return process id -> command line of all its running processes."""
        # By session, not by parent: the workers of a killed scheduler are adopted by init, but stay
        # in the session of the command that started it.
        sessions = {process.pid for process in self._commands}
        return {pid: _command_line(pid) for pid in _all_pids() if _session_of(pid) in sessions}

    def stop(self) -> None:
        """Stop every process: tasks may stop between tiles, after a second all are killed."""
        deadline = time.monotonic() + _STOP_S
        self._signal(signal.SIGTERM)
        while self._reap() and time.monotonic() < deadline:
            time.sleep(0.1)
        while self._reap():
            self._signal(signal.SIGKILL)
            time.sleep(0.05)
        self.api.close()

    def _reap(self) -> dict[int, str]:
        """Reap ended commands, which would be listed as zombies; return the others."""
        for process in self._commands:
            process.poll()
        return self.processes()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _last_lines(self) -> str:
        lines = (self.home / _LOG).read_text(errors="replace").splitlines()
        return "\n".join(lines[-_SHOWN_LINES:])


def free_port() -> int:
    """Return an unused port of 127.0.0.1."""
    # Another process may take the port before Airflow binds it; `start` then fails with the log.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _settings(home: Path, dags: Path, *, port: int, parallelism: int) -> dict[str, str]:
    """Return settings for a private Airflow that finds new DAG files within seconds."""
    # By default Airflow looks for new DAG files every 300 s, idles 1 s between scheduler loops, and
    # retries the task of a killed worker only after 300 s without a heartbeat.
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": dags,
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": parallelism,
            "max_active_tasks_per_dag": parallelism,
            "simple_auth_manager_all_admins": True,
            "execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
            "dags_are_paused_at_creation": False,
        },
        "api": {
            "host": "127.0.0.1",
            "port": port,
            "base_url": f"http://127.0.0.1:{port}",
            "workers": 1,
            "secret_key": secrets.token_hex(16),
        },
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
        "logging": {
            "worker_log_server_port": free_port(),
            "trigger_log_server_port": free_port(),
        },
        "scheduler": {
            "scheduler_health_check_server_port": free_port(),
            "task_instance_heartbeat_timeout": 30,
            "scheduler_idle_sleep_time": 0.2,
        },
        "dag_processor": {
            "refresh_interval": 2,
            "bundle_refresh_check_interval": 1,
            "min_file_process_interval": 600,
            "parsing_processes": 1,
        },
    }
    named = {
        f"AIRFLOW__{section}__{key}".upper(): str(value)
        for section, settings in sections.items()
        for key, value in settings.items()
    }
    return {"AIRFLOW_HOME": str(home), **named}


def _all_pids() -> Sequence[int]:
    import psutil  # type: ignore[import-untyped]  # it has no types

    return list(psutil.pids())


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _command_line(pid: int) -> str:
    import psutil

    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
