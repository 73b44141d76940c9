"""The embedded engine: runs a plan on this machine, resumes it, and never leaves half a product."""

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


class ChunkExecutors(Protocol):
    """Makes executors, and passes on what their workers tell."""

    def executor(self) -> Executor:
        """A new executor; called again after one broke."""

    def run(self, chunk: Chunk) -> ChunkResult:
        """What a worker does with a chunk; can be pickled where workers are processes."""

    def told(self) -> list[TileRecord]:
        """Tiles that were done since this was last asked."""

    def stop(self) -> None:
        """Ask every worker to stop at its next tile."""


@dataclass
class Threads:
    """Workers in this process: for code that lets go of the GIL, and for services."""

    count: int
    _told: list[TileRecord] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def executor(self) -> Executor:
        """A new pool of threads."""
        return ThreadPoolExecutor(self.count, thread_name_prefix="pesto")

    def run(self, chunk: Chunk) -> ChunkResult:
        """Run a chunk in this thread."""
        return process(chunk, watch=TileObserver(self._told.append, self._stopped.is_set))

    def told(self) -> list[TileRecord]:
        """Tiles that were done since this was last asked."""
        records = self._told[:]
        del self._told[: len(records)]
        return records

    def stop(self) -> None:
        """Ask every thread to stop at its next tile."""
        self._stopped.set()


class Processes:
    """Workers in processes of their own: for code that holds the GIL, or crashes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._context = multiprocessing.get_context("spawn")
        self._records: SimpleQueue[TileRecord] = self._context.SimpleQueue()
        self._stopped = self._context.Event()

    def executor(self) -> Executor:
        """A new pool of spawned processes.

        Its queue and event are its own: a worker that was killed may hold a lock of them for ever.
        """
        self._records = self._context.SimpleQueue()
        self._stopped = self._context.Event()
        return ProcessPoolExecutor(
            self._count,
            mp_context=self._context,
            initializer=_begin,
            initargs=(self._records, self._stopped),
        )

    @property
    def run(self) -> _ChunkRunner:
        """What a worker does with a chunk."""
        return _run

    def told(self) -> list[TileRecord]:
        """Tiles that were done since this was last asked."""
        records = []
        while not self._records.empty():
            records.append(self._records.get())
        return records

    def stop(self) -> None:
        """Ask every worker to stop at its next tile."""
        self._stopped.set()


class _ChunkRunner(Protocol):
    def __call__(self, chunk: Chunk) -> ChunkResult: ...


_watch = TileObserver()


def _begin(records: SimpleQueue[TileRecord], stopped: Event) -> None:
    """Set a worker process up: Ctrl-C is the parent's, and its death is the worker's."""
    global _watch  # noqa: PLW0603  # one per worker process, set before its first chunk
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_cache()
    _watch = TileObserver(records.put, stopped.is_set)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(chunk: Chunk) -> ChunkResult:
    return process(chunk, watch=_watch)


_MOST_REBUILDS = 3
_POLL_S = 0.1
_MEMORY_SHARE = 4


class LocalEngine:
    """Runs pipelines on this machine."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run a pipeline; goes on where an earlier run of the same key stopped.

        Returns:
            What `result.json` holds.

        Raises:
            InvalidPipeline: the pipeline does not check; with every error.
            Interrupted: stopped by Ctrl-C; the same call resumes.
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
            planned = plan(pipeline, services, inputs, store=store, sizing=sizing)
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


def sizing_of(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """How a run is cut up on this machine: a quarter of its memory is for tiles."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Sizing(
        workers=workers, max_tasks=max_tasks, tile=tile, memory_bytes=ram // _MEMORY_SHARE
    )


def _forget(plan: Plan, workspace: Workspace) -> None:
    if plan.store != workspace.store:
        forget_run(plan)
    workspace.clear()


class _LocalRun:
    """One run, while it goes."""

    def __init__(self, plan: Plan, request: RunRequest, watcher: ProgressListener) -> None:
        self._plan = plan
        self._request = request
        self._watcher = watcher
        self._href = begin_run(plan)
        self._context = load_context(self._href)
        threads = request.executor == "threads"
        self._workers: ChunkExecutors = (
            Threads(request.workers) if threads else Processes(request.workers)
        )

    def run(self, workspace: Workspace) -> dict[str, JsonValue]:
        """Run every phase, then publish."""
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
        """Run a phase's chunks, rebuilding a pool that breaks."""
        waiting, rebuilds = set(range(count)), 0
        while waiting:
            before = len(waiting)
            try:
                for number in self._fan_out(phase, waiting):
                    waiting.discard(number)
            except BrokenExecutor as error:
                rebuilds = 0 if len(waiting) < before else rebuilds + 1
                if rebuilds > _MOST_REBUILDS:
                    raise RunFailed(
                        f"worker processes died {rebuilds} times without finishing a chunk: the "
                        "algorithm crashes, or memory runs out; run fewer --workers, or smaller "
                        "tiles; the same command resumes the run"
                    ) from error

    def _fan_out(self, phase: int, numbers: set[int]) -> Iterator[int]:
        executor = self._workers.executor()
        try:
            waiting = {
                executor.submit(
                    self._workers.run,
                    Chunk(plan=self._href, phase=phase, start=number, stop=number + 1),
                ): number
                for number in sorted(numbers)
            }
            yield from self._gather(waiting)
        except KeyboardInterrupt as error:
            self._workers.stop()
            raise Interrupted("interrupted; the same command resumes the run") from error
        except PestoError:
            self._workers.stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)
            self._tell()

    def _gather(self, waiting: dict[Future[ChunkResult], int]) -> Iterator[int]:
        while waiting:
            done, _ = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self._tell()
            for future in done:
                future.result()
                yield waiting.pop(future)

    def _tell(self) -> None:
        self._watcher.advance(len(self._workers.told()))


engine = LocalEngine()
