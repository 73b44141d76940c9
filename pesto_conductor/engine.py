"""Run a pipeline as a workflow, with worker processes of its own: `pesto run --engine conductor`.

The server is that of `CONDUCTOR_SERVER_URL`, or else the trial server, which is started if none
runs, and stopped by the last run that uses it. Tasks are in a domain of the run, so that no other
worker takes them: it may have no access to the files of this machine. This file contains no
activities: the workers run those of `verbs.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from pesto_conductor.client import Conductor, require_sdk
from pesto_conductor.connection import VARIABLE
from pesto_conductor.definitions import workflow_definition
from pesto_conductor.deploy import register
from pesto_conductor.following import failure_of, follow
from pesto_conductor.taskdefs import task_definitions
from pesto_conductor.trial_server import borrowed, configured_url
from pesto_conductor.workflows import chosen_services
from pesto_runtime.engines import refuse_driver_options
from pesto_runtime.errors import Interrupted, PestoError, RunFailed
from pesto_runtime.run.context import forget_run
from pesto_runtime.run.local import sizing_of
from pesto_runtime.run.ownership import abandon, require_free
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan, shape
from pesto_runtime.run.publishing import finish, finished_result
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import locked_workspace, run_store

if TYPE_CHECKING:
    from types import TracebackType

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan
    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.run.pipeline_inputs import PipelineInputs
    from pesto_runtime.run.services import Services

    Document = dict[str, JsonValue]


_COMMAND = (sys.executable, "-c", "from pesto_runtime.cli import main; main()")
_DRAIN_S = 10.0
_LOG_CHARS = 1500


class ConductorEngine:
    """Runs pipelines as workflows of Conductor."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> Document:
        """Run a pipeline, or resume an earlier run of the same key.

        Returns:
            The content of `result.json`.

        Raises:
            InvalidPipeline: the pipeline has errors; names each, before a server is contacted or
                started.
            Unreachable: no Conductor responds at the URL of the environment.
            Interrupted: stopped by Ctrl-C; the same command resumes the run.
            RunFailed: the workflow failed; names the reason of each failed task.
        """
        require_sdk()
        refuse_driver_options(request, "conductor")
        services = resolve_services(
            request.pipeline, base=request.base, options=request.services, catalog=request.catalog
        )
        inputs = read_inputs(request.pipeline, services, request.inputs)
        planned = _planned(request, services, inputs)
        for warning in planned.warnings:
            watcher.warn(warning)
        if (finished := _finished(request, planned)) is not None:
            watcher.warn("already complete: nothing was computed; --fresh computes it again")
            return finished
        with ExitStack() as stack:
            stack.callback(abandon, planned)
            url = configured_url() or stack.enter_context(borrowed()).url
            conductor = stack.enter_context(Conductor(url)).require()
            register(conductor, {})
            workers = stack.enter_context(_workers(conductor, request))
            definition = workflow_definition(
                request.pipeline,
                shape(request.pipeline, services),
                descriptions=services.descriptions,
            )
            workflow_input = _input_of(request, services, inputs)
            _run(conductor, workers, definition, workflow_input, watcher)
        result: Document = json.loads((request.folder / "result.json").read_text())
        return result


engine = ConductorEngine()


class RunWorkers:
    """Runs worker processes of one task domain while a block runs.

    Attributes:
        domain: The task domain.
    """

    def __init__(self, url: str, domain: str, *, processes: int, at_once: int) -> None:
        """Prepare the command of the workers; none is started yet.

        Args:
            url: Base of Conductor's REST interface.
            domain: The workers take only tasks of this domain.
            processes: Number of workers.
            at_once: Tasks that each worker runs at once.
        """
        self._command = [
            *_COMMAND, "conductor", "worker", "--domain", domain,
            "--concurrency", str(at_once), "--until-stdin-closes",
        ]  # fmt: skip
        # Not an option: it may have a password, and every user can read the arguments.
        short_polls = {"CONDUCTOR_WORKER_ALL_POLL_TIMEOUT": "100"}  # long ones end after the run
        self._environment = {**os.environ, **short_polls, VARIABLE: url}
        self.domain = domain
        self._count = processes
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by __exit__
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._running = [self._start() for _ in range(self._count)]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for each in self._running:
            if each.stdin is not None:
                each.stdin.close()  # the worker drains, and ends by itself
        for each in self._running:
            try:
                each.wait(_DRAIN_S)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        self._log.close()

    def require(self) -> None:
        """Check that at least one worker runs.

        Raises:
            RunFailed: all workers have ended; has the end of their log.
        """
        codes = [each.poll() for each in self._running]
        if None not in codes:
            self._log.seek(0)
            raise RunFailed(
                f"all workers have ended, with exit codes {', '.join(map(str, codes))}:\n"
                f"{self._log.read()[-_LOG_CHARS:]}"
            )

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own, because a terminal sends Ctrl-C to the whole process group: the
        # signal is for the run, which then stops its workers.
        return subprocess.Popen(  # noqa: S603  # our own command
            self._command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
            start_new_session=True, env=self._environment,
        )  # fmt: skip


