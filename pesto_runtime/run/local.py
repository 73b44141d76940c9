"""Run pipelines on this machine, in threads or in spawned worker processes: the local engine.

It runs the chunks of one phase after another and resumes earlier runs. It does no computations of
its own: the activities do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import uuid
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.contract import Chunk
from pesto_runtime.errors import Interrupted, PestoError, RunFailed
from pesto_runtime.pipeline import Sizing
from pesto_runtime.raster.read import limit_cache
from pesto_runtime.run.callers import close_callers
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import close_phase
from pesto_runtime.run.context import begin_run, forget_run, is_blocked, load_context
from pesto_runtime.run.planning import count_tiles, plan, read_inputs
from pesto_runtime.run.publishing import RunRecord, finished_result
from pesto_runtime.run.records import TileObserver, TileRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import end_run, locked_workspace, run_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

    from pydantic import JsonValue

    from pesto_runtime.contract import ChunkResult, Plan
    from pesto_runtime.engines import ProgressListener, RunRequest
    from pesto_runtime.run.workspace import Workspace


_MOST_REBUILDS = 3
_POLL_S = 0.1
_MEMORY_SHARE = 4


class LocalEngine:
    """Runs pipelines on this machine."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run a pipeline, or resume an earlier run of the same key.

        Returns:
            The content of `result.json`.

        Raises:
            InvalidPipeline: the pipeline does not check; with every error.
            Interrupted: stopped by Ctrl-C; the same call resumes the run.
            PestoError: the run failed; nothing is published.
        """
        pipeline, folder = request.pipeline, request.folder
        services = resolve_services(
            pipeline, base=request.base, options=request.services, catalog=request.catalog
        )
        inputs = read_inputs(pipeline, request.inputs)
        sizing = sizing_of(workers=request.workers, tile=request.tile, max_tasks=request.max_tasks)
        with locked_workspace(folder) as workspace:
            store = run_store(folder, request.store)
            planned = plan(
                pipeline, services, inputs, store=store, sizing=sizing,
                patience_s=request.patience_s,
            )  # fmt: skip
            for warning in planned.plan.warnings:
                watcher.warn(warning)
            if request.fresh:
                _forget(planned.plan, workspace)
            elif finished := finished_result(folder, planned.plan.run, as_cog=request.as_cog):
                watcher.warn("already complete: nothing was computed; --fresh computes it again")
                return finished
            try:
                result = _LocalRun(planned.plan, request, watcher).run(workspace)
            finally:
                close_callers()
            if result["status"] == "COMPLETE" and not request.keep:
                _forget(planned.plan, workspace)
        return result


engine = LocalEngine()
"""The instance that the entry point `local` names."""


def sizing_of(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """Return the limits for a run on this machine: a quarter of its memory is for tiles."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Sizing(
        workers=workers, max_tasks=max_tasks, tile=tile, memory_bytes=ram // _MEMORY_SHARE
    )


def _forget(plan: Plan, workspace: Workspace) -> None:
    if plan.store != workspace.store:
        forget_run(plan)
    workspace.clear()


