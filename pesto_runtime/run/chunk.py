"""The verb `process`: run the tiles of some chunks and keep their blocks and partials.

Idempotent: only tiles that touch a missing block are computed, and a block is the same bytes
whoever makes it. A tile that fails for good becomes a hole; the rest of its chunk is kept.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from pesto_runtime.client.transport import given_up_when
from pesto_runtime.contract import Chunk, ChunkResult, Hole, Window
from pesto_runtime.errors import (
    AlgorithmFailed,
    BadRequest,
    Interrupted,
    InvalidInput,
    NothingValid,
    TilesFailed,
    TooLarge,
)
from pesto_runtime.pipeline import JsonType, PhaseStages, phase_chain
from pesto_runtime.processor import encode_value
from pesto_runtime.raster.read import raster_settings
from pesto_runtime.run.blocks import ChunkWriter
from pesto_runtime.run.context import (
    RunContext,
    is_blocked,
    load_context,
    manifest_name,
    scalars_name,
)
from pesto_runtime.run.inputs import Sources, picked_bands
from pesto_runtime.run.records import CostMeter, TileObserver, TileRecord
from pesto_runtime.run.tile import StageFailed, TileRunner, in_stage
from pesto_runtime.tiling import Size, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pesto_runtime.run.tile import Made


_Outputs: TypeAlias = "tuple[dict[str, Made], dict[str, object]]"

_ATTEMPTS = 3
_LONGEST_PAUSE_S = 5.0
_LOOK_S = 0.2
_WAITED_FOR = 8


def tiles_at_once(context: RunContext, number: int) -> int:
    """Tiles of a phase that one task does well to run at once.

    One where the worker itself computes. Several where it waits for services, and as many as a
    batched one takes.
    """
    stages = context.phases[number].stages
    services = [context.plan.services[stage.stage.process] for stage in stages]
    if not any(service.is_remote for service in services):
        return 1
    return max(_WAITED_FOR, *(stage.description.max_batch_size for stage in stages))


@dataclass(frozen=True, slots=True)
class TileOutcome:
    """What came of a tile.

    Attributes:
        window: The tile, in the grid of the scenes.
        wanted: Raster -> the window of it that was to be made.
        seconds: That it took.
        made: Raster -> array (band, row, col), vector -> features; or why it failed for good.
    """

    window: Window
    wanted: Mapping[str, Window]
    seconds: float
    made: Mapping[str, Made] | StageFailed


class TileRunners:
    """Runs tiles in one thread, or in several at once: for services, which are waited for."""

    def __init__(self, make_runner: Callable[[], TileRunner], count: int) -> None:
        """Open lanes; each has a runner of its own.

        Args:
            make_runner: Makes what runs a tile.
            count: Tiles at once, 1 or more.
        """
        self.runners = tuple(make_runner() for _ in range(count))
        self._pool = ThreadPoolExecutor(count, "pesto-tile") if count > 1 else None
        self._free: SimpleQueue[TileRunner] = SimpleQueue()
        for runner in self.runners:
            self._free.put(runner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(
        self, tiles: Iterable[tuple[Window, Mapping[str, Window]]], *, look: Callable[[], None]
    ) -> Iterator[TileOutcome]:
        """Run tiles, and yield each when it is done.

        Args:
            tiles: A tile's window and what is wanted of it; taken one at a time.
            look: Called before every tile and while waiting; raises to stop.

        Raises:
            PestoError: what no tile can be blamed for.
        """
        if self._pool is None:
            for window, wanted in tiles:
                look()
                yield self._try(window, wanted)
            return
        waiting: set[Future[TileOutcome]] = set()
        for window, wanted in tiles:
            look()
            waiting.add(self._pool.submit(copy_context().run, self._try, window, wanted))
            while len(waiting) >= len(self.runners):
                yield from _done(waiting, look)
        while waiting:
            yield from _done(waiting, look)

    def _try(self, window: Window, wanted: Mapping[str, Window]) -> TileOutcome:
        runner, begun = self._free.get(), time.perf_counter()
        made: Mapping[str, Made] | StageFailed
        try:
            made, _ = attempted(lambda: runner.run(wanted))
        except StageFailed as failure:
            made = failure
        finally:
            self._free.put(runner)
        return TileOutcome(window, wanted, time.perf_counter() - begun, made)


def attempted(call: Callable[[], _Outputs]) -> _Outputs:
    """Try a tile again while asking again can help; what is already done of its chunk stays.

    Raises:
        StageFailed: it failed for good.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except StageFailed as failure:
            if not failure.error.retryable:
                raise
            time.sleep(min(failure.error.retry_after_s or 0.2 * 2**attempt, _LONGEST_PAUSE_S))
    return call()


