"""Run pipelines from this process, with workers of one kind; defines those of the local engine.

It runs the chunks of one phase after another and resumes earlier runs. It does no computations of
its own: the activities do. `pesto_runtime/clusters/` has other workers.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.contract import Chunk
from pesto_runtime.contract.prices import SpendingLimits
from pesto_runtime.errors import Interrupted, PestoError, RunFailed
from pesto_runtime.machine import memory_bytes
from pesto_runtime.pipeline import Sizing
from pesto_runtime.places import output_place
from pesto_runtime.run.callers import close_callers
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import close_phase
from pesto_runtime.run.context import begin_run, forget_run, is_blocked, load_context
from pesto_runtime.run.ownership import claim, release
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import count_tiles, plan
from pesto_runtime.run.process_workers import ProcessWorkers
from pesto_runtime.run.publishing import finish, finished_result, publish
from pesto_runtime.run.readers import decoded_blocks, neighbours_first, readers
from pesto_runtime.run.records import TileObserver, TileRecord
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.spending import SpendingMeter, remote_bytes
from pesto_runtime.run.verifying import verify_tiles
from pesto_runtime.run.workspace import (
    Workspace,
    locked_workspace,
    run_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import ChunkResult, Plan
    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.run.planning import Planned
    from pesto_runtime.run.workspace import AnyWorkspace


_MOST_DEATHS = 3
_POLL_S = 0.1
_MEMORY_SHARE = 4


@dataclass(frozen=True)
class DriverEngine:
    """Runs pipelines from this process, which plans, owns the folder, and publishes.

    Attributes:
        name: Name of the engine.
        start: Starts the workers of a run, once its inputs are checked and it owns its folder.
    """

    name: str
    start: Callable[[RunRequest], ChunkWorkers]

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run a pipeline, or resume an earlier run of the same key.

        Returns:
            The content of `result.json`.

        Raises:
            InvalidPipeline: the pipeline does not check; with every error.
            Interrupted: stopped by Ctrl-C; the same call resumes the run.
            LimitReached: stopped before a limit of the request; the same call resumes the run.
            PestoError: the run failed; nothing is published.
        """
        pipeline = request.pipeline
        folder = output_place(request.folder)
        services = resolve_services(
            pipeline, base=request.base, options=request.services, catalog=request.catalog
        )
        inputs = read_inputs(pipeline, services, request.inputs)
        sizing = sizing_of(workers=request.workers, tile=request.tile, max_tasks=request.max_tasks)
        store = run_store(folder, request.store)
        estimated = plan(
            pipeline, services, inputs, store=store, sizing=sizing, folder=folder,
            patience_s=request.patience_s, report=request.report, compress=request.compress,
            cache=request.cache,
        )  # fmt: skip
        planned, meter = estimated.plan, _meter(request, estimated)
        for warning in planned.warnings:
            watcher.warn(warning)
        member = _member()
        with locked_workspace(folder, run=planned.run, on_wait=watcher.warn) as workspace:
            claim(
                folder,
                planned,
                member=member,
                pid=os.getpid(),
                take_over=request.take_over,
                replace=request.replace,
            )
            try:
                return _resume_or_run(self, planned, request, workspace, watcher, meter)
            finally:
                close_callers()
                readers.close()
                decoded_blocks.clear()
                release(folder, planned.run, member=member)


