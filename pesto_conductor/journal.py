"""Write the tasks that a worker process has in hand to a file, which its successor reads.

A process that is killed reports nothing: without this file its tasks wait until their lease ends.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from pesto_conductor.taskqueue import Assignment

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1 << 20
_MOST_WORKFLOWS = 16


@dataclass
class Remains:
    """What a process left when it died.

    Attributes:
        tasks: Task id -> the task that was in hand.
        workflows: Ids of the workflows that it worked for last.
        worker: Its identity at the server.
    """

    tasks: dict[str, Assignment] = field(default_factory=dict)
    workflows: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_WORKFLOWS))
    worker: str = ""

    def read(self, line: bytes) -> None:
        """Read one line of a journal; ignore the part of a line that a kill has left."""
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if isinstance(entry, str):
            self.tasks.pop(entry, None)
        elif "worker" in entry:
            self.worker = entry["worker"]
            self.workflows.extend(entry["workflows"])
        else:
            task = Assignment(**entry)
            self.tasks[task.identity] = task
            self.workflows.append(task.workflow)


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
        self._own = Remains()

    def take_over(self, worker: str = "") -> Remains:
        """Return what the process before this one left, and begin with an empty file.

        Args:
            worker: Identity of this process at the server.
        """
        found = Remains()
        for line in os.pread(self._fd, os.fstat(self._fd).st_size, 0).splitlines():
            found.read(line)
        self._own = Remains(worker=worker)
        self._rewrite()
        return found

    def began(self, task: Assignment) -> None:
        """Note a task that begins."""
        self._own.tasks[task.identity] = task
        if task.workflow not in self._own.workflows:
            self._own.workflows.append(task.workflow)
        self._write(_entry(task))

    def ended(self, task: Assignment) -> None:
        """Note a task whose result is reported, or is not wanted."""
        self._own.tasks.pop(task.identity, None)
        self._write(task.identity)
        if os.fstat(self._fd).st_size > _MOST_BYTES:
            self._rewrite()

    def _rewrite(self) -> None:
        os.ftruncate(self._fd, 0)
        self._write({"worker": self._own.worker, "workflows": [*self._own.workflows]})
        for each in self._own.tasks.values():
            self._write(_entry(each))

    def _write(self, entry: object) -> None:
        line = f"{json.dumps(entry)}\n".encode()
        os.pwrite(self._fd, line, os.fstat(self._fd).st_size)


def _entry(task: Assignment) -> dict[str, object]:
    # Its input is not needed to return it, and may be large.
    return {**asdict(task), "input": {}}