class _LocalRun:
    """One run while it runs."""

    def __init__(self, plan: Plan, request: RunRequest, watcher: ProgressListener) -> None:
        self._plan = plan
        self._request = request
        self._watcher = watcher
        self._href = begin_run(plan)
        self._context = load_context(self._href)
        threads = request.executor == "threads"
        self._workers: ChunkWorkers = (
            ThreadWorkers(request.workers) if threads else ProcessWorkers(request.workers)
        )

    def run(self, workspace: Workspace) -> dict[str, JsonValue]:
        """Run every phase, then publish the run."""
        phases, request = self._plan.phases, self._request
        seconds: list[float] = []
        record = RunRecord(
            engine={
                "name": "local",
                "run": uuid.uuid4().hex[:12],
                "executor": request.executor,
                "workers": request.workers,
            },
            phase_seconds=seconds,
        )
        self._watcher.begin(sum(count_tiles(phase) for phase in phases))
        for number in range(len(phases)):
            begun = time.perf_counter()
            if not is_blocked(self._context, number):
                self._run_chunks(number, len(phases[number].chunks))
                close_phase(self._href, number)
            seconds.append(time.perf_counter() - begun)
        return end_run(self._href, workspace, record, as_cog=request.as_cog, watcher=self._watcher)

    def _run_chunks(self, phase: int, count: int) -> None:
        """Run the chunks of a phase; replaces a broken executor up to 3 times in a row."""
        waiting, rebuilds = set(range(count)), 0
        while waiting:
            before = len(waiting)
            try:
                for number in self._fan_out(phase, waiting):
                    waiting.discard(number)
            except BrokenExecutor as error:
                # One dead worker process breaks the whole executor, and all chunks in it fail. An
                # attempt that finished a chunk makes progress, and does not count.
                rebuilds = 0 if len(waiting) < before else rebuilds + 1
                if rebuilds > _MOST_REBUILDS:
                    raise RunFailed(
                        f"worker processes died {rebuilds} times without finishing a chunk: the "
                        "algorithm crashes, or memory runs out; run fewer --workers, or smaller "
                        "tiles; the same command resumes the run"
                    ) from error

    def _fan_out(self, phase: int, numbers: set[int]) -> Iterator[int]:
        """Run chunks on a new executor, and yield the number of each finished chunk."""
        executor = self._workers.executor()
        try:
            waiting = {
                executor.submit(
                    self._workers.run,
                    Chunk(plan=self._href, phase=phase, start=number, stop=number + 1),
                ): number
                for number in sorted(numbers)
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
            for future in done:
                future.result()
                yield waiting.pop(future)

    def _report_progress(self) -> None:
        self._watcher.advance(len(self._workers.new_records()))


class ChunkWorkers(Protocol):
    """Workers of one kind: creates their executors, and collects their tile records."""

    def executor(self) -> Executor:
        """Create an executor; called again after one broke."""

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in a worker; picklable if workers are processes."""

    def new_records(self) -> list[TileRecord]:
        """Return the records of tiles that ended since the previous call."""

    def stop(self) -> None:
        """Stop every worker before its next tile."""


@dataclass
class ThreadWorkers:
    """Threads of this process: for code that releases the GIL, and for services."""

    count: int
    _records: list[TileRecord] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def executor(self) -> Executor:
        """Create a pool of threads."""
        return ThreadPoolExecutor(self.count, thread_name_prefix="pesto")

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in the calling thread."""
        return process(chunk, watch=TileObserver(self._records.append, self._stopped.is_set))

    def new_records(self) -> list[TileRecord]:
        """Return the records of tiles that ended since the previous call."""
        # Workers append meanwhile: delete exactly the records that were copied.
        records = self._records[:]
        del self._records[: len(records)]
        return records

    def stop(self) -> None:
        """Stop every thread before its next tile."""
        self._stopped.set()


class ProcessWorkers:
    """Spawned processes: for code that does not release the GIL, or that crashes."""

    def __init__(self, count: int) -> None:
        self._count = count
        # Not fork: the parent has threads, and a lock that one of them has taken would stay locked
        # in the child.
        self._context = multiprocessing.get_context("spawn")
        self._records: SimpleQueue[TileRecord] = self._context.SimpleQueue()
        self._stopped = self._context.Event()

    def executor(self) -> Executor:
        """Create a pool of spawned processes, with a queue and an event of its own."""
        # A worker that was killed may have taken a lock of the old queue or event, and nothing
        # releases it any more.
        self._records = self._context.SimpleQueue()
        self._stopped = self._context.Event()
        return ProcessPoolExecutor(
            self._count,
            mp_context=self._context,
            initializer=_set_up_process,
            initargs=(self._records, self._stopped),
        )

    @property
    def run(self) -> _ChunkRunner:
        """The function that runs a chunk in a worker process."""
        return _run_in_process

    def new_records(self) -> list[TileRecord]:
        """Return the records of tiles that ended since the previous call."""
        records = []
        while not self._records.empty():
            records.append(self._records.get())
        return records

    def stop(self) -> None:
        """Stop every process before its next tile."""
        self._stopped.set()


class _ChunkRunner(Protocol):
    def __call__(self, chunk: Chunk) -> ChunkResult: ...


_watch = TileObserver()


def _set_up_process(records: SimpleQueue[TileRecord], stopped: Event) -> None:
    """Set up a worker process: it ignores Ctrl-C, and ends when its parent dies."""
    global _watch  # noqa: PLW0603  # one per worker process, set before its first chunk
    # A terminal sends Ctrl-C to all processes of the group; the parent stops the workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_cache()
    _watch = TileObserver(records.put, stopped.is_set)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_process(chunk: Chunk) -> ChunkResult:
    return process(chunk, watch=_watch)
