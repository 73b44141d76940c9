"""The embedded engine: runs a plan on this machine, resumes it, and never leaves half a product."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pesto_runtime.activities import (
    Inputs,
    Planned,
    RunRecord,
    Services,
    call,
    count_tiles,
    finished_result,
    load_context,
    materialise,
    plan,
    publish,
    reduce,
    save_plan,
    tile_records,
)
from pesto_runtime.contract import Chunk, ChunkResult
from pesto_runtime.errors import Interrupted, PestoError, RunFailed
from pesto_runtime.local.executors import Processes, Threads, Workers
from pesto_runtime.local.workspace import Workspace, locked_workspace
from pesto_runtime.pipeline import Sizing
from pesto_runtime.report import ReportData, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.activities import TileRecord
    from pesto_runtime.contract import Pipeline

_MOST_REBUILDS = 3
_POLL_S = 0.1
_MEMORY_SHARE = 4


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        workers: Chunks at once.
        executor: `threads` or `processes`.
        tile: Side of a tile, pixels; None to size it by memory.
        max_tasks: Most chunks of a phase.
        store: Base href of the run store; None for the output folder's own.
        keep: Whether to keep the run store of a complete run.
        fresh: Whether to forget what earlier runs left.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
    """

    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    executor: Literal["threads", "processes"] = "threads"
    tile: int | None = None
    max_tasks: int = 64
    store: str | None = None
    keep: bool = False
    fresh: bool = False
    as_cog: bool = False

    @property
    def sizing(self) -> Sizing:
        """How the run is cut up on this machine: a quarter of its memory is for tiles."""
        ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Sizing(
            workers=self.workers,
            max_tasks=self.max_tasks,
            tile=self.tile,
            memory_bytes=ram // _MEMORY_SHARE,
        )


@dataclass(frozen=True)
class Observer:
    """Who looks on while a run goes.

    Attributes:
        on_plan: Told of the plan and its number of tiles before the first.
        on_tile: Told of every tile when it is done.
    """

    on_plan: Callable[[Planned, int], None] = lambda _planned, _tiles: None
    on_tile: Callable[[TileRecord], None] = lambda _record: None


def run(
    pipeline: Pipeline,
    services: Services,
    inputs: Inputs,
    folder: Path,
    *,
    options: Options | None = None,
    observer: Observer | None = None,
) -> dict[str, JsonValue]:
    """Run a pipeline; goes on where an earlier run of the same key stopped.

    Args:
        pipeline: What to run.
        services: What runs its processes.
        inputs: Scenes and values.
        folder: Where the outputs, `result.json` and `report.html` go.
        options: How to run.
        observer: Who looks on.

    Returns:
        What `result.json` holds.

    Raises:
        InvalidPipeline: the pipeline does not check; with every error.
        Interrupted: stopped by Ctrl-C; the same call resumes.
        PestoError: the run failed; nothing is published.
    """
    options, observer = options or Options(), observer or Observer()
    with locked_workspace(folder) as workspace:
        store = options.store or workspace.store
        planned = plan(pipeline, services, inputs, store=store, sizing=options.sizing)
        if options.fresh:
            workspace.clear()
        elif (finished := finished_result(folder, planned.plan.run)) is not None:
            return finished
        result = _Run(planned, options, observer).run(folder, workspace)
        if result["status"] == "COMPLETE" and not options.keep:
            workspace.clear()
    return result


class _Run:
    """One run, while it goes."""

    def __init__(self, planned: Planned, options: Options, observer: Observer) -> None:
        self._planned = planned
        self._observer = observer
        self._href = save_plan(planned.plan)
        self._context = load_context(self._href)
        self._as_cog = options.as_cog
        threads = options.executor == "threads"
        self._workers: Workers = Threads(options.workers) if threads else Processes(options.workers)
        self._tainted: set[str] = set()
        self._record = RunRecord(
            engine={
                "name": "local",
                "run": uuid.uuid4().hex[:12],
                "executor": options.executor,
                "workers": options.workers,
            },
            warnings=tuple(str(warning) for warning in planned.warnings),
        )

    def run(self, folder: Path, workspace: Workspace) -> dict[str, JsonValue]:
        """Run every phase, then publish."""
        phases = self._planned.plan.phases
        self._observer.on_plan(self._planned, sum(count_tiles(phase) for phase in phases))
        self._context.forget_manifests()
        for number in range(len(phases)):
            begun = time.perf_counter()
            self._run_phase(number)
            self._record.phase_seconds.append(time.perf_counter() - begun)
        result = publish(
            self._href, folder, workspace=workspace.path, record=self._record, as_cog=self._as_cog
        )
        self._write_report(folder, result)
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
        for record in self._workers.told():
            self._observer.on_tile(record)

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
                size=next(((s.width, s.height) for s in plan.scenes.values()), (0, 0)),
                scenes={name: scene.href for name, scene in plan.scenes.items()},
                folder=folder,
            ),
        )
