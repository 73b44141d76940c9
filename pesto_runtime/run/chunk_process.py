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
import traceback
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pesto_runtime.contract import Chunk
from pesto_runtime.errors import PestoError
from pesto_runtime.raster.read import limit_cache
from pesto_runtime.run.chunk import process
from pesto_runtime.run.records import TileObserver

if TYPE_CHECKING:
    from pesto_runtime.run.records import TileRecord

STOP = "stop"


def main() -> None:
    """Run chunks until the standard input ends."""
    # A terminal sends Ctrl-C to all processes of the group; the parent stops the workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the author's code prints
        sys.path[:] = json.loads(sys.stdin.readline())
        limit_cache()
        chunks: SimpleQueue[Chunk] = SimpleQueue()
        stopped = threading.Event()
        threading.Thread(target=_read, args=(chunks, stopped), daemon=True).start()

        def answer(kind: str, content: object) -> None:
            answers.write(json.dumps({kind: content}) + "\n")

        def tell(record: TileRecord) -> None:
            answer("tile", [list(record.window), record.seconds, record.state])

        watch = TileObserver(tell, stopped.is_set)
        while True:
            chunk = chunks.get()
            try:
                answer("result", process(chunk, watch=watch).model_dump(mode="json"))
            except PestoError as error:
                answer("error", error.to_problem())
            except Exception:  # noqa: BLE001  # the parent raises it
                answer("bug", traceback.format_exc())


def _read(chunks: SimpleQueue[Chunk], stopped: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == STOP:
            stopped.set()
        else:
            chunks.put(Chunk.model_validate_json(line))
    os._exit(0)  # the main thread may be inside the author's code


if __name__ == "__main__":
    main()
