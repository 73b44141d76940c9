"""The verb `process`: run the tiles of some chunks and keep their blocks and partials.

Idempotent: only tiles that touch a missing block are computed, and a block is the same bytes
whoever makes it. A tile that fails for good becomes a hole; the rest of its chunk is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.activities.collect import Collector
from pesto_runtime.activities.context import (
    RunContext,
    load_context,
    manifest_name,
    scalars_name,
)
from pesto_runtime.activities.meter import Meter
from pesto_runtime.activities.pixels import Sources, picked_bands
from pesto_runtime.activities.tile import Made, StageFailed, TileRunner, in_stage
from pesto_runtime.contract import Chunk, ChunkResult, Hole, Window
from pesto_runtime.errors import (
    AlgorithmFailed,
    BadRequest,
    Interrupted,
    InvalidInput,
    NothingValid,
    TooLarge,
)
from pesto_runtime.pipeline import JsonType, PhaseStages, phase_chain
from pesto_runtime.processor import encode_value
from pesto_runtime.raster import raster_settings
from pesto_runtime.tiling import Size, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

_ATTEMPTS = 3
_LONGEST_PAUSE_S = 5.0
_Made: TypeAlias = "tuple[dict[str, Made], dict[str, object]]"
_A_TILES_OWN_FAULT = (AlgorithmFailed, BadRequest, InvalidInput, NothingValid, TooLarge)
"""Errors that another tile need not have; any other ends the run, which can be resumed."""


@dataclass(frozen=True, slots=True)
class TileRecord:
    """What became of a tile.

    Attributes:
        window: In the grid of the scenes, pixels.
        seconds: That it took; 0 for one that was reused.
        state: `done`, `reused` (all its blocks were there) or `hole`.
    """

    window: Window
    seconds: float
    state: str


@dataclass(frozen=True)
class Watch:
    """Who looks on while a chunk runs.

    Attributes:
        on_tile: Told of every tile when it is done.
        should_stop: Asked before every tile; True ends the chunk, what is whole being kept.
    """

    on_tile: Callable[[TileRecord], None] = lambda _record: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class _Chunks:
    """Some chunks of a phase, while they run; belongs to one thread."""

    context: RunContext
    stages: PhaseStages
    runner: TileRunner
    watch: Watch
    holes: list[Hole] = field(default_factory=list)
    records: list[TileRecord] = field(default_factory=list)
    blocks: int = 0


def process(chunk: Chunk, *, watch: Watch | None = None) -> ChunkResult:
    """Run chunks `start` to `stop` of a phase.

    Raises:
        Interrupted: the watch said stop; whole blocks are kept.
        PestoError: what no tile can be blamed for: a raster that cannot be read, a service that
            is not there or breaks its contract, a store that cannot be written.
    """
    context = load_context(chunk.plan)
    phase, stages = context.plan.phases[chunk.phase], context.phases[chunk.phase]
    sources = Sources(context, _needed_bands(context, stages))
    with raster_settings():
        runner = _runner(context, stages, sources)
        run = _Chunks(context, stages, runner, watch or Watch())
        for window in phase.chunks[chunk.start : chunk.stop]:
            _run_chunk(run, window, tile=phase.tile)
    manifest = manifest_name(context, chunk.phase, chunk.start, chunk.stop)
    context.store.put_json(manifest, _manifest(run))
    states = [record.state for record in run.records]
    return ChunkResult(
        manifest=context.store.href(manifest),
        tiles=states.count("done"),
        reused=states.count("reused"),
        holes=len(run.holes),
        blocks=run.blocks,
        bytes_read=sources.bytes_read,
    )


def _runner(context: RunContext, stages: PhaseStages, sources: Sources) -> TileRunner:
    return TileRunner(
        context=context,
        chain=phase_chain(stages, context.types, context.plan.size),
        stages=stages.stages,
        sources=sources,
        parameters={stage.id: context.parameters(stage) for stage in stages.stages},
        meter=Meter(),
    )


def _run_chunk(run: _Chunks, chunk: Window, *, tile: Size) -> None:
    bands = run.runner.sources.bands
    collector = Collector.of(
        run.context, run.stages, chunk, source_bands=bands, meter=run.runner.meter
    )
    run_tile = _run_whole if run.stages.kind == "whole" else _run_tile
    for window in tiles_of(chunk, tile):
        if run.watch.should_stop():
            raise Interrupted("stopped between tiles; the same command resumes the run")
        begun = time.perf_counter()
        state = run_tile(run, collector, window)
        seconds = 0.0 if state == "reused" else time.perf_counter() - begun
        run.records.append(TileRecord(window, seconds, state))
        run.watch.on_tile(run.records[-1])
    run.blocks += collector.blocks


def _run_tile(run: _Chunks, collector: Collector, window: Window) -> str:
    wanted = collector.wanted(window)
    if not wanted:
        return "reused"
    try:
        arrays, _ = _attempted(lambda: run.runner.run(wanted))
    except StageFailed as failure:
        _note_hole(run, failure, window)
        collector.spoil(wanted)
        return "hole"
    try:
        collector.add(wanted, arrays)
    except StageFailed as failure:  # of a reduce: the pixels themselves are right
        _note_hole(run, failure, window)
    return "done"


def _run_whole(run: _Chunks, collector: Collector, window: Window) -> str:
    if collector.is_complete and _has_scalars(run):
        return "reused"
    try:
        arrays, values = _attempted(run.runner.run_whole)
    except StageFailed as failure:
        raise in_stage(failure.error, failure.stage, window) from failure
    collector.add(collector.wanted(window), arrays)
    outputs = {name.rpartition(".")[2]: encode_value(name, v) for name, v in values.items()}
    if outputs:
        name = scalars_name(run.context, run.stages.stages[0].id)
        run.context.store.put_json(name, dict(outputs))
    return "done"


def _attempted(call: Callable[[], _Made]) -> _Made:
    """Try a tile again while asking again can help; what is already done of its chunk stays."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except StageFailed as failure:
            if not failure.error.retryable:
                raise
            time.sleep(min(failure.error.retry_after_s or 0.2 * 2**attempt, _LONGEST_PAUSE_S))
    return call()


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


def _manifest(run: _Chunks) -> dict[str, object]:
    return {
        "tiles": [
            [*record.window, round(record.seconds, 4), record.state] for record in run.records
        ],
        "holes": [hole.model_dump(mode="json") for hole in run.holes],
        **run.runner.meter.manifest(),
    }


def manifests_of(context: RunContext) -> Iterator[dict[str, JsonValue]]:
    """Every manifest that the chunks of a run left."""
    for name in sorted(context.store.names(f"manifests/{context.plan.run}")):
        document = context.store.get_json(name)
        if isinstance(document, dict):
            yield dict(document)


def tile_records(context: RunContext) -> Iterator[TileRecord]:
    """What became of every tile of a run, phase after phase."""
    for manifest in manifests_of(context):
        tiles = manifest.get("tiles")
        for tile in tiles if isinstance(tiles, list) else []:
            if isinstance(tile, list):
                *window, seconds, state = tile
                numbers = [int(str(number)) for number in window]
                yield TileRecord(Window(*numbers), float(str(seconds)), str(state))
