"""A real Conductor on this machine, for trials and tests: started, found again, stopped.

It listens on loopback alone, has no authentication, and keeps everything in one folder: a SQLite
database, its log, its temporary files. Production has a server of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_conductor.client import Conductor
from pesto_conductor.provision import VERSION, java, server_jar, silent
from pesto_runtime.errors import InvalidInput, RunFailed, StoreRefused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOWrapper

    from pesto_conductor.provision import DownloadListener


VARIABLE = "CONDUCTOR_SERVER_URL"


def configured_url(option: str | None = None) -> str | None:
    """URL of a server that somebody named: by an option, else in the environment.

    Raises:
        InvalidInput: it is not an HTTP URL.
    """
    url = option or os.environ.get(VARIABLE)
    return None if url is None else _api(url)


def conductor_url(option: str | None = None) -> str:
    """URL of the server to talk to.

    Raises:
        InvalidInput: what was named is not an HTTP URL.
        Unreachable: none was named, and none of ours runs.
    """
    url = configured_url(option)
    if url is not None:
        return url
    ours = find()
    if ours is None:
        raise Unreachable(
            f"no Conductor runs here and {VARIABLE} is not set; start one by "
            "`pesto conductor server up`, or set it to the /api of one that runs"
        )
    return ours.url


def _api(url: str) -> str:
    """Complete a bare `http://HOST:PORT`: the interface is below /api.

    >>> _api("http://127.0.0.1:8080")
    'http://127.0.0.1:8080/api'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInput(f"{url!r} is not the URL of a Conductor, as http://HOST:PORT/api")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/api"


_HOST = "127.0.0.1"
_PORTS = range(18080, 19080)  # below those that systems hand out to clients
_BOOT_S, _STOP_S, _POLL_S = 300.0, 15.0, 0.1
_USUAL_BOOT_S = 20.0
_HEAP = "-Xmx1g"


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: Base of its REST interface.
        port: Where it listens, on loopback.
        pid: Its process.
        version: Of Conductor.
        folder: Where it keeps everything.
    """

    url: str
    port: int
    pid: int
    version: str
    folder: str


def data_folder() -> Path:
    """Where a server keeps everything, unless it is told otherwise."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "pesto-workflows" / "conductor"


def find(folder: Path | None = None) -> Server | None:
    """The server of a folder, if it runs.

    A server holds a lock for as long as its process lives, so a pid that was given to another
    process since is never taken for it.
    """
    folder = (folder or data_folder()).resolve()
    known = _last(folder)
    return known if known is not None and _is_locked(folder) else None


def up(
    folder: Path | None = None, *, port: int = 0, told: DownloadListener = silent, keep: bool = True
) -> Server:
    """Start a server and wait until it is healthy; answers the one that runs, if one does.

    Args:
        folder: Where it keeps everything; the user's data folder by default.
        port: Where it listens; 0 for the port it had before, or a free one.
        keep: Whether it stays until it is told to stop, whoever borrows it.
        told: Told how the download and the start go.

    Raises:
        InvalidInput: the extra is missing, the port is somebody else's, or the server of this
            folder runs on another port than the one asked for.
        Unreachable: the jar cannot be downloaded.
        RunFailed: it ended, or is not healthy after 300 s; with the end of its log.
    """
    folder = (folder or data_folder()).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            running = find(folder) or _start(folder, port, told)
            if keep:
                (folder / "kept").touch()
    except OSError as error:
        raise StoreRefused(f"{folder} cannot hold a server: {error}") from error
    if port not in (0, running.port):
        raise InvalidInput(f"the server of {folder} already runs, at {running.url}")
    _wait_until_healthy(running, told)
    return running


