"""Trigger a run of a DAG and look on until it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pesto_airflow.pipelines import map_task_id
from pesto_airflow.rest import ENDED
from pesto_runtime.errors import RunFailed
from pesto_runtime.tiling import tiles_of

if TYPE_CHECKING:
    from pesto_airflow.rest import AirflowApi, TaskInstanceState
    from pesto_runtime.contract import Plan
    from pesto_runtime.engines import ProgressListener

_POLL_S = 0.5


def follow(api: AirflowApi, dag_id: str, plan: Plan, *, watcher: ProgressListener) -> str:
    """Run a pipeline's DAG to its end, and tell the tiles of each chunk when it is done.

    Returns:
        The id of the run.

    Raises:
        RunFailed: a task failed for good; with what it said.
        KeyboardInterrupt: the run is marked failed, and so told to stop.
    """
    tiles = _tiles_of_chunks(plan)
    watcher.begin(sum(tiles.values()))
    run_id = api.trigger(dag_id)
    try:
        _look_on(api, dag_id, run_id, tiles, watcher)
    except KeyboardInterrupt:
        api.mark(dag_id, run_id, "failed")
        raise
    return run_id


def _look_on(
    api: AirflowApi,
    dag_id: str,
    run_id: str,
    tiles: dict[tuple[str, int], int],
    watcher: ProgressListener,
) -> None:
    told: set[tuple[str, int]] = set()
    while True:
        state, tasks = api.state(dag_id, run_id), api.tasks(dag_id, run_id)
        done = {_chunk(task) for task in tasks if task.state == "success"} & set(tiles) - told
        watcher.advance(sum(tiles[each] for each in done))
        told |= done
        if state in ENDED:
            break
        time.sleep(_POLL_S)
    failed = [task for task in tasks if task.state == "failed"]
    if state == "failed":
        said = f"{failed[0].task_id}: {api.reason(dag_id, run_id, failed[0])}" if failed else ""
        raise RunFailed(f"run {run_id} failed\n  {said}")


def _tiles_of_chunks(plan: Plan) -> dict[tuple[str, int], int]:
    """(Task without its group, index of chunk) -> tiles."""
    return {
        (map_task_id(phase.stages, phase.reduces), index): sum(
            1 for _ in tiles_of(chunk, phase.tile)
        )
        for phase in plan.phases
        for index, chunk in enumerate(phase.chunks)
    }


def _chunk(task: TaskInstanceState) -> tuple[str, int]:
    return task.task_id.rpartition(".")[2], task.map_index
