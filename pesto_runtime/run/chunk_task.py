"""Run a chunk for another process, which receives its result, its error or its traceback as JSON.

It does not start processes: `run/process_workers.py` and `pesto_runtime/clusters/` do.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from pesto_runtime.contract import ChunkResult
from pesto_runtime.errors import PestoError, error_from_problem
from pesto_runtime.run.chunk import process

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.contract import Chunk
    from pesto_runtime.run.records import TileObserver


def chunk_outcome(chunk: Chunk, watch: TileObserver, *, threads: int = 1) -> dict[str, JsonValue]:
    """Run a chunk; never raises.

    Args:
        chunk: Plan, phase and chunks.
        watch: Receives the state of each tile, and can stop the activity.
        threads: Number of tiles at once; more than one if they wait for services.

    Returns:
        `{"result": …}`, `{"error": problem document}`, or `{"bug": traceback}`.
    """
    try:
        return {"result": process(chunk, watch=watch, threads=threads).model_dump(mode="json")}
    except PestoError as error:
        return {"error": error.to_problem()}
    except Exception:  # noqa: BLE001  # the process that waits for the result raises it
        return {"bug": traceback.format_exc()}


def result_of(kind: str, content: JsonValue) -> ChunkResult:
    """Return the result in an outcome, from the name and the value of its only member.

    Raises:
        PestoError: the chunk's error.
        RuntimeError: another exception; has its traceback.
    """
    if kind == "result":
        return ChunkResult.model_validate(content)
    if kind == "error" and isinstance(content, dict):
        raise error_from_problem(content, status=int(str(content["status"])))
    raise RuntimeError(f"a worker process failed:\n{content}")
