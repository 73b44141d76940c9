"""Run a pipeline as a DAG for `pesto run --engine airflow`, and follow the run to its end.

It uses the Airflow of `PESTO_AIRFLOW_URL`, or starts one for the run; it computes nothing itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_airflow import NOT_INSTALLED
from pesto_airflow.catalog import write_catalog
from pesto_airflow.pipelines import map_task_id, sizing_for_airflow
from pesto_airflow.trial.rest import ENDED, AirflowApi
from pesto_airflow.trial.standalone import running_standalone
from pesto_runtime.engines import refuse_driver_options
from pesto_runtime.errors import Interrupted, InvalidInput, RunFailed
from pesto_runtime.hrefs import image_reference
from pesto_runtime.pipeline import completed
from pesto_runtime.run.pipeline_inputs import given_images, with_images
from pesto_runtime.tiling import tiles_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import TaskInstanceState
    from pesto_runtime.contract import Plan
    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.services import Services


URL, TOKEN, DAGS = "PESTO_AIRFLOW_URL", "PESTO_AIRFLOW_TOKEN", "PESTO_AIRFLOW_DAGS"
_PARSE_S = 600.0
"""Wait for Airflow to parse the new file: an Airflow refreshes its DAG folder every 5 minutes."""
_POLL_S = 0.5
_DAG = '''\
"""A run of `pesto run --engine airflow`; this file is deleted when the run ends."""

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
        """Run a pipeline, or resume an earlier run of the same key.

        The Airflow of `PESTO_AIRFLOW_URL` reads DAG files from `PESTO_AIRFLOW_DAGS`, and shares the
        disk of inputs and outputs. Without it, an Airflow is started, and stopped at the end.

        Returns:
            The content of `result.json`; `run` of its engine is Airflow's id of the run.

        Raises:
            InvalidPipeline: the pipeline is wrong; with every error.
            Interrupted: stopped by Ctrl-C; the same call resumes the run.
            PestoError: the run failed; nothing is published.
        """
        from pesto_runtime.run.ownership import abandon

        refuse_driver_options(request, "airflow")
        services, plan = _plan(request)
        pipeline = completed(request.pipeline, services.descriptions)
        request = replace(request, pipeline=pipeline)
        for warning in plan.warnings:
            watcher.warn(warning)
        if (finished := _finished(request, plan)) is not None:
            watcher.warn("already complete: nothing was computed; --fresh computes it again")
            return finished
        try:
            with _airflow(request) as target:
                return _run_dag(target, request, services, plan, watcher)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted; the same command resumes the run") from error
        finally:
            abandon(plan)  # of a run that is published, nobody owns the folder any more


engine = AirflowEngine()


def is_airflow_installed() -> bool:
    """Return whether `airflow.sdk`, and psutil to stop an Airflow, can be imported."""
    # It is not imported: that writes into AIRFLOW_HOME. And the name `airflow` alone is not enough:
    # to Python, a folder `airflow/`, as AIRFLOW_HOME often is, is a package too.
    found = find_spec("airflow")
    places = found.submodule_search_locations if found else None
    has_sdk = places is not None and PathFinder.find_spec("airflow.sdk", [*places]) is not None
    return has_sdk and find_spec("psutil") is not None


def _plan(request: RunRequest) -> tuple[Services, Plan]:
    """Plan as the first task will, to report errors before an Airflow is started."""
    from pesto_runtime.run.pipeline_inputs import read_inputs
    from pesto_runtime.run.planning import plan
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
        read_inputs(pipeline, services, request.inputs),
        store=run_store(request.folder.resolve(), request.store),
        sizing=sizing,
        patience_s=request.patience_s,
        folder=request.folder.resolve(),
        report=request.report,
        compress=request.compress,
        cache=request.cache,
    )
    return services, planned.plan


def _finished(request: RunRequest, plan: Plan) -> dict[str, JsonValue] | None:
    """Return the result if it is complete already, before half a minute is spent on an Airflow.

    Raises:
        StoreRefused: the output folder is not usable for a run.
        FolderInUse: another run owns it, or has finished in it.
    """
    from pesto_runtime.run.ownership import require_free
    from pesto_runtime.run.publishing import finish, finished_result
    from pesto_runtime.run.workspace import locked_workspace

    with locked_workspace(request.folder, run=plan.run) as workspace:
        require_free(request.folder, plan, take_over=request.take_over, replace=request.replace)
        if request.fresh:
            workspace.forget(plan)
            return None
        finished = finished_result(request.folder, plan.run, form=request.form)
        if finished is not None:
            finish(plan, workspace, finished, keep=request.keep, member="airflow")
    return finished


@dataclass(frozen=True)
class _Target:
    """An Airflow to run on.

    Attributes:
        api: Its REST API.
        dags: A folder from which it reads DAG files.
    """

    api: AirflowApi
    dags: Path


@contextmanager
def _airflow(request: RunRequest) -> Iterator[_Target]:
    """Yield the Airflow of the environment, or start one.

    Raises:
        InvalidInput: Airflow is not installed, or `PESTO_AIRFLOW_DAGS` is missing.
        RunFailed: Airflow did not start.
    """
    if url := os.environ.get(URL):
        dags = os.environ.get(DAGS)
        if not dags:
            raise InvalidInput(f"{URL} is set: set {DAGS} too, to a folder of its DAG files")
        api = AirflowApi(url, token=os.environ.get(TOKEN))
        try:
            yield _Target(api, Path(dags))
        finally:
            api.close()
        return
    if not is_airflow_installed():
        raise InvalidInput(f"{NOT_INSTALLED}; or set {URL} to the URL of a running Airflow")
    with tempfile.TemporaryDirectory(prefix="pesto-airflow-", ignore_cleanup_errors=True) as home:
        dags_folder = Path(home, "dags")
        dags_folder.mkdir()
        with running_standalone(Path(home), dags_folder, parallelism=request.workers) as standalone:
            yield _Target(standalone.api, dags_folder)


def _run_dag(
    target: _Target, request: RunRequest, services: Services, plan: Plan, watcher: ProgressListener
) -> dict[str, JsonValue]:
    """Write a DAG file, trigger it, follow it to its end, and delete the file.

    Raises:
        RunFailed: a task finally failed; with its error.
    """
    dag_id = f"pesto_{re.sub(r'[^A-Za-z0-9_]', '_', request.pipeline.name)}_{plan.run[:12]}"
    own = target.dags / dag_id
    try:
        own.mkdir(parents=True, exist_ok=True)
        write_catalog(services.found.values(), own / "catalog")
        # The DAG file is written last: Airflow may parse it at once, and it reads the other files.
        (own / "arguments.json").write_text(json.dumps(_arguments(request, own)))
        (target.dags / f"{dag_id}.py").write_text(_DAG.format(dag_id=dag_id))
        target.api.await_dag(dag_id, timeout_s=_PARSE_S)
        run_id = _follow(target.api, dag_id, plan, watcher=watcher)
    finally:
        with suppress(OSError):  # an earlier error must be the one that is raised
            (target.dags / f"{dag_id}.py").unlink()
        shutil.rmtree(own, ignore_errors=True)
    return _result(request.folder, run_id)


def _arguments(request: RunRequest, own: Path) -> dict[str, JsonValue]:
    """Return the arguments of `pesto_pipeline`."""
    return {
        "pipeline": request.pipeline.to_json(),
        "base": str(request.base.resolve()),
        "services": str(own / "catalog"),
        "inputs": {name: _literal(text) for name, text in _absolute_inputs(request).items()},
        "folder": _literal(str(request.folder.resolve())),
        "group_id": request.pipeline.name,
        "holes": "keep",
        "assets": {},
        "store": request.store,
        "tile": request.tile,
        "max_tasks": request.max_tasks,
        "workers": request.workers,
        "patience": request.patience_s,
        "report": request.report,
        "compress": request.compress,
        "cache": request.cache,
        "as_cog": request.as_cog,
        "overviews": request.overviews,
        "keep": request.keep,
        "take_over": request.take_over,
        "replace": request.replace,
        "preflight": "warn",  # this command and the Airflow share a disk
    }


def _absolute_inputs(request: RunRequest) -> dict[str, JsonValue]:
    """Return the inputs with hrefs of images: Airflow's workers have another working directory."""
    images = given_images(request.pipeline, request.inputs)
    absolute = {name: str(image_reference(value)) for name, value in images.items()}
    return with_images(request.inputs, absolute)


