"""Write the tasks that a worker process has in hand to a file, which its successor reads.

A process that is killed reports nothing: without this file its tasks wait until their lease ends.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING

from pesto_conductor.taskqueue import Assignment

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1 << 20


class Journal:
    """The tasks in hand: a line per beginning and end.

    A line is written with one system call, so a kill leaves whole lines and perhaps a part of one.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open a file; None for one that ends with the processes that have it open.

        Raises:
            OSError: the file cannot be opened.
        """
        if path is None:
            self._fd, name = tempfile.mkstemp(prefix="pesto-worker-")
            os.unlink(name)  # noqa: PTH108  # open descriptors keep it
        else:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._in_hand: dict[str, Assignment] = {}

    def take_over(self) -> list[Assignment]:
        """Return the tasks that the process before this one had in hand, and forget them."""
        found: dict[str, Assignment] = {}
        for line in os.pread(self._fd, os.fstat(self._fd).st_size, 0).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the part of a line that a kill has left
                continue
            if isinstance(entry, str):
                found.pop(entry, None)
            else:
                task = Assignment(**entry)
                found[task.identity] = task
        os.ftruncate(self._fd, 0)
        return list(found.values())

    def began(self, task: Assignment) -> None:
        """Note a task that begins."""
        self._in_hand[task.identity] = task
        # Its input is not needed to return it, and may be large.
        self._write({**asdict(task), "input": {}})

    def ended(self, task: Assignment) -> None:
        """Note a task whose result is reported, or is not wanted."""
        self._in_hand.pop(task.identity, None)
        if not self._in_hand or os.fstat(self._fd).st_size > _MOST_BYTES:
            os.ftruncate(self._fd, 0)
            for each in self._in_hand.values():
                self._write({**asdict(each), "input": {}})
        else:
            self._write(task.identity)

    def _write(self, entry: object) -> None:
        line = f"{json.dumps(entry)}\n".encode()
        os.pwrite(self._fd, line, os.fstat(self._fd).st_size)
