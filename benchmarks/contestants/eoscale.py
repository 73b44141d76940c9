"""EOScale as its documentation has it: shared memory, tile mode, one process per worker."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from eoscale.eo_executors import (  # type: ignore[import-not-found]  # in its own environment
    n_images_to_m_images_filter,
    n_images_to_m_scalars,
)
from eoscale.manager import EOContextManager  # type: ignore[import-not-found]  # as above

from benchmarks.contestants.child import Task, run
from benchmarks.jobs import JOBS
from benchmarks.scenes import PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable

Profile = dict[str, object]


def prepare(task: Task) -> Callable[[], None]:
    """Nothing is made ready."""
    return lambda: _images(task) if task.job.dtype else _counts(task)


def _images(task: Task) -> None:
    with _context(task) as context:
        made = n_images_to_m_images_filter(
            inputs=[context.open_raster(task.scene)],
            image_filter=_computed,
            filter_parameters={"job": task.letter},
            generate_output_profiles=partial(_profiles, str(task.job.dtype)),
            stable_margin=task.margin,
            context_manager=context,
        )
        context.write(made[0], str(task.product))


def _counts(task: Task) -> None:
    with _context(task) as context:
        made = n_images_to_m_scalars(
            inputs=[context.open_raster(task.scene)],
            image_filter=_listed,
            filter_parameters={"job": task.letter},
            nb_output_scalars=1,
            concatenate_filter=_added,
            context_manager=context,
        )
    task.product.write_text(json.dumps(made[0].astype(np.int64).tolist()))


def _context(task: Task) -> EOContextManager:
    return EOContextManager(nb_workers=task.workers, tile_mode=True, tile_max_size=task.tile)


def _computed(
    images: list[np.ndarray], _profiles: list[Profile], parameters: dict[str, str]
) -> np.ndarray:
    job = JOBS[parameters["job"]]
    return job.compute(images[0][job.picked])


def _listed(
    images: list[np.ndarray], _profiles: list[Profile], parameters: dict[str, str]
) -> list[np.ndarray]:
    return [JOBS[parameters["job"]].compute(images[0])]


def _added(total: list[np.ndarray], counts: list[np.ndarray], _tile: object) -> None:
    total[0] = total[0] + counts[0]


def _profiles(dtype: str, profiles: list[Profile], _parameters: dict[str, str]) -> list[Profile]:
    return [{**profiles[0], **PROFILE, "count": 1, "dtype": dtype}]


if __name__ == "__main__":
    run(prepare)