def _literal(value: JsonValue) -> JsonValue:
    """Escape the texts of a value, so that Airflow's templates render it unchanged."""
    if isinstance(value, list):
        return [_literal(each) for each in value]
    if isinstance(value, dict):
        return {key: _literal(each) for key, each in value.items()}
    is_template = isinstance(value, str) and "{" in value
    return f"{{% raw %}}{value}{{% endraw %}}" if is_template else value


def _follow(api: AirflowApi, dag_id: str, plan: Plan, *, watcher: ProgressListener) -> str:
    """Trigger a DAG, and report the tiles of each finished chunk until the run ends.

    Returns:
        The id of the run.

    Raises:
        RunFailed: a task finally failed; with its error.
        KeyboardInterrupt: after marking the run failed, so that its tasks stop.
    """
    tiles = _tiles_of_chunks(plan)
    watcher.begin(sum(tiles.values()))
    run_id = api.trigger(dag_id)
    try:
        _await_end(api, dag_id, run_id, tiles, watcher)
    except KeyboardInterrupt:
        api.mark(dag_id, run_id, "failed")
        raise
    return run_id


def _await_end(
    api: AirflowApi,
    dag_id: str,
    run_id: str,
    tiles: dict[tuple[str, int], int],
    watcher: ProgressListener,
) -> None:
    reported: set[tuple[str, int]] = set()
    while True:
        # The state is requested before the tasks: if it is final, the list of tasks is complete.
        state, tasks = api.state(dag_id, run_id), api.tasks(dag_id, run_id)
        done = {_chunk_key(task) for task in tasks if task.state == "success"} & set(tiles)
        watcher.advance(sum(tiles[each] for each in done - reported))
        reported |= done
        if state in ENDED:
            break
        time.sleep(_POLL_S)
    failed = [task for task in tasks if task.state == "failed"]
    if state == "failed":
        first = f"{failed[0].task_id}: {api.reason(dag_id, run_id, failed[0])}" if failed else ""
        raise RunFailed(f"run {run_id} failed\n  {first}")


def _tiles_of_chunks(plan: Plan) -> dict[tuple[str, int], int]:
    """(task id without its group, index of the chunk) -> number of tiles."""
    return {
        (map_task_id(phase.stages, phase.reduces), index): sum(
            1 for _ in tiles_of(chunk, phase.tile)
        )
        for phase in plan.phases
        for index, chunk in enumerate(phase.chunks)
    }


def _chunk_key(task: TaskInstanceState) -> tuple[str, int]:
    return task.task_id.rpartition(".")[2], task.map_index


def _result(folder: AnyPath, run_id: str) -> dict[str, JsonValue]:
    """Read the result that the run's last task wrote.

    Raises:
        RunFailed: it is missing, or that of another run: Airflow uses another disk.
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
