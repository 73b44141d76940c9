"""`pesto run --engine conductor`: a run as a workflow, by workers of its own.

The Conductor is the one that is named, else ours, started if need be and stopped by the last run
that needs it. Tasks go to a domain of the run's own, so that no other worker takes them: it may not
see this machine's files.
"""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pesto_conductor.companions import RunWorkers
from pesto_conductor.deploy import register
from pesto_conductor.following import failure_of, follow
from pesto_conductor.render import chosen_services
from pesto_conductor.rest import Conductor
from pesto_conductor.server import borrowed
from pesto_conductor.taskdefs import task_definitions
from pesto_conductor.where import configured_url
from pesto_conductor.workflows import Rendered
from pesto_runtime.activities import (
    finished_result,
    forget_run,
    locked_workspace,
    plan,
    read_inputs,
    resolve_services,
    run_store,
    shape,
)
from pesto_runtime.errors import Interrupted, InvalidInput, PestoError
from pesto_runtime.local import sizing_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.activities import PipelineInputs, Services
    from pesto_runtime.engines import ProgressListener, RunRequest

    Document = dict[str, JsonValue]


class ConductorEngine:
    """Runs pipelines as workflows."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> Document:
        """Run a pipeline; goes on where an earlier run of the same key stopped.

        Returns:
            What `result.json` holds.

        Raises:
            InvalidPipeline: the pipeline does not check; with every error, before any server is
                asked or started.
            Unreachable: no Conductor answers where one is said to be.
            Interrupted: stopped by Ctrl-C; the same call resumes.
            RunFailed: the workflow failed; with the reason of each task that did.
        """
        if find_spec("conductor") is None:
            raise InvalidInput(
                "this engine needs conductor-python: pip install 'pesto-workflows[conductor]'"
            )
        services = resolve_services(
            request.pipeline, base=request.base, options=request.services, catalog=request.catalog
        )
        inputs = read_inputs(request.pipeline, request.inputs)
        finished = _finished(request, services, inputs, watcher)
        if finished is not None:
            return finished
        with ExitStack() as stack:
            url = configured_url() or stack.enter_context(borrowed()).url
            conductor = stack.enter_context(Conductor(url)).require()
            register(conductor, {})
            workers = stack.enter_context(_workers(conductor, request))
            definition = Rendered(request.pipeline, shape(request.pipeline, services)).definition()
            given = _input_of(request, services, inputs)
            _run(conductor, workers, definition, given, watcher)
        result: Document = json.loads((request.folder / "result.json").read_text())
        return result


engine = ConductorEngine()


def _finished(
    request: RunRequest, services: Services, inputs: PipelineInputs, watcher: ProgressListener
) -> Document | None:
    """Plan the run for what is wrong with it; answers its result where that is there already."""
    sizing = sizing_of(workers=request.workers, tile=request.tile, max_tasks=request.max_tasks)
    with locked_workspace(request.folder) as workspace:
        store = run_store(request.folder, request.store)
        planned = plan(request.pipeline, services, inputs, store=store, sizing=sizing)
        for warning in planned.plan.warnings:
            watcher.warn(warning)
        if request.fresh:
            forget_run(planned.plan)
            workspace.clear()
            return None
        finished = finished_result(request.folder, planned.plan.run, as_cog=request.as_cog)
    if finished is not None:
        watcher.warn("already complete: nothing was computed; --fresh computes it again")
    return finished


def _workers(conductor: Conductor, request: RunRequest) -> RunWorkers:
    processes = request.workers if request.executor == "processes" else 1
    return RunWorkers(
        conductor.url,
        f"run-{uuid.uuid4().hex[:12]}",
        processes=processes,
        at_once=request.workers // processes,
    )


def _input_of(request: RunRequest, services: Services, inputs: PipelineInputs) -> Document:
    """The workflow's input: what was asked, paths made absolute."""
    base = request.base.resolve()
    scenes = {name: scene.href for name, scene in inputs.scenes.items()}
    asked: Document = {
        **request.inputs,
        **scenes,
        "folder": str(request.folder.resolve()),
        "base": str(base),
        "services": chosen_services(request.pipeline, services, base=base),
        "store": request.store,
        "workers": request.workers,
        "max_tasks": request.max_tasks,
        "tile": request.tile,
        "holes": "keep",  # as the local engine: a run with holes is PARTIAL, not failed
        "as_cog": request.as_cog,
        "keep": request.keep,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _run(
    conductor: Conductor,
    workers: RunWorkers,
    definition: Document,
    given: Document,
    watcher: ProgressListener,
) -> None:
    """Start the workflow and stay until it has ended; it never outlives this."""
    domains = {each.name: workers.domain for each in task_definitions()}
    name = str(definition["name"])
    identity = conductor.start(name, given, definition=definition, domains=domains)
    try:
        ended = follow(conductor, identity, watcher, look=workers.require)
    except KeyboardInterrupt as error:
        conductor.terminate(identity, reason="interrupted")
        raise Interrupted("interrupted; the same command resumes the run") from error
    except PestoError as error:
        conductor.terminate(identity, reason=str(error))
        raise
    if ended.get("status") != "COMPLETED":
        raise failure_of(ended)
