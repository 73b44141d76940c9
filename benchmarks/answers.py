"""The right answers, and whether a contestant's is bit-identical to them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import rasterio

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.contestants.child import Task
    from benchmarks.jobs import Job


def ready_answer(folder: Path, job: Job, scene: Path) -> Path:
    """The job done on the whole scene as one array, kept as `.npy`; made where it is missing."""
    path = folder / f"{job.steps[-1].process}-{scene.stem}.npy"
    if not path.exists():
        with rasterio.open(scene) as file:
            answer = job.compute(file.read(job.bands))
        part = path.with_suffix(".part")
        with part.open("wb") as out:
            np.save(out, answer)
        part.replace(path)
    return path


def digest_of(answer: np.ndarray) -> str:
    """What is equal for the same pixels of the same dtype and shape."""
    total = hashlib.sha256(f"{answer.dtype} {answer.shape}".encode())
    total.update(np.ascontiguousarray(answer).data)
    return total.hexdigest()


def answer_of(task: Task) -> np.ndarray:
    """What a contestant wrote: an image (band, row, col), or counts (band, bin)."""
    if task.job.dtype is None:
        return np.asarray(json.loads(task.product.read_text()), np.int64)
    with rasterio.open(task.product, num_threads="all_cpus") as file:
        pixels: np.ndarray = file.read()
    return pixels
