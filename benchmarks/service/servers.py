"""Contestants as processes: started on a free port, found ready, measured, stopped."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PROJECT = HERE / "project"
_READY_S = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A contestant that runs.

    Attributes:
        name: In the tables.
        url: Up to and with `/api/v1`.
        pid: None for one that somebody else started.
    """

    name: str
    url: str
    pid: int | None

    @property
    def pids(self) -> list[int]:
        """Its process, and all below it."""
        return [] if self.pid is None else list(_tree(self.pid))

    def pss_bytes(self) -> dict[int, int]:
        """Proportional set size by process: what is shared is counted once over all."""
        return {pid: _pss(pid) for pid in self.pids}

    def memory_bytes(self) -> int:
        """What its processes hold of their own, and memory without a name, mapped or not.

        Files are left out, which are shared with everybody; this is quick to ask.
        """
        nameless = {key: size for pid in self.pids for key, size in _nameless(pid)}
        return sum(_own_bytes(pid) for pid in self.pids) + sum(nameless.values())

    def cpu_s(self) -> float:
        """CPU seconds spent so far by the processes that live."""
        return sum(_cpu_s(pid) for pid in self.pids)


def ours(folder: Path, workers: int) -> list[str]:
    """The command of our service, isolation on, at port `{port}`."""
    pesto = Path(sys.executable).with_name("pesto")
    return [
        str(pesto), "serve", str(PROJECT), "--port", "{port}", "--workers", str(workers),
        "--allow", str(folder), "--jobs", str(folder / "jobs"),
    ]  # fmt: skip


def peer(name: str) -> list[str]:
    """The command of a peer."""
    return [sys.executable, "-m", "benchmarks.service.peers", name, "{port}"]


def floor() -> list[str]:
    """The command of the least that isolation can cost."""
    return [sys.executable, "-m", "benchmarks.service.floor", "{port}"]


@contextmanager
def running(name: str, command: list[str]) -> Iterator[Server]:
    """Start a contestant, wait until it is healthy, stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api/v1"
    filled = [each.format(port=port) for each in command]
    with subprocess.Popen(filled, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_healthy(url)
            yield Server(name, url, process.pid)
        finally:
            process.terminate()


def wait_until_healthy(url: str) -> None:
    """Ask for its health until it is OK.

    Raises:
        TimeoutError: it never was.
    """
    parts = urlsplit(url)
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("GET", f"{parts.path}/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
        time.sleep(0.05)
    raise TimeoutError(f"{url} is not healthy after {_READY_S} s")


def machine_busy_s() -> float:
    """CPU seconds that anybody spent on this machine since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft = (int(each) for each in fields[:7])
    return (user + nice + system + irq + soft) / _TICKS


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(children).split():
            yield from _tree(int(child))


def _pss(pid: int) -> int:
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _own_bytes(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES if fields else 0


def _nameless(pid: int) -> Iterator[tuple[int, int]]:
    """Inode and bytes of the files in memory that a process holds open or maps."""
    for line in _read(Path(f"/proc/{pid}/maps")).splitlines():
        if "/memfd:" in line:
            span, _, _, _, inode, _ = line.split(maxsplit=5)
            begin, end = (int(each, 16) for each in span.split("-"))
            yield int(inode), end - begin
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if "/memfd:" in str(link.readlink()):
                found = link.stat()
                yield found.st_ino, found.st_blocks * 512
        except OSError:  # it was closed just now
            continue


def _cpu_s(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""
