"""A service as its users start it: killed at will, and started again where it was."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ERRANDS = "tests/contract/errands.py:"
PROJECT = "tests/data/jobs_project"
_PESTO = "from pesto_runtime.cli import main; main()"
AT_ONCE = {"Prefer": "respond-async"}


@dataclass(frozen=True)
class Server:
    """A service behind a socket.

    Attributes:
        url: With its prefix.
        process: Its own process, parent of its workers.
        http: Safe to use from several threads.
    """

    url: str
    process: subprocess.Popen[str]
    http: httpx.Client

    def __call__(self, method: str, path: str, **options: object) -> httpx.Response:
        """Send one request."""
        return self.http.request(method, self.url + path, **options)  # type: ignore[arg-type]  # httpx judges

    def submit(self, document: object, **headers: str) -> httpx.Response:
        """Submit a job."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        return self("POST", "/process", json=document, headers=AT_ONCE | sent)

    def job(self, job_id: str) -> dict[str, object]:
        """What the service says of a job."""
        found: dict[str, object] = self("GET", f"/jobs/{job_id}").json()
        return found

    def over(self, job_id: str, *, within_s: float = 60) -> dict[str, object]:
        """A job once it is over."""
        until(lambda: self.job(job_id)["state"] not in ("accepted", "running"), within_s=within_s)
        return self.job(job_id)


@contextmanager
def served(target: str, *options: str, any_host: bool = True) -> Iterator[Server]:
    """Serve a target on one worker, unless told otherwise; killed at the end."""
    if any_host and "--allowed-host" not in options:
        options = ("--allowed-host", "*", *options)
    words = ["serve", target, "--port", "0", "--workers", "1", "--local-files", *options]
    command = [sys.executable, "-c", _PESTO, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            told = re.search(r"http://\S+/api/v1", line)
            assert told is not None, line
            with httpx.Client(trust_env=False, timeout=60) as http:
                yield Server(told[0], process, http)
        finally:
            process.kill()
            process.stderr.read()


def until(is_so: Callable[[], bool], *, within_s: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines_of(path: Path) -> list[str]:
    """What errands have told a file."""
    return path.read_text().splitlines() if path.exists() else []