def _planned(request: RunRequest, services: Services, inputs: PipelineInputs) -> Plan:
    """Plan the run to find its errors, before workers are started."""
    sizing = sizing_of(workers=request.workers, tile=request.tile, max_tasks=request.max_tasks)
    folder = request.folder.resolve()
    store = run_store(folder, request.store)
    planned = plan(
        request.pipeline, services, inputs, store=store, sizing=sizing, folder=folder,
        patience_s=request.patience_s, report=request.report, compress=request.compress,
        cache=request.cache,
    )  # fmt: skip
    return planned.plan


def _finished(request: RunRequest, planned: Plan) -> Document | None:
    """Return the result if it is complete already.

    Raises:
        FolderInUse: another run owns the folder, or has finished in it.
    """
    with locked_workspace(request.folder, run=planned.run) as workspace:
        require_free(request.folder, planned, take_over=request.take_over, replace=request.replace)
        if request.fresh:
            forget_run(planned)
            workspace.clear()
            return None
        finished = finished_result(request.folder, planned.run, form=request.form)
        if finished is not None:
            finish(planned, workspace, finished, keep=request.keep, member="conductor")
    return finished


def _workers(conductor: Conductor, request: RunRequest) -> RunWorkers:
    processes = request.workers if request.executor == "processes" else 1
    return RunWorkers(
        conductor.address,
        f"run-{uuid.uuid4().hex[:12]}",
        processes=processes,
        at_once=request.workers // processes,
    )


def _input_of(request: RunRequest, services: Services, inputs: PipelineInputs) -> Document:
    """Return the workflow's input: that of the request, with absolute paths."""
    base = request.base.resolve()
    scenes = {name: str(scene.reference) for name, scene in inputs.scenes.items()}
    values: Document = {
        **request.inputs,
        **scenes,
        "folder": str(request.folder.resolve()),
        "base": str(base),
        "services": chosen_services(request.pipeline, services, base=base),
        "store": request.store,
        "workers": request.workers,
        "max_tasks": request.max_tasks,
        "tile": request.tile,
        "patience": request.patience_s,
        "holes": "keep",  # as the local engine: a run with holes is PARTIAL, not failed
        "report": request.report,
        "compress": request.compress,
        "cache": request.cache,
        "as_cog": request.as_cog,
        "overviews": request.overviews,
        "keep": request.keep,
        "take_over": request.take_over,
        "replace": request.replace,
    }
    return {name: value for name, value in values.items() if value is not None}


def _run(
    conductor: Conductor,
    workers: RunWorkers,
    definition: Document,
    workflow_input: Document,
    watcher: ProgressListener,
) -> None:
    """Start the workflow, and follow it until it ends; an error terminates it."""
    domains = {each.name: workers.domain for each in task_definitions()}
    name = str(definition["name"])
    identity = conductor.start(name, workflow_input, definition=definition, domains=domains)
    try:
        ended = follow(conductor, identity, watcher, before_poll=workers.require)
    except KeyboardInterrupt as error:
        conductor.terminate(identity, reason="interrupted")
        raise Interrupted("interrupted; the same command resumes the run") from error
    except PestoError as error:
        conductor.terminate(identity, reason=str(error))
        raise
    if ended.get("status") != "COMPLETED":
        raise failure_of(ended)
