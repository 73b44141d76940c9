"""The `pesto` command as a subprocess: runs that end, runs that are killed, services that stay."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

ROOT = Path(__file__).parents[2]
PESTO = [sys.executable, "-c", "from pesto_runtime.cli import main; main()"]


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """Runs `pesto` with these words."""

    def __call__(self, *words: object) -> Said:
        """Run it to its end."""


def pesto(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PESTO, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the block does; it leads a process group of its own."""
    with subprocess.Popen(
        [*PESTO, *map(str, words)], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


_OPEN = ("--local-files", "--allowed-host", "*")  # tests of several machines name their hosts


@contextmanager
def served(target: str, *options: object) -> Iterator[str]:
    """A service on a free port, of one worker unless options say otherwise; answers its URL."""
    with started("serve", target, "--port", 0, "--workers", 1, *_OPEN, *options) as process:
        assert process.stderr is not None
        told = re.search(r"http://\S+/api/v1", process.stderr.readline())
        assert told is not None, process.stderr.read()
        yield told[0]
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def saved(path: Path, document: Mapping[str, JsonValue]) -> Path:
    """A JSON file."""
    path.write_text(json.dumps(document))
    return path


def waited(claim: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until a claim holds."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and those that they did, now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    newest = {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest}
        found |= newest
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
