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


def _cpu_s(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""