def _done(waiting: set[Future[TileOutcome]], look: Callable[[], None]) -> Iterator[TileOutcome]:
    """Take what is done out of what is waited for, at least one or after a moment none."""
    done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
    look()
    for future in done:
        waiting.discard(future)
        yield future.result()


_MOST_TOLD = 3
_A_TILES_OWN_FAULT = (AlgorithmFailed, BadRequest, InvalidInput, NothingValid, TooLarge)
"""Errors that another tile need not have; any other ends the run, which can be resumed."""


@dataclass
class _Chunks:
    """Some chunks of a phase, while they run; belongs to one thread."""

    context: RunContext
    stages: PhaseStages
    bands: Mapping[str, tuple[int, ...]]
    lanes: TileRunners
    watch: TileObserver
    meter: CostMeter = field(default_factory=CostMeter)
    holes: list[Hole] = field(default_factory=list)
    records: list[TileRecord] = field(default_factory=list)
    blocks: int = 0

    def note(self, window: Window, seconds: float, state: str) -> None:
        """Keep and tell what became of a tile."""
        self.records.append(TileRecord(window, seconds, state))
        self.watch.on_tile(self.records[-1])

    def look(self) -> None:
        """See whether to go on.

        Raises:
            Interrupted: the watch said stop.
        """
        if self.watch.should_stop():
            raise Interrupted("stopped between tiles; the same command resumes the run")


def process(
    chunk: Chunk,
    *,
    watch: TileObserver | None = None,
    threads: int = 1,
    holes: Literal["keep", "fail"] = "keep",
) -> ChunkResult:
    """Run chunks `start` to `stop` of a phase; nothing where an earlier phase has holes.

    Args:
        chunk: Which.
        watch: Who looks on.
        threads: Tiles at once: more than one where services are waited for.
        holes: Whether a tile that failed for good is kept as a hole, or fails the chunk once its
            other tiles are done.

    Raises:
        Interrupted: the watch said stop; whole blocks are kept.
        TilesFailed: there are holes, and `holes` is `fail`; asked again, only they are computed.
        PestoError: what no tile can be blamed for: a raster that cannot be read, a service that
            is not there or breaks its contract, a store that cannot be written.
    """
    context = load_context(chunk.plan)
    phase, stages = context.plan.phases[chunk.phase], context.phases[chunk.phase]
    bands = _needed_bands(context, stages)
    windows = () if is_blocked(context, chunk.phase) else phase.chunks[chunk.start : chunk.stop]
    parameters = {stage.id: context.parameters(stage) for stage in stages.stages if windows}
    watch = watch or TileObserver()
    with raster_settings(), given_up_when(watch.should_stop), TileRunners(
        lambda: _runner(context, stages, bands, parameters), threads
    ) as lanes:  # fmt: skip
        run = _Chunks(context, stages, bands, lanes, watch)
        for window in windows:
            _run_chunk(run, window, tile=phase.tile)
    result = _kept(run, manifest_name(context, chunk.phase, chunk.start, chunk.stop))
    if run.holes and holes == "fail":
        raise _failed(run)
    return result


def _runner(
    context: RunContext,
    stages: PhaseStages,
    bands: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Mapping[str, object]],
) -> TileRunner:
    return TileRunner(
        context=context,
        chain=phase_chain(stages, context.types, context.plan.size),
        stages=stages.stages,
        sources=Sources(context, bands),
        parameters=parameters,
        meter=CostMeter(),
    )


def _run_chunk(run: _Chunks, chunk: Window, *, tile: Size) -> None:
    collector = ChunkWriter.of(
        run.context, run.stages, chunk, source_bands=run.bands, meter=run.meter
    )
    if run.stages.kind == "whole":
        _run_whole(run, collector, chunk)
    else:
        for tried in run.lanes.run(_to_do(run, collector, tiles_of(chunk, tile)), look=run.look):
            begun = time.perf_counter()
            state = _taken(run, collector, tried)
            run.note(tried.window, tried.seconds + time.perf_counter() - begun, state)
    run.blocks += collector.blocks


