"""Run chunks on any cluster: threads of this process wait for tasks of the cluster's workers.

Only texts of JSON pass between this process and a worker: the plan's href with the number of a
chunk, and the chunk's counts or its error.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.contract import Chunk
from pesto_runtime.errors import InvalidInput, NotFound
from pesto_runtime.pipeline import MOST_TASKS
from pesto_runtime.raster.gdal import limit_cache
from pesto_runtime.run.chunk import tiles_at_once
from pesto_runtime.run.chunk_task import chunk_outcome, result_of
from pesto_runtime.run.context import load_context
from pesto_runtime.run.records import TileObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import ChunkResult


class Cluster(Protocol):
    """Runs chunks on the machines of a cluster."""

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Facts about the cluster for `result.json`."""

    def perform(self, chunk: str) -> str:
        """Call `performed` on a worker, and wait for its return value.

        Raises:
            BrokenExecutor: the worker has died.
            PestoError: the cluster does not respond, or its workers cannot run chunks.
        """

    def stop(self) -> None:
        """Cancel all chunks."""

    def close(self) -> None:
        """Leave the cluster; end it if it was started for this run."""


class ClusterWorkers:
    """The workers of a cluster: the `ChunkWorkers` of a run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._guard = threading.Lock()
        self._tiles: list[float] = []

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Those of the cluster."""
        return self._cluster.facts

    def executor(self, _chunks: int) -> Executor:
        """Create a pool of threads, each of which waits for a chunk."""
        # All chunks of a phase are submitted at once: a cluster may get more workers meanwhile.
        return ThreadPoolExecutor(MOST_TASKS, thread_name_prefix="pesto")

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk on the cluster.

        Raises:
            BrokenExecutor: its worker has died.
            PestoError: as for `process`, or the cluster does not respond.
        """
        begun = time.monotonic()
        ((kind, content),) = json.loads(self._cluster.perform(chunk.model_dump_json())).items()
        result = result_of(kind, content)
        tile_s = (time.monotonic() - begun) / max(1, result.tiles)
        with self._guard:
            self._tiles += [tile_s] * (result.tiles + result.holes) + [0.0] * result.reused
        return result

    def new_tiles(self) -> list[float]:
        """Return the mean seconds of each tile of the chunks that ended since the previous call."""
        with self._guard:
            seconds, self._tiles = self._tiles, []
        return seconds

    def stop(self) -> None:
        """Cancel all chunks."""
        self._cluster.stop()

    def close(self) -> None:
        """Leave the cluster."""
        self._cluster.close()


def performed(chunk: str, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Run a chunk on a worker of a cluster.

    Args:
        chunk: The chunk as JSON.
        should_stop: Called before every tile; True ends the chunk, and stored blocks stay.

    Returns:
        The outcome as JSON, see `chunk_outcome`.
    """
    limit_cache()
    parsed = Chunk.model_validate_json(chunk)
    try:
        threads = tiles_at_once(load_context(parsed.plan), parsed.phase)
    except NotFound as error:
        unseen = InvalidInput(
            f"{error.detail} on {socket.gethostname()}: all workers need the run store; give them "
            "the disk of the output folder, or a store in a bucket (--store)"
        )
        return json.dumps({"error": unseen.to_problem()})
    return json.dumps(chunk_outcome(parsed, TileObserver(should_stop=should_stop), threads=threads))
