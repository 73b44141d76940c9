"""Hand-written windows: threads with a handle each, one writer behind a lock, cache set right."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import rasterio

from benchmarks.contestants.child import CACHE_BYTES, Task, run
from benchmarks.contestants.windows import Tile, tiles
from benchmarks.scenes import PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from rasterio.io import DatasetWriter


def prepare(task: Task) -> Callable[[], None]:
    """Nothing is made ready."""
    return lambda: _images(task) if task.job.dtype else _counts(task)


def _images(task: Task) -> None:
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(task.scene) as scene:
        profile = {**scene.profile, **PROFILE, "count": 1, "dtype": task.job.dtype}
        lock = threading.Lock()
        with rasterio.open(task.product, "w", num_threads=task.workers, **profile) as product:
            _each_tile(task, lambda tile, made: _put(product, lock, tile, made))


def _put(product: DatasetWriter, lock: threading.Lock, tile: Tile, made: np.ndarray) -> None:
    with lock:
        product.write(tile.trim(made), window=tile.write)


def _counts(task: Task) -> None:
    found: list[np.ndarray] = []
    _each_tile(task, lambda _tile, made: found.append(made))
    task.product.write_text(json.dumps(sum(found[1:], found[0]).tolist()))


def _each_tile(task: Task, take: Callable[[Tile, np.ndarray], None]) -> None:
    own = threading.local()
    with rasterio.open(task.scene) as scene:
        width, height = scene.width, scene.height
    with ExitStack() as handles:

        def begin() -> None:
            own.scene = rasterio.open(task.scene)
            handles.callback(own.scene.close)  # leaving its context is for its own thread alone

        def work(tile: Tile) -> None:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
                image = own.scene.read(task.job.bands, window=tile.read)
                take(tile, task.job.compute(image))

        with ThreadPoolExecutor(task.workers, initializer=begin) as pool:
            todo = tiles(width, height, side=task.tile, margin=task.margin)
            for done in pool.map(work, todo):
                assert done is None  # noqa: S101  # a failure of a thread is raised here


if __name__ == "__main__":
    run(prepare)