@contextmanager
def borrowed(folder: Path | None = None, *, told: DownloadListener = silent) -> Iterator[Server]:
    """The server of a folder while the block runs, started if need be.

    Whoever is the last to give it back stops it, unless somebody asked to keep it.
    """
    folder = (folder or data_folder()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "borrowed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield up(folder, told=told, keep=False)
        finally:
            with _alone(folder):  # nobody asks to keep it between the look and the end
                if not (folder / "kept").exists() and _is_alone_with(lock):
                    down(folder)


def down(folder: Path | None = None) -> Server | None:
    """Stop the server of a folder, and only that; answers what ran, None if nothing did.

    What it holds stays in its folder, for the next start.
    """
    folder = (folder or data_folder()).resolve()
    running = find(folder)
    if running is None:
        return None
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(running.pid, how)
        except ProcessLookupError:
            break
        if _has_ended(folder, running):
            break
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "kept").unlink(missing_ok=True)
    return running


def log_of(folder: str | Path) -> Path:
    """The log of the server of a folder."""
    return Path(folder) / "server.log"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two that start a server at once start one."""
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_alone_with(lock: TextIOWrapper) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(folder: Path, port: int, told: DownloadListener) -> Server:
    """Start the process; it inherits a locked file, and so holds the lock as long as it lives."""
    port = _port(folder, port)
    executable, jar = java(), server_jar(told=told)
    (folder / "kept").unlink(missing_ok=True)  # of one that was killed
    (folder / "tmp").mkdir(exist_ok=True)
    with (folder / "server.lock").open("w") as lock, log_of(folder).open("w") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(  # noqa: S603  # Java and the jar are pinned ones
            _command(folder, port, executable, jar), cwd=folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, pass_fds=(lock.fileno(),),
        )  # fmt: skip
    process.returncode = 0  # it outlives this object, which would warn of that
    server = Server(f"http://{_HOST}:{port}/api", port, process.pid, VERSION, str(folder))
    draft = folder / "server.json.part"
    draft.write_text(json.dumps(asdict(server)))
    draft.replace(folder / "server.json")
    return server


def _command(folder: Path, port: int, executable: Path, jar: Path) -> list[str]:
    database = f"jdbc:sqlite:{folder / 'conductor.db'}?busy_timeout=15000&journal_mode=WAL"
    return [
        str(executable),
        _HEAP,
        "-XX:-UsePerfData",
        # Without these two it writes to ~/worker-payload and leaves folders in /tmp.
        f"-Duser.home={folder}",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        "-jar",
        str(jar),
        f"--server.address={_HOST}",
        f"--server.port={port}",
        f"--spring.datasource.url={database}",
    ]


def _port(folder: Path, asked: int) -> int:
    """The port asked for, else the one of the last start, so that workers find it again."""
    if asked:
        if not _is_free(asked):
            raise InvalidInput(f"port {asked} is in use by another program; choose another")
        return asked
    last = _last(folder)
    first = [last.port] if last else []
    found = (port for port in (*first, *random.sample(_PORTS, len(_PORTS))) if _is_free(port))
    return next(found)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _last(folder: Path) -> Server | None:
    """What was started last in a folder; it may have ended."""
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


def _wait_until_healthy(server: Server, told: DownloadListener) -> None:
    begun = time.monotonic()
    with Conductor(server.url) as conductor:
        while not conductor.is_healthy():
            waited_s = time.monotonic() - begun
            if not _is_locked(Path(server.folder)):
                raise RunFailed(f"Conductor ended while it started:\n{_end_of_log(server)}")
            if waited_s > _BOOT_S:
                raise RunFailed(f"not healthy after {_BOOT_S:.0f} s:\n{_end_of_log(server)}")
            told("starting", min(waited_s, _USUAL_BOOT_S), _USUAL_BOOT_S)
            time.sleep(_POLL_S)
    told("starting", _USUAL_BOOT_S, _USUAL_BOOT_S)


def _end_of_log(server: Server) -> str:
    lines = log_of(server.folder).read_text(errors="replace").splitlines()
    return "\n".join((*lines[-5:], f"all of it: {log_of(server.folder)}"))


def _has_ended(folder: Path, server: Server) -> bool:
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline:
        _bury(server.pid)
        if not _is_locked(folder):
            return True
        time.sleep(_POLL_S)
    return False


def _bury(pid: int) -> None:
    """A server that this very process started stays a zombie until it is waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
