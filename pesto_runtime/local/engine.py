"""The embedded engine: runs a plan on this machine, resumes it, and never leaves half a product."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TYPE_CHECKING

from pesto_runtime.activities import (
    Planned,
    RunRecord,
    call,
    close_callers,
    count_tiles,
    finished_result,
    forget_run,
    load_context,
    materialise,
    plan,
    publish,
    read_inputs,
    reduce,
    resolve_services,
    save_plan,
    tile_records,
)
from pesto_runtime.contract import Chunk, ChunkResult
from pesto_runtime.errors import Interrupted, PestoError, RunFailed, StoreFailed
from pesto_runtime.local.executors import Processes, Threads, Workers
from pesto_runtime.local.workspace import Workspace, locked_workspace
from pesto_runtime.pipeline import Sizing
from pesto_runtime.report import ReportData, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.engines import RunRequest, Watcher

_MOST_REBUILDS = 3
_POLL_S = 0.1
_MEMORY_SHARE = 4


class LocalEngine:
    """Runs pipelines on this machine."""

    def run(self, request: RunRequest, *, watcher: Watcher) -> dict[str, JsonValue]:
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
            store = request.store or workspace.store
            planned = plan(pipeline, services, inputs, store=store, sizing=sizing)
            for warning in (*services.changed, *planned.warnings):
                watcher.warn(str(warning))
            if request.fresh:
                _forget(planned, workspace)
            elif finished := finished_result(folder, planned.plan.run, as_cog=request.as_cog):
                watcher.warn("already complete: nothing was computed; --fresh computes it again")
                return finished
            try:
                result = _Run(planned, request, watcher).run(workspace)
            finally:
                close_callers()
            if result["status"] == "COMPLETE" and not request.keep:
                _forget(planned, workspace)
        return result


def sizing_of(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """How a run is cut up on this machine: a quarter of its memory is for tiles."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Sizing(
        workers=workers, max_tasks=max_tasks, tile=tile, memory_bytes=ram // _MEMORY_SHARE
    )


def _forget(planned: Planned, workspace: Workspace) -> None:
    if planned.plan.store != workspace.store:
        forget_run(planned.plan)
    workspace.clear()


class _Run:
    """One run, while it goes."""

    def __init__(self, planned: Planned, request: RunRequest, watcher: Watcher) -> None:
        self._planned = planned
        self._request = request
        self._watcher = watcher
        self._href = save_plan(planned.plan)
        self._context = load_context(self._href)
        threads = request.executor == "threads"
        self._workers: Workers = Threads(request.workers) if threads else Processes(request.workers)
        self._tainted: set[str] = set()
        self._record = RunRecord(
            engine={
                "name": "local",
                "run": uuid.uuid4().hex[:12],
                "executor": request.executor,
                "workers": request.workers,
            },
            warnings=tuple(str(warning) for warning in planned.warnings),
        )

    def run(self, workspace: Workspace) -> dict[str, JsonValue]:
        """Run every phase, then publish."""
        phases = self._planned.plan.phases
        self._watcher.begin(sum(count_tiles(phase) for phase in phases))
        self._context.forget_manifests()
        for number in range(len(phases)):
            begun = time.perf_counter()
            self._run_phase(number)
            self._record.phase_seconds.append(time.perf_counter() - begun)
        result = publish(
            self._href,
            workspace.folder,
            workspace=workspace.path,
            record=self._record,
            as_cog=self._request.as_cog,
        )
        try:
            self._write_report(workspace.folder, result)
        except StoreFailed as error:  # the outputs are all there
            self._watcher.warn(str(error))
        return result

    def _run_phase(self, number: int) -> None:
        phase, stages = self._planned.plan.phases[number], self._context.phases[number]
        members = (*stages.stages, *stages.reduces)
        needed = {reference.owner for stage in members for reference in stage.values.values()}
        if self._tainted & set(phase.sources) or self._record.unmade & needed:
            self._record.unmade.update(stage.id for stage in members)
            self._tainted.update(phase.writes)
            return
        if phase.kind == "call":
            call(self._href, phase.stages[0])
            return
        if self._run_chunks(number, len(phase.chunks)):
            self._tainted.update(phase.writes)
        for name in self._read_later(number) - self._tainted:
            materialise(self._href, name)
        for stage in stages.reduces:
            if not reduce(self._href, stage.id):
                self._record.unmade.add(stage.id)

    def _read_later(self, number: int) -> set[str]:
        later = self._planned.plan.phases[number + 1 :]
        return set(self._planned.plan.phases[number].writes) & {
            name for phase in later for name in phase.sources
        }

    def _run_chunks(self, phase: int, count: int) -> int:
        """Run a phase's chunks, rebuilding a pool that breaks; answers the number of holes."""
        holes, waiting, rebuilds = 0, set(range(count)), 0
        while waiting:
            before = len(waiting)
            try:
                for number, result in self._fan_out(phase, waiting):
                    waiting.discard(number)
                    holes += result.holes
                    self._count(result)
            except BrokenExecutor as error:
                rebuilds = 0 if len(waiting) < before else rebuilds + 1
                if rebuilds > _MOST_REBUILDS:
                    raise RunFailed(
                        f"worker processes died {rebuilds} times without finishing a chunk: the "
                        "algorithm crashes, or memory runs out; run fewer --workers, or smaller "
                        "tiles; the same command resumes the run"
                    ) from error
        return holes

    def _fan_out(self, phase: int, numbers: set[int]) -> Iterator[tuple[int, ChunkResult]]:
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

    def _gather(self, waiting: dict[Future[ChunkResult], int]) -> Iterator[tuple[int, ChunkResult]]:
        while waiting:
            done, _ = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self._tell()
            for future in done:
                yield waiting.pop(future), future.result()

    def _tell(self) -> None:
        self._watcher.advance(len(self._workers.told()))

    def _count(self, result: ChunkResult) -> None:
        self._record.chunks += 1
        self._record.tiles += result.tiles
        self._record.reused += result.reused
        self._record.bytes_read += result.bytes_read

    def _write_report(self, folder: Path, result: dict[str, JsonValue]) -> None:
        plan = self._planned.plan
        write_report(
            folder / "report.html",
            ReportData(
                result=result,
                pipeline=plan.pipeline,
                tiles=tuple(tile_records(self._context)),
                size=plan.size,
                scenes={name: scene.href for name, scene in plan.scenes.items()},
                folder=folder,
            ),
        )