def _to_do(
    run: _Chunks, collector: ChunkWriter, windows: Iterable[Window]
) -> Iterator[tuple[Window, Mapping[str, Window]]]:
    """The tiles that touch a missing block, and what is wanted of them."""
    for window in windows:
        wanted = collector.wanted(window)
        if wanted:
            yield window, wanted
        else:
            run.note(window, 0.0, "reused")


def _taken(run: _Chunks, collector: ChunkWriter, tried: TileOutcome) -> str:
    if isinstance(tried.made, StageFailed):
        _note_hole(run, tried.made, tried.window)
        collector.spoil(tried.wanted)
        return "hole"
    try:
        collector.add(tried.wanted, tried.made)
    except StageFailed as failure:  # of a reduce: the pixels themselves are right
        _note_hole(run, failure, tried.window)
    return "done"


def _run_whole(run: _Chunks, collector: ChunkWriter, window: Window) -> None:
    run.look()
    begun = time.perf_counter()
    if collector.is_complete and _has_scalars(run):
        run.note(window, 0.0, "reused")
        return
    try:
        arrays, values = attempted(run.lanes.runners[0].run_whole)
    except StageFailed as failure:
        raise in_stage(failure.error, failure.stage, window) from failure
    collector.add(collector.wanted(window), arrays)
    outputs = {name.rpartition(".")[2]: encode_value(name, v) for name, v in values.items()}
    if outputs:
        name = scalars_name(run.context, run.stages.stages[0].id)
        run.context.store.put_json(name, dict(outputs))
    run.note(window, time.perf_counter() - begun, "done")


def _kept(run: _Chunks, manifest: str) -> ChunkResult:
    """Write the manifest, and say where it is and what it counts."""
    runners = run.lanes.runners
    for runner in runners:
        run.meter.add(runner.meter)
    states = [record.state for record in run.records]
    result = ChunkResult(
        manifest=run.context.store.href(manifest),
        tiles=states.count("done"),
        reused=states.count("reused"),
        holes=len(run.holes),
        blocks=run.blocks,
        bytes_read=sum(runner.sources.bytes_read for runner in runners),
    )
    run.context.store.put_json(manifest, _manifest(run, result))
    return result


def _failed(run: _Chunks) -> TilesFailed:
    """The error that tells of holes: how many, and the first of them."""
    told = [str(hole.error["detail"]) for hole in run.holes[:_MOST_TOLD]]
    more = len(run.holes) - len(told)
    lines = [*told, f"and {more} more"] if more else told
    return TilesFailed(
        f"{len(run.holes)} of {len(run.records)} tiles failed; the others are kept, and asked "
        "again only these are computed:" + "".join(f"\n  {line}" for line in lines)
    )


def _note_hole(run: _Chunks, failure: StageFailed, window: Window) -> None:
    """Keep a tile's failure as a hole.

    Raises:
        PestoError: the failure is not the tile's own; the run cannot go on.
    """
    if not isinstance(failure.error, _A_TILES_OWN_FAULT):
        raise in_stage(failure.error, failure.stage, window) from failure
    problem = in_stage(failure.error, failure.stage, window).to_problem()
    run.holes.append(Hole(window=window, stage=failure.stage, error=problem))


def _has_scalars(run: _Chunks) -> bool:
    """Whether the JSON outputs of a whole stage are there, or it has none."""
    stage = run.stages.stages[0]
    has_any = any(isinstance(made, JsonType) for made in stage.makes.values())
    return not has_any or scalars_name(run.context, stage.id) in run.context.store.names("scalars")


def _needed_bands(context: RunContext, stages: PhaseStages) -> dict[str, tuple[int, ...]]:
    """Source -> the bands that its readers pick; absent where any takes them all."""
    picked: dict[str, list[tuple[int, ...] | None]] = {}
    for stage in (*stages.stages, *stages.reduces):
        for port, reference in stage.rasters.items():
            contract = stage.description.input(port)
            names = contract.raster.band_names if contract and contract.raster else None
            bands = picked_bands(context, str(reference), names)
            picked.setdefault(str(reference), []).append(bands)
    return {
        name: tuple(sorted({number for bands in found if bands for number in bands}))
        for name, found in picked.items()
        if name in stages.sources and None not in found
    }


def _manifest(run: _Chunks, result: ChunkResult) -> dict[str, object]:
    return {
        "tiles": [
            [*record.window, round(record.seconds, 4), record.state] for record in run.records
        ],
        "holes": [hole.model_dump(mode="json") for hole in run.holes],
        "bytes_read": result.bytes_read,
        **run.meter.manifest(),
    }
