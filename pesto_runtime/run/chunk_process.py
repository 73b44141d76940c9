"""Run chunks in a process of the local engine: `python -m pesto_runtime.run.chunk_process`.

Its parent, `run/process_workers.py`, writes a line of JSON for each chunk to its standard input,
and reads the state of each tile and the result from its standard output. The process ends when its
parent does, because its standard input then ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, TextIO

from pesto_runtime.contract import Chunk
from pesto_runtime.raster.gdal import limit_cache
from pesto_runtime.run.chunk_task import chunk_outcome
from pesto_runtime.run.readers import decoded_blocks
from pesto_runtime.run.records import TileObserver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.run.records import TileRecord

STOP = "stop"
PROCESS_CACHE_BYTES = 16 << 20
"""Decoded blocks in such a process: two rows of blocks of a chunk, because it has one at a time."""


def main() -> None:
    """Run chunks until the standard input ends."""
    # A terminal sends Ctrl-C to all processes of the group; the parent stops the workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        os.fdopen(os.dup(0)) as commands,
        os.fdopen(os.dup(1), "w", buffering=1) as answers,
        open(os.devnull) as nothing,  # noqa: PTH123  # not a file
    ):
        # What the author's code reads and prints, and what its children do.
        os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        sys.path[:] = json.loads(commands.readline())
        decoded_blocks.limit(PROCESS_CACHE_BYTES)
        limit_cache()
        chunks: SimpleQueue[Chunk] = SimpleQueue()
        stopped = threading.Event()
        threading.Thread(target=_read, args=(commands, chunks, stopped), daemon=True).start()

        def answer(content: Mapping[str, object]) -> None:
            answers.write(json.dumps(content) + "\n")

        def tell(record: TileRecord) -> None:
            answer({"tile": [list(record.window), record.seconds, record.state]})

        watch = TileObserver(tell, stopped.is_set)
        while True:
            answer(chunk_outcome(chunks.get(), watch))


def _read(commands: TextIO, chunks: SimpleQueue[Chunk], stopped: threading.Event) -> None:
    for line in commands:
        if line.strip() == STOP:
            stopped.set()
        else:
            chunks.put(Chunk.model_validate_json(line))
    # The main thread may be inside the author's code, which may have started processes.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
