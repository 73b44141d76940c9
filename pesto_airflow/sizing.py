"""How a run is cut up for Airflow: chunks long enough that what a mapped task costs is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.pipeline import Sizing

TASK_COST_S = 0.3
"""Of a mapped task beside its work: 1.3 to 3.5 of them a second were measured on two cores."""
_LEAST_PER_WORKER = 4


def sizing_for_airflow(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """Cut a run up for so many mapped tasks at once on one machine.

    Short work is one task for each, where engines with cheap tasks make four to keep level.
    """
    from pesto_runtime.local import sizing_of

    sizing = sizing_of(workers=workers, tile=tile, max_tasks=max_tasks)
    few = max(1, workers // _LEAST_PER_WORKER)
    memory = sizing.memory_bytes * few // workers
    return replace(sizing, workers=few, memory_bytes=memory, task_cost_s=TASK_COST_S)