def sizing_of(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """Return the limits for a run on this machine: a quarter of its memory is for tiles."""
    memory = memory_bytes() // _MEMORY_SHARE
    return Sizing(workers=workers, max_tasks=max_tasks, tile=tile, memory_bytes=memory)


def _meter(request: RunRequest, planned: Planned) -> SpendingMeter:
    """Begin to measure what a run takes."""
    return SpendingMeter(
        request.limits or SpendingLimits(),
        workers=request.workers,
        remote_bytes=remote_bytes(planned.plan, planned.estimates[0]),
        end_s=planned.publish_seconds,
    )


def _member() -> str:
    return f"local:{socket.gethostname()}:{os.getpid()}"


def _resume_or_run(
    engine: DriverEngine,
    plan: Plan,
    request: RunRequest,
    workspace: AnyWorkspace,
    watcher: ProgressListener,
    meter: SpendingMeter,
) -> dict[str, JsonValue]:
    """Return the result in a locked folder if it is complete; compute what is missing otherwise."""
    result = None
    if request.fresh:
        if plan.store != workspace.store:
            forget_run(plan)
        workspace.clear()
    else:
        result = finished_result(workspace.folder, plan.run, form=request.form)
    if result is not None:
        done = "computed, nor verified" if request.verify_tiles else "computed"
        watcher.warn(f"already complete: nothing was {done}; --fresh computes it again")
    else:
        result = _Run(engine, plan, request, watcher, meter).run(workspace)
    is_last = finish(plan, workspace, result, keep=request.keep, member=_member())
    is_on_disk = isinstance(workspace, Workspace)  # whose lock is still held
    if is_on_disk and is_last and result["status"] == "COMPLETE" and not request.keep:
        workspace.clear()
    return result


class _Run:
    """One run while it runs."""

    def __init__(
        self,
        engine: DriverEngine,
        plan: Plan,
        request: RunRequest,
        watcher: ProgressListener,
        meter: SpendingMeter,
    ) -> None:
        self._meter = meter
        self._name = engine.name
        self._plan = plan
        self._request = request
        self._watcher = watcher
        self._href = begin_run(plan)
        self._context = load_context(self._href)
        self._death: BrokenExecutor | None = None
        self._workers = engine.start(request)

    def run(self, workspace: AnyWorkspace) -> dict[str, JsonValue]:
        """Run every phase, then publish the run."""
        phases, request = self._plan.phases, self._request
        seconds: list[float] = []
        record = RunRecord(
            engine={"name": self._name, "run": uuid.uuid4().hex[:12], **self._workers.facts},
            phase_seconds=seconds,
        )
        total = sum(count_tiles(phase) for phase in phases)
        self._watcher.begin(total)
        self._meter.begin(total)
        try:
            for number in range(len(phases)):
                begun = time.perf_counter()
                if not is_blocked(self._context, number):
                    self._run_chunks(number, len(phases[number].chunks))
                    close_phase(self._href, number)
                seconds.append(time.perf_counter() - begun)
                self._meter.require_more()
        finally:
            self._workers.close()
        decoded_blocks.clear()  # the memory is for the pictures of the report
        verified = verify_tiles(self._href, request.verify_tiles)
        record = replace(record, verified_tiles=verified)
        return publish(self._href, workspace, record, form=request.form)

    def _run_chunks(self, phase: int, count: int) -> None:
        """Run the chunks of a phase; again those whose worker died, up to 3 times in a row."""
        waiting, deaths = set(range(count)), 0
        while waiting:
            before = len(waiting)
            for number in self._fan_out(phase, waiting):
                waiting.discard(number)
            # An attempt that finished a chunk makes progress, and does not count.
            deaths = 0 if len(waiting) < before else deaths + 1
            if deaths > _MOST_DEATHS:
                raise RunFailed(
                    f"worker processes died {deaths} times without finishing a chunk: the "
                    "algorithm crashes, or memory runs out; run fewer --workers, or smaller "
                    f"tiles; the same command resumes the run\n  {self._death}"
                ) from self._death

    def _fan_out(self, phase: int, numbers: set[int]) -> Iterator[int]:
        """Run chunks, and yield the number of each finished one."""
        executor = self._workers.executor(len(numbers))
        try:
            waiting = {
                executor.submit(
                    self._workers.run,
                    Chunk(plan=self._href, phase=phase, start=number, stop=number + 1),
                ): number
                for number in neighbours_first(self._context, phase, numbers)
            }
            yield from self._finished(waiting)
        except KeyboardInterrupt as error:
            self._workers.stop()
            raise Interrupted("interrupted; the same command resumes the run") from error
        except PestoError:
            self._workers.stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)
            self._report_progress()

    def _finished(self, waiting: dict[Future[ChunkResult], int]) -> Iterator[int]:
        while waiting:
            done, _ = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self._report_progress()
            self._meter.require_more()
            for future in done:
                number = waiting.pop(future)
                try:
                    future.result()
                except BrokenExecutor as error:
                    self._death = error
                else:
                    yield number

    def _report_progress(self) -> None:
        tiles = self._workers.new_tiles()
        self._meter.add(tiles)
        self._watcher.advance(len(tiles))


class ChunkWorkers(Protocol):
    """Workers of one kind: creates their executors, and counts the tiles that ended."""

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Facts about the workers for `result.json`."""

    def executor(self, chunks: int) -> Executor:
        """Create an executor for so many chunks of a phase."""

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in a worker.

        Raises:
            BrokenExecutor: the worker has died.
        """

    def new_tiles(self) -> list[float]:
        """Return the seconds of each tile that ended since the last call; 0 for a reused one."""

    def stop(self) -> None:
        """Stop every worker before its next tile."""

    def close(self) -> None:
        """End the workers."""


@dataclass
class ThreadWorkers:
    """Threads of this process: for code that releases the GIL, and for services."""

    count: int
    _tiles_at_once: int = 1
    _records: list[TileRecord] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """Kind and number."""
        return {"executor": "threads", "workers": self.count}

    def executor(self, chunks: int) -> Executor:
        """Create a pool of threads; those that have no chunk of their own share its tiles."""
        self._tiles_at_once = max(1, self.count // chunks)
        return ThreadPoolExecutor(self.count, thread_name_prefix="pesto")

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in the calling thread."""
        watch = TileObserver(self._records.append, self._stopped.is_set)
        return process(chunk, watch=watch, threads=self._tiles_at_once)

    def new_tiles(self) -> list[float]:
        """Return the seconds of each tile that ended since the last call; 0 for a reused one."""
        seconds = [record.seconds for record in self._records]
        del self._records[: len(seconds)]  # workers append meanwhile: exactly those are deleted
        return seconds

    def stop(self) -> None:
        """Stop every thread before its next tile."""
        self._stopped.set()

    def close(self) -> None:
        """Do nothing: the threads have ended with their executors."""


def _local_workers(request: RunRequest) -> ChunkWorkers:
    workers = ThreadWorkers if request.executor == "threads" else ProcessWorkers
    return workers(request.workers)


engine = DriverEngine("local", _local_workers)
"""The instance that the entry point `local` names."""
