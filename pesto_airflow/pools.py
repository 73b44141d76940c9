"""Which pool or queue a task belongs to, as the description of what it calls says."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pesto_runtime.contract import Description

GPU_POOL = "pesto_gpu"
"""Pool of calls to processes that want a GPU; make it with as many slots as there are devices."""


class TaskPlacement(TypedDict, total=False):
    """Arguments of an operator."""

    pool: str
    queue: str


def placement(
    description: Description, *, gpu_pool: str | None = GPU_POOL, gpu_queue: str | None = None
) -> TaskPlacement:
    """Where calls of a process run; empty for one that wants no GPU (`resources.gpu`).

    Args:
        description: Of the process.
        gpu_pool: Pool that bounds calls to GPU services; None for no pool of theirs.
        gpu_queue: Queue whose workers have a GPU, for processes that run in the worker itself.
    """
    if not description.known.resources.gpu:
        return {}
    chosen: TaskPlacement = {}
    if gpu_pool is not None:
        chosen["pool"] = gpu_pool
    if gpu_queue is not None:
        chosen["queue"] = gpu_queue
    return chosen
