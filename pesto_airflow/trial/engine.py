"""`pesto run --engine airflow`: a run as a DAG, on an Airflow that is there or one of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_airflow import NOT_INSTALLED
from pesto_airflow.catalog import write_catalog
from pesto_airflow.pipelines import map_task_id, sizing_for_airflow
from pesto_airflow.trial.rest import ENDED, AirflowApi
from pesto_airflow.trial.standalone import running_standalone
from pesto_runtime.errors import Interrupted, InvalidInput, RunFailed
from pesto_runtime.hrefs import looks_like_href
from pesto_runtime.tiling import tiles_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import TaskInstanceState
    from pesto_runtime.contract import Plan
    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.run.services import Services


def is_airflow_installed() -> bool:
    """Whether `airflow.sdk` can be imported, and what stops an Airflow's processes.

    Looked for, not imported: importing Airflow writes into its home. A folder `airflow/`, as
    `AIRFLOW_HOME` often is, is a package too to Python, so the name alone says nothing.
    """
    found = find_spec("airflow")
    places = found.submodule_search_locations if found else None
    has_sdk = places is not None and PathFinder.find_spec("airflow.sdk", [*places]) is not None
    return has_sdk and find_spec("psutil") is not None


def require_airflow() -> None:
    """Refuse to start an Airflow where there is none.

    Raises:
        InvalidInput: it is not installed; names the extra.
    """
    if not is_airflow_installed():
        raise InvalidInput(f"{NOT_INSTALLED}; or name one that runs elsewhere by PESTO_AIRFLOW_URL")


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


URL, TOKEN, DAGS = "PESTO_AIRFLOW_URL", "PESTO_AIRFLOW_TOKEN", "PESTO_AIRFLOW_DAGS"
_FIND_S = 600.0
_DAG = '''\
"""A run of `pesto run --engine airflow`; gone when it ends."""

import json
from pathlib import Path

from airflow.sdk import dag

from pesto_airflow import pesto_pipeline

ARGUMENTS = json.loads((Path(__file__).parent / "{dag_id}" / "arguments.json").read_text())


@dag("{dag_id}", schedule=None, tags=["pesto"])
def run():
    pesto_pipeline(**ARGUMENTS)


run()
'''


class AirflowEngine:
    """Runs pipelines on Airflow."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run a pipeline; goes on where an earlier run of the same key stopped.

        The Airflow is that of `PESTO_AIRFLOW_URL`, which reads DAG files from `PESTO_AIRFLOW_DAGS`
        and shares the disk of inputs and outputs; else one is started, and stopped again.

        Returns:
            What `result.json` holds; its engine's `run` is Airflow's id of the run.

        Raises:
            InvalidPipeline: the pipeline does not check; with every error.
            Interrupted: stopped by Ctrl-C; the same call resumes.
            PestoError: the run failed; nothing is published.
        """
        from pesto_runtime.run.publishing import finished_result

        services, plan = _planned(request)
        for warning in plan.warnings:
            watcher.warn(warning)
        if request.fresh:
            _forget(request, plan)
        elif finished := finished_result(request.folder, plan.run, as_cog=request.as_cog):
            watcher.warn("already complete: nothing was computed; --fresh computes it again")
            return finished
        try:
            with _airflow(request) as place:
                return _run(place, request, services, plan, watcher)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted; the same command resumes the run") from error


@dataclass(frozen=True)
class _Place:
    """An Airflow to run on.

    Attributes:
        api: Its REST API.
        dags: A folder that it reads DAG files from.
    """

    api: AirflowApi
    dags: Path


@contextmanager
def _airflow(request: RunRequest) -> Iterator[_Place]:
    """The Airflow that is there; else one of its own, once nothing is in its way.

    Raises:
        InvalidInput: Airflow is not installed, or only half of one that is there is named.
        StoreRefused: the output folder cannot hold a run.
        RunFailed: it did not start.
    """
    if url := os.environ.get(URL):
        dags = os.environ.get(DAGS)
        if not dags:
            raise InvalidInput(f"{URL} is set: set {DAGS} too, to a folder of its DAG files")
        api = AirflowApi(url, token=os.environ.get(TOKEN))
        try:
            yield _Place(api, Path(dags))
        finally:
            api.close()
        return
    require_airflow()
    _require_folder(request.folder)
    with tempfile.TemporaryDirectory(prefix="pesto-airflow-", ignore_cleanup_errors=True) as home:
        dags_folder = Path(home, "dags")
        dags_folder.mkdir()
        with running_standalone(Path(home), dags_folder, parallelism=request.workers) as standalone:
            yield _Place(standalone.api, dags_folder)


def _run(
    place: _Place, request: RunRequest, services: Services, plan: Plan, watcher: ProgressListener
) -> dict[str, JsonValue]:
    """Have one DAG read, triggered and followed; its files go when it ends.

    Raises:
        RunFailed: a task failed for good; with what it said.
    """
    dag_id = f"pesto_{re.sub(r'[^A-Za-z0-9_]', '_', request.pipeline.name)}_{plan.run[:12]}"
    own = place.dags / dag_id
    try:
        own.mkdir(parents=True, exist_ok=True)
        write_catalog(services.found.values(), own / "catalog")
        (own / "arguments.json").write_text(json.dumps(_arguments(request, own)))
        (place.dags / f"{dag_id}.py").write_text(_DAG.format(dag_id=dag_id))
        place.api.await_dag(dag_id, timeout_s=_FIND_S)
        run_id = follow(place.api, dag_id, plan, watcher=watcher)
    finally:
        with suppress(OSError):  # what went wrong before is what counts
            (place.dags / f"{dag_id}.py").unlink()
        shutil.rmtree(own, ignore_errors=True)
    return _result(request.folder, run_id)


def _arguments(request: RunRequest, own: Path) -> dict[str, JsonValue]:
    """Those of `pesto_pipeline`."""
    return {
        "pipeline": request.pipeline.to_json(),
        "base": str(request.base.resolve()),
        "services": str(own / "catalog"),
        "inputs": {name: _literal(text) for name, text in _absolute(request).items()},
        "folder": _literal(str(request.folder.resolve())),
        "group_id": request.pipeline.name,
        "holes": "keep",
        "assets": {},
        "store": request.store,
        "tile": request.tile,
        "max_tasks": request.max_tasks,
        "workers": request.workers,
        "as_cog": request.as_cog,
        "keep": request.keep,
    }


def _absolute(request: RunRequest) -> dict[str, str]:
    """Inputs that mean the same from any working directory."""
    return {
        name: str(Path(text).resolve())
        if request.pipeline.inputs.get(name) == "image" and not looks_like_href(text)
        else text
        for name, text in request.inputs.items()
    }


def _literal(text: str) -> str:
    """A text that Airflow's templates give back as it is."""
    return f"{{% raw %}}{text}{{% endraw %}}" if "{" in text else text


