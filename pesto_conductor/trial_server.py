"""Start, find and stop a real Conductor on this machine, for trials and tests.

It listens on the loopback interface only, has no authentication, and stores all data in one folder:
a SQLite database, its log, its temporary files. It is not meant for production, and its jar is
downloaded by `provision.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_conductor.client import Conductor
from pesto_conductor.connection import VARIABLE, plain_url
from pesto_conductor.provision import VERSION, java, server_jar, silent, unpacked
from pesto_runtime.errors import InvalidInput, RunFailed, StoreRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOWrapper

    from pesto_conductor.provision import DownloadListener

_HOST = "127.0.0.1"
_PORTS = range(18080, 19080)  # below the ephemeral ports: Linux uses 32768 to 60999
_BOOT_S, _STOP_S, _POLL_S = 300.0, 15.0, 0.1
_USUAL_BOOT_S = 20.0
_HEAP = "-Xmx1g"


def configured_url(option: str | None = None) -> str | None:
    """Return the URL of an option, or else of the environment; None if neither is set.

    Raises:
        InvalidInput: it is not an HTTP URL.
    """
    url = option or os.environ.get(VARIABLE)
    return None if url is None else _api(url)


def conductor_url(option: str | None = None) -> str:
    """Return the URL of the server that commands use: of `configured_url`, or the trial server.

    Raises:
        InvalidInput: the configured URL is not an HTTP URL.
        Unreachable: no URL is configured, and no trial server runs.
    """
    url = configured_url(option)
    if url is not None:
        return url
    running = find()
    if running is None:
        raise Unreachable(
            f"no Conductor runs here and {VARIABLE} is not set; start one with "
            "`pesto conductor server up`, or set the variable to the /api of one"
        )
    return running.url


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: Base of its REST interface.
        port: Its port on the loopback interface.
        pid: Its process.
        version: Of Conductor.
        folder: The folder of its data.
    """

    url: str
    port: int
    pid: int
    version: str
    folder: str


def data_folder() -> Path:
    """Return the default folder of a server."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "pesto-workflows" / "conductor"


def find(folder: Path | None = None) -> Server | None:
    """Return the server of a folder; None if it does not run."""
    folder = (folder or data_folder()).resolve()
    # The process has a lock until it ends, so another process that received its pid since is
    # never mistaken for it.
    known = _last(folder)
    return known if known is not None and _is_locked(folder) else None


def up(
    folder: Path | None = None,
    *,
    port: int = 0,
    listener: DownloadListener = silent,
    keep: bool = True,
) -> Server:
    """Start a server and wait until it is healthy; return the running one if there is one.

    Args:
        folder: The folder of its data; the user's data folder by default.
        port: Its port; 0 for that of the last start, or a free one.
        listener: Receives the progress of the download and of the start.
        keep: Whether it runs until `down`, even after the last `borrowed` block.

    Raises:
        InvalidInput: the extra is missing, another program uses the port, or the server of this
            folder runs on another port than the requested one.
        StoreRefused: the folder cannot be written.
        Unreachable: the jar cannot be downloaded.
        RunFailed: it ended, or is not healthy after 300 s; has the end of its log.
    """
    folder = (folder or data_folder()).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder):
            running = find(folder) or _start(folder, port, listener)
            if keep:
                (folder / "kept").touch()
    except OSError as error:
        raise StoreRefused(f"{folder} cannot be the folder of a server: {error}") from error
    if port not in (0, running.port):
        raise InvalidInput(f"the server of {folder} already runs, at {running.url}")
    _wait_until_healthy(running, listener)
    return running


@contextmanager
def borrowed(folder: Path | None = None) -> Iterator[Server]:
    """Use the server of a folder while the block runs; start it if it does not run.

    The last process that ends such a block stops the server, unless `up` was called to keep it.
    """
    folder = (folder or data_folder()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "borrowed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield up(folder, keep=False)
        finally:
            with _exclusive(folder):  # no `up` can keep the server between the check and its end
                if not (folder / "kept").exists() and _is_only_user(lock):
                    down(folder)


def down(folder: Path | None = None) -> Server | None:
    """Stop the server of a folder, and no other; return it, or None if it did not run.

    Its data stays in the folder, for the next start.
    """
    folder = (folder or data_folder()).resolve()
    running = find(folder)
    if running is None:
        return None
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(running.pid, number)
        except ProcessLookupError:
            break
        if _has_ended(folder, running):
            break
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "kept").unlink(missing_ok=True)
    return running


def log_of(folder: str | Path) -> Path:
    """Return the log file of the server of a folder."""
    return Path(folder) / "server.log"


def _api(url: str) -> str:
    """Complete a bare `http://HOST:PORT`: the interface is below /api.

    >>> _api("http://127.0.0.1:8080")
    'http://127.0.0.1:8080/api'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        shown = plain_url(url).rpartition("@")[2]
        raise InvalidInput(f"{shown!r} is not the URL of a Conductor, as http://HOST:PORT/api")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/api"


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock the start and the end of a server, so that two processes together start only one."""
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_only_user(lock: TextIOWrapper) -> bool:
    """Whether this process alone has the shared lock; it is exclusive afterwards."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(folder: Path, port: int, listener: DownloadListener) -> Server:
    """Start the process; it inherits a locked file, so the lock exists until the process ends."""
    port = _port(folder, port)
    executable = java()
    jar = unpacked(server_jar(listener=listener), executable)
    (folder / "kept").unlink(missing_ok=True)  # of a server that was killed
    (folder / "tmp").mkdir(exist_ok=True)
    with (folder / "server.lock").open("w") as lock, log_of(folder).open("w") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _release_messages(folder / "conductor.db")
        process = subprocess.Popen(  # noqa: S603  # Java and the jar are pinned ones
            _command(folder, port, executable, jar), cwd=folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, pass_fds=(lock.fileno(),),
        )  # fmt: skip
    process.returncode = 0  # the process outlives this object, which would warn of it
    server = Server(f"http://{_HOST}:{port}/api", port, process.pid, VERSION, str(folder))
    draft = folder / "server.json.part"
    draft.write_text(json.dumps(asdict(server)))
    draft.replace(folder / "server.json")
    return server


