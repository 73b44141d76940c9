"""Run chunks in child processes, for code that does not release the GIL, or that crashes.

The children are connected by pipes alone: neither names in /dev/shm nor files can remain, whichever
process is killed. A crash costs the chunk that the child ran.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pesto_runtime.contract import Window
from pesto_runtime.run.chunk_process import STOP
from pesto_runtime.run.chunk_task import result_of
from pesto_runtime.run.records import TileRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

    from pesto_runtime.contract import Chunk, ChunkResult

_READ_BYTES = 1 << 16


class ProcessWorkers:
    """The child processes of a run; each runs one chunk at a time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._guard = threading.Lock()
        self._free: list[ChunkProcess] = []
        self._all: list[ChunkProcess] = []
        self._records: SimpleQueue[TileRecord] = SimpleQueue()
        self.facts: dict[str, JsonValue] = {"executor": "processes", "workers": count}

    def executor(self, _chunks: int) -> Executor:
        """Create a pool of threads, each of which waits for a process."""
        return ThreadPoolExecutor(self._count, thread_name_prefix="pesto")

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in a free process.

        Raises:
            BrokenExecutor: the process has died.
            PestoError: as for `process`.
        """
        worker = self._take()
        result = worker.run(chunk, on_tile=self._records.put)
        with self._guard:  # one that has died is not used again
            self._free.append(worker)
        return result

    def new_tiles(self) -> list[float]:
        """Return the seconds of each tile that ended since the last call; 0 for a reused one."""
        seconds: list[float] = []
        with suppress(Empty):
            while True:
                seconds.append(self._records.get_nowait().seconds)
        return seconds

    def stop(self) -> None:
        """Stop every process before its next tile."""
        for worker in self._all:
            worker.stop()

    def close(self) -> None:
        """End the processes."""
        for worker in self._all:
            worker.close()

    def _take(self) -> ChunkProcess:
        with self._guard:
            if self._free:
                return self._free.pop()
            self._all.append(ChunkProcess())
            return self._all[-1]


class ChunkProcess:
    """A child process; used by one thread at a time, except for `stop`."""

    def __init__(self) -> None:
        # In a group of its own: Ctrl-C in a terminal is for the parent, which stops it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pesto_runtime.run.chunk_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        self._output = self._process.stdout.fileno() if self._process.stdout else -1
        self._end = os.pidfd_open(self._process.pid)
        self._read = b""
        self._send(json.dumps(sys.path))

    def run(self, chunk: Chunk, *, on_tile: Callable[[TileRecord], None]) -> ChunkResult:
        """Run a chunk.

        Raises:
            BrokenExecutor: the process has died.
            PestoError: as for `process`.
        """
        self._send(chunk.model_dump_json())
        for line in self._lines():
            ((kind, content),) = json.loads(line).items()
            if kind == "tile":
                window, seconds, state = content
                on_tile(TileRecord(Window(*window), seconds, state))
            else:
                return result_of(kind, content)
        raise BrokenExecutor(f"worker process {self._process.pid} died")

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines that it writes, until it has ended."""
        # Its output alone does not tell its end: a process that it forked may hold it open.
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while True:
            while b"\n" in self._read:
                line, _, self._read = self._read.partition(b"\n")
                yield line
            ready = {handle for handle, _ in poll.poll()}
            data = os.read(self._output, _READ_BYTES) if self._output in ready else b""
            if not data:
                return
            self._read += data

    def stop(self) -> None:
        """Stop it before its next tile."""
        self._send(STOP)

    def close(self) -> None:
        """End it, and all processes that it has started."""
        with suppress(OSError):  # they have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        os.close(self._end)

    def _send(self, line: str) -> None:
        with suppress(OSError):  # of a dead process; its output ends, too
            if self._process.stdin is not None:
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