def _planned(request: RunRequest) -> tuple[Services, Plan]:
    """Plan as the run's first task will: what is wrong is told before an Airflow is started."""
    from pesto_runtime.run.planning import plan, read_inputs
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.run.workspace import run_store

    pipeline = request.pipeline
    services = resolve_services(
        pipeline, base=request.base, options=request.services, catalog=request.catalog
    )
    sizing = sizing_for_airflow(
        workers=request.workers, tile=request.tile, max_tasks=request.max_tasks
    )
    planned = plan(
        pipeline,
        services,
        read_inputs(pipeline, request.inputs),
        store=run_store(request.folder.resolve(), request.store),
        sizing=sizing,
    )
    return services, planned.plan


def _require_folder(folder: Path) -> None:
    """Refuse what the local engine refuses, before half a minute is spent on an Airflow."""
    from pesto_runtime.run.workspace import locked_workspace

    with locked_workspace(folder):
        pass


def _forget(request: RunRequest, plan: Plan) -> None:
    from pesto_runtime.run.workspace import locked_workspace

    with locked_workspace(request.folder) as workspace:
        workspace.forget(plan)


def _result(folder: Path, run_id: str) -> dict[str, JsonValue]:
    """What the run's last task wrote.

    Raises:
        RunFailed: it is not there, or of another run: this machine does not see that disk.
    """
    path = folder / "result.json"
    try:
        result: dict[str, JsonValue] = json.loads(path.read_text())
    except FileNotFoundError:
        result = {}
    engine = result.get("engine")
    if not isinstance(engine, dict) or engine.get("run") != run_id:
        raise RunFailed(
            f"run {run_id} succeeded, but {path} is not its result: Airflow must share this disk"
        )
    return result


engine = AirflowEngine()
