"""Dask arrays as their documentation has them: chunks, `map_overlap`, one writer behind a lock."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, cast

import dask
import dask.array as da
import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks.contestants.child import CACHE_BYTES, Task, run
from benchmarks.scenes import PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rasterio.io import DatasetReader, DatasetWriter

_own = threading.local()


def prepare(task: Task) -> Callable[[], None]:
    """Nothing is made ready."""
    return lambda: _run(task)


def _run(task: Task) -> None:
    with rasterio.open(task.scene) as scene:
        profile, shape = scene.profile, (scene.height, scene.width)
    image = da.map_blocks(
        _read,
        task.scene,
        task.job.bands,
        chunks=da.core.normalize_chunks(
            (len(task.job.bands), task.tile, task.tile), (len(task.job.bands), *shape)
        ),
        dtype="uint16",
        meta=np.empty((0, 0, 0), "uint16"),
    )
    with (
        dask.config.set(scheduler="threads", num_workers=task.workers),
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
    ):
        if task.job.dtype is None:
            (step,) = task.job.steps
            counts = [dask.delayed(step.compute)(each) for each in image.to_delayed().ravel()]
            while len(counts) > 1:
                counts = [dask.delayed(sum)(counts[n : n + 8]) for n in range(0, len(counts), 8)]
            task.product.write_text(json.dumps(counts[0].compute().tolist()))
            return
        for step in task.job.steps:
            if step.margin:
                depth = {0: 0, 1: step.margin, 2: step.margin}
                image = da.map_overlap(
                    step.compute, image, depth=depth, boundary="none", dtype=image.dtype
                )
            else:
                dtype = step.compute(np.zeros((image.shape[0], 1, 1), image.dtype)).dtype
                chunks = ((1,), *image.chunks[1:])
                image = da.map_blocks(step.compute, image, chunks=chunks, dtype=dtype)
        profile |= {**PROFILE, "count": 1, "dtype": task.job.dtype}
        with rasterio.open(task.product, "w", num_threads=task.workers, **profile) as product:
            da.store(image, _Target(product), lock=True)


class _Target:
    """A product that takes a part of an array by its slices."""

    def __init__(self, product: DatasetWriter) -> None:
        self._product = product

    def __setitem__(self, place: tuple[slice, slice, slice], pixels: np.ndarray) -> None:
        self._product.write(pixels, window=Window.from_slices(*place[1:]))


def _read(scene: str, bands: tuple[int, ...], block_info: object = None) -> np.ndarray:
    """Read a chunk with the thread's own handle."""
    if not hasattr(_own, "scene"):
        _own.scene = rasterio.open(scene)
    reader = cast("DatasetReader", _own.scene)
    place = cast("dict[None, dict[str, list[tuple[int, int]]]]", block_info)[None]
    (_, _), rows, cols = place["array-location"]
    pixels: np.ndarray = reader.read(bands, window=Window.from_slices(rows, cols))
    return pixels


if __name__ == "__main__":
    run(prepare)
