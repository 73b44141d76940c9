"""What every contestant's process does: read its task, time its work, tell the seconds."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.jobs import JOBS, Job

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE_BYTES = 128 << 20  # rasterio.Env takes bytes: GDAL_CACHEMAX=128 would be no cache at all
TIMING = "timing.json"


@dataclass(frozen=True)
class Task:
    """A job for one contestant.

    Attributes:
        letter: Of the job.
        scene: File to read.
        out: Empty folder; the answer is `product.tif` or `product.json` in it.
        ready: The right answer, `.npy`; only `limit` may look.
        workers: Threads or processes.
        tile: Side of a tile, pixels; 0 for the contestant's default.
        margin: Pixels around a tile.
        variant: What else the contestant should know.
    """

    letter: str
    scene: str
    out: str
    ready: str
    workers: int
    tile: int
    margin: int
    variant: str = ""

    @property
    def job(self) -> Job:
        """What is to be done."""
        return JOBS[self.letter]

    @property
    def product(self) -> Path:
        """Where the answer goes."""
        return Path(self.out) / ("product.tif" if self.job.dtype else "product.json")


def run(prepare: Callable[[Task], Callable[[], None]]) -> None:
    """Time a contestant's work on the task that the command line names."""
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))
    work = prepare(task)
    begun, begun_at = time.perf_counter(), time.time()
    work()
    seconds = time.perf_counter() - begun
    after = begun_at + seconds - task.product.stat().st_mtime
    timing = {"seconds": seconds, "after": max(after, 0.0)}
    Path(task.out, TIMING).write_text(json.dumps(timing))
