"""`pesto run --engine conductor`: a run as a workflow, by workers of its own.

The Conductor is the one that is named, else ours, started if need be and stopped by the last run
that needs it. Tasks go to a domain of the run's own, so that no other worker takes them: it may not
see this machine's files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from pesto_conductor.client import Conductor, require_sdk
from pesto_conductor.deploy import register
from pesto_conductor.following import failure_of, follow
from pesto_conductor.taskdefs import task_definitions
from pesto_conductor.trial_server import borrowed, configured_url
from pesto_conductor.workflows import Rendered, chosen_services
from pesto_runtime.errors import Interrupted, PestoError, RunFailed
from pesto_runtime.run.context import forget_run
from pesto_runtime.run.local import sizing_of
from pesto_runtime.run.planning import plan, read_inputs, shape
from pesto_runtime.run.publishing import finished_result
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import locked_workspace, run_store

if TYPE_CHECKING:
    from types import TracebackType

    from pydantic import JsonValue

    Document = dict[str, JsonValue]
    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.run.planning import PipelineInputs
    from pesto_runtime.run.services import Services


_COMMAND = (sys.executable, "-c", "from pesto_runtime.cli import main; main()")
_DRAIN_S = 10.0
_LOG_CHARS = 1500


class RunWorkers:
    """Worker processes of one domain.

    Args:
        url: Conductor's REST interface.
        domain: They take tasks of this domain, and no others.
        processes: How many.
        at_once: Tasks at once in each.
    """

    def __init__(self, url: str, domain: str, *, processes: int, at_once: int) -> None:
        self._command = [
            *_COMMAND, "conductor", "worker", "--url", url, "--domain", domain,
            "--concurrency", str(at_once), "--until-stdin-closes",
        ]  # fmt: skip
        self.domain = domain
        self._count = processes
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with this
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
                each.stdin.close()  # it ends by itself, having put down what it holds
        for each in self._running:
            try:
                each.wait(_DRAIN_S)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        self._log.close()

    def require(self) -> None:
        """Make sure that somebody works.

        Raises:
            RunFailed: every worker has ended; with what they said last.
        """
        codes = [each.poll() for each in self._running]
        if None not in codes:
            self._log.seek(0)
            raise RunFailed(
                f"all workers have ended, with {', '.join(map(str, codes))}:\n"
                f"{self._log.read()[-_LOG_CHARS:]}"
            )

    def _start(self) -> subprocess.Popen[bytes]:
        """In a session of its own: a Ctrl-C is for the run, which then stops its workers."""
        return subprocess.Popen(  # noqa: S603  # our own command
            self._command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip


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
        require_sdk()
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
