"""Run the same work here, in our chunks on Airflow, and with a mapped task for every tile."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.airflow.work import SIDE, Work
from pesto_airflow.catalog import write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener
from pesto_runtime.run.local import engine
from pesto_runtime.run.services import resolve_services

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_airflow.trial.standalone import Standalone

HERE, CHUNKS, PER_TILE = "local engine", "chunks", "a task per tile"
WORKERS = 4
_DAG = """
import json

from airflow.sdk import Param, dag

from pesto_airflow import PestoMapOperator, PestoPlanOperator, PestoPublishOperator

SETTINGS = json.loads({settings!r})


@dag("{dag_id}", schedule=None, params={{"folder": Param(type="string")}})
def contestant():
    plan = PestoPlanOperator(task_id="plan", folder="{{{{ params.folder }}}}", **SETTINGS)
    tiles = PestoMapOperator.partial(task_id="map", plan=plan.href).expand(chunk=plan.output)
    publish = PestoPublishOperator(
        task_id="publish", plan=plan.href, folder="{{{{ params.folder }}}}"
    )
    tiles >> publish


contestant()
"""


@dataclass(frozen=True)
class Round:
    """One run of everybody.

    Attributes:
        tiles: How many.
        seconds: Contestant -> wall time of the run, from its trigger to its end.
        tasks: Contestant -> mapped tasks.
        identical: Whether all products are the same bytes, and every tile was computed.
    """

    tiles: int
    seconds: dict[str, float]
    tasks: dict[str, int]
    identical: bool

    def added_ms(self, name: str) -> float:
        """Milliseconds a tile over the local engine."""
        return 1000 * (self.seconds[name] - self.seconds[HERE]) / self.tiles

    @property
    def ratio(self) -> float:
        """How often what chunks add goes into what a task per tile adds."""
        return self.added_ms(PER_TILE) / self.added_ms(CHUNKS)


def add_contestants(airflow: Standalone, dags: Path, work: Work) -> None:
    """Make the two DAGs of some work; returns when Airflow has read them."""
    catalog = dags / f"catalog_{work.tiles}"
    found = resolve_services(Pipeline.parse(work.pipeline), base=dags)
    write_catalog(found.found.values(), catalog)
    # 256 tasks on 256 workers: the floor of a chunk for each, and so one for every tile
    for name, workers, most in ((CHUNKS, WORKERS, 64), (PER_TILE, 256, 256)):
        settings = {
            "pipeline": work.pipeline,
            "services": str(catalog),
            "inputs": {"scene": str(work.scene)},
            "tile": SIDE,
            "max_tasks": most,
            "workers": workers,
        }
        dag_id = dag_id_of(name, work)
        text = _DAG.format(settings=json.dumps(settings), dag_id=dag_id)
        (dags / f"{dag_id}.py").write_text(text)
        airflow.api.await_dag(dag_id)


def dag_id_of(name: str, work: Work) -> str:
    """Id of a contestant's DAG."""
    return f"{name.replace(' ', '_')}_{work.tiles}"


def hold(airflow: Standalone, work: Work, folder: Path) -> Round:
    """Run everybody once, one after another."""
    seconds, tasks = {HERE: _local(work, folder / "local")}, dict[str, int]()
    for name in (CHUNKS, PER_TILE):
        dag_id = dag_id_of(name, work)
        out = folder / dag_id
        begun = time.perf_counter()
        run_id = airflow.api.trigger(dag_id, {"folder": str(out)})
        state = airflow.api.await_end(dag_id, run_id, timeout_s=1200)
        seconds[name] = time.perf_counter() - begun
        if state != "success":
            raise SystemExit(f"{dag_id} is {state}")
        tasks[name] = sum(t.task_id == "map" for t in airflow.api.tasks(dag_id, run_id))
    places = ["local", *(dag_id_of(name, work) for name in (CHUNKS, PER_TILE))]
    products = [folder / place / "image.tif" for place in places]
    sums = {hashlib.sha256(path.read_bytes()).hexdigest() for path in products}
    computed = {
        json.loads((folder / place / "result.json").read_text())["tiles"]["computed"]
        for place in places
    }
    return Round(work.tiles, seconds, tasks, len(sums) == 1 and computed == {work.tiles})


def _local(work: Work, folder: Path) -> float:
    request = RunRequest(
        pipeline=Pipeline.parse(work.pipeline),
        base=folder.parent,
        inputs={"scene": str(work.scene)},
        folder=folder,
        tile=SIDE,
        workers=WORKERS,
    )
    begun = time.perf_counter()
    engine.run(request, watcher=SilentListener())
    return time.perf_counter() - begun