def _release_messages(database: Path) -> None:
    """Return the messages that a killed server had taken from its queues to them.

    A server marks a message that it works on, and only 60 to 120 s later is the mark of a server
    that was killed ignored: for so long a JOIN is not evaluated. Tasks that workers have in hand
    are not in the queues.
    """
    if not database.exists():
        return
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "UPDATE queue_message SET popped = 0, deliver_on ="
            " min(deliver_on, strftime('%Y-%m-%d %H:%M:%f', 'now')) WHERE popped"
        )
        connection.commit()


def _command(folder: Path, port: int, executable: Path, jar: Path) -> list[str]:
    database = f"jdbc:sqlite:{folder / 'conductor.db'}?busy_timeout=15000&journal_mode=WAL"
    return [
        str(executable),
        _HEAP,
        "-XX:-UsePerfData",
        "-XX:TieredStopAtLevel=1",  # a trial is short: optimising costs more than it gains
        # Without these two options it writes to ~/worker-payload, and leaves folders in /tmp.
        f"-Duser.home={folder}",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        "-jar",
        str(jar),
        f"--server.address={_HOST}",
        f"--server.port={port}",
        f"--spring.datasource.url={database}",
        # Each task type of a language model asks the database 20 times a second for work: half of
        # the processor time of a server without work.
        "--conductor.integrations.ai.enabled=false",
    ]


def _port(folder: Path, requested: int) -> int:
    """Return the requested port, or else that of the last start, so that workers reconnect."""
    if requested:
        if not _is_free(requested):
            raise InvalidInput(f"port {requested} is in use by another program; choose another")
        return requested
    last = _last(folder)
    first = [last.port] if last else []
    return next(port for port in (*first, *random.sample(_PORTS, len(_PORTS))) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: else a port in TIME_WAIT, after a restart, seems to be in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _last(folder: Path) -> Server | None:
    """Return the server that was started last in a folder; it may have ended."""
    try:
        return Server(**json.loads((folder / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / "server.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _wait_until_healthy(server: Server, listener: DownloadListener) -> None:
    begun = time.monotonic()
    with Conductor(server.url) as conductor:
        while not conductor.is_healthy():
            waited_s = time.monotonic() - begun
            if not _is_locked(Path(server.folder)):
                raise RunFailed(f"Conductor ended while it started:\n{_end_of_log(server)}")
            if waited_s > _BOOT_S:
                raise RunFailed(f"not healthy after {_BOOT_S:.0f} s:\n{_end_of_log(server)}")
            listener("starting", min(waited_s, _USUAL_BOOT_S), _USUAL_BOOT_S)
            time.sleep(_POLL_S)
    listener("starting", _USUAL_BOOT_S, _USUAL_BOOT_S)


def _end_of_log(server: Server) -> str:
    lines = log_of(server.folder).read_text(errors="replace").splitlines()
    return "\n".join((*lines[-5:], f"the whole log: {log_of(server.folder)}"))


def _has_ended(folder: Path, server: Server) -> bool:
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline:
        _reap(server.pid)
        if not _is_locked(folder):
            return True
        time.sleep(_POLL_S)
    return False


def _reap(pid: int) -> None:
    """Reap the server if this process has started it; else it stays a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
