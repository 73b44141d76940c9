"""Pipelines on a real Airflow while its parts are killed: the same bytes, and nothing lost."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_airflow.trial.standalone import free_port
from tests.support.airflow_runs import PipelineDag, add_pipeline
from tests.support.airflow_standalone import until
from tests.support.commands import saved, started
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import PROCESSES, chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pesto_airflow.trial.rest import TaskInstanceState
    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

WIDTH, HEIGHT, TILE = 1100, 600, 200
SECONDS = 0.4


@pytest.fixture
def pixels() -> np.ndarray:
    return noise(WIDTH, HEIGHT)


@pytest.fixture
def scene(tmp_path: Path, pixels: np.ndarray) -> Path:
    return write_scene(tmp_path / "s.tif", pixels)


@contextmanager
def serving(port: int) -> Iterator[None]:
    """The slow process as a service on this port; killed at the end, with what it has in hand."""
    with started("serve", f"{PROCESSES}:slow", "--port", port) as process:
        assert process.stderr is not None
        assert "http://" in process.stderr.readline()
        yield


def running(dag: PipelineDag, run_id: str) -> list[TaskInstanceState]:
    """Chunks that are being computed, by processes that are known."""
    return [t for t in dag.tasks(run_id, "map") if t.state == "running" and t.pid is not None]


def test_a_killed_task_costs_what_it_had_in_hand(
    airflow: Airflow, tmp_path: Path, scene: Path, pixels: np.ndarray
) -> None:
    """SIGKILL of a chunk's process: it alone is tried again, and the bytes are right."""
    document = chain("slow", seconds=SECONDS)
    dag = add_pipeline(
        airflow, "killed_task", document, scene=scene, folder=tmp_path / "out", tile=TILE
    )
    run_id = dag.begin()
    until(lambda: running(dag, run_id) and dag.blocks >= 1, timeout_s=90)
    victim = running(dag, run_id)[0]
    assert victim.pid is not None

    os.kill(victim.pid, signal.SIGKILL)

    dag.succeed(run_id)
    tries = {task.map_index: task.tries for task in dag.tasks(run_id, "map")}
    assert tries.pop(victim.map_index) == 2
    assert set(tries.values()) == {1}
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), pixels)
    assert dag.result["status"] == "COMPLETE"


def test_a_run_outlives_its_scheduler(
    airflow: Airflow, tmp_path: Path, scene: Path, pixels: np.ndarray
) -> None:
    """SIGKILL of the scheduler while chunks run; started again, it goes on where they are."""
    document = chain("slow", seconds=SECONDS)
    dag = add_pipeline(
        airflow, "killed_scheduler", document, scene=scene, folder=tmp_path / "out", tile=TILE
    )
    run_id = dag.begin()
    until(lambda: running(dag, run_id) and dag.blocks >= 1, timeout_s=90)

    airflow.kill("scheduler")
    assert airflow.api.state(dag.dag_id, run_id) == "running"
    airflow.restart("scheduler")

    dag.succeed(run_id)
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), pixels)
    assert dag.result["status"] == "COMPLETE"


def test_a_run_waits_for_a_service_that_died(
    airflow: Airflow, tmp_path: Path, scene: Path, pixels: np.ndarray
) -> None:
    """SIGKILL of the service while it computes; another at its place, and chunks are retried."""
    port = free_port()
    with serving(port):
        catalog = saved(tmp_path / "services.json", {"slow": f"http://127.0.0.1:{port}"})
        dag = add_pipeline(
            airflow, "killed_service", chain("slow", seconds=SECONDS),
            scene=scene, folder=tmp_path / "out", catalog=catalog, tile=TILE,
        )  # fmt: skip
        run_id = dag.begin()
        until(lambda: running(dag, run_id) and dag.blocks >= 1, timeout_s=90)
    until(lambda: any(t.state == "up_for_retry" for t in dag.tasks(run_id, "map")), timeout_s=90)

    with serving(port):
        dag.succeed(run_id)

    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), pixels)
    assert dag.result["status"] == "COMPLETE"
