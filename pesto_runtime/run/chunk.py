"""Run the activity `process`: compute the tiles of chunks, and store their blocks and partials.

The activity is idempotent: only tiles that touch a missing block are computed, and the bytes of a
block do not depend on the attempt. A tile that fails finally becomes a hole; the other tiles of its
chunk are stored.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from pesto_runtime.client.transport import cancelled_when
from pesto_runtime.contract import BLOCK, Chunk, ChunkResult, Hole, Scale, Window
from pesto_runtime.errors import (
    AlgorithmFailed,
    Interrupted,
    NothingValid,
    TilesFailed,
    TooLarge,
)
from pesto_runtime.pipeline import JsonType, PhaseStages, phase_chain
from pesto_runtime.processor import encode_value
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import is_local, require_unchanged
from pesto_runtime.run.blocks import ChunkWriter
from pesto_runtime.run.builds import require_planned
from pesto_runtime.run.chunk_cache import ChunkCache, chunk_cache
from pesto_runtime.run.context import (
    RunContext,
    is_blocked,
    load_context,
    manifest_name,
    scalars_name,
)
from pesto_runtime.run.guard import ChunkGuard
from pesto_runtime.run.inputs import Sources, picked_bands, scene_of
from pesto_runtime.run.mosaics import require_mosaics
from pesto_runtime.run.ownership import OwnerBeat
from pesto_runtime.run.records import CostMeter, TileObserver, TileRecord
from pesto_runtime.run.sampling import ChunkSamples, sampled_rasters
from pesto_runtime.run.stage import StageFailed
from pesto_runtime.run.tile import TilePool, TileRunner, attempted, in_stage
from pesto_runtime.tiling import Size, covering_window, tiles_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pesto_runtime.contract import Scene
    from pesto_runtime.run.sampling import SampledRaster
    from pesto_runtime.run.tile import TileOutcome


_TILES_OF_SERVICES = 8
_MOST_LISTED = 3
_A_TILES_OWN_FAULT = (AlgorithmFailed, NothingValid, TooLarge)
"""Errors that other tiles need not have; any other error ends the run, which can be resumed.

A wrong input is not among them: its value and its form are the same for every tile.
"""


def tiles_at_once(context: RunContext, number: int) -> int:
    """Return the number of tiles of a phase that one task should run at once.

    1 if the worker itself computes. At least 8 if it waits for services, and the batch size of a
    process whose batches are larger.
    """
    stages = context.phases[number].stages
    services = [context.plan.services[stage.stage.process] for stage in stages]
    if not any(service.is_remote for service in services):
        return 1
    return max(_TILES_OF_SERVICES, *(stage.description.max_batch_size for stage in stages))


def process(
    chunk: Chunk,
    *,
    watch: TileObserver | None = None,
    threads: int = 1,
    holes: Literal["keep", "fail"] = "keep",
) -> ChunkResult:
    """Run chunks `start` to `stop` of a phase; none if the phase is blocked by earlier holes.

    Args:
        chunk: Plan, phase and chunks.
        watch: Receives the state of each tile, and can stop the activity.
        threads: Number of tiles at once; more than one if they wait for services.
        holes: `keep` records a tile that failed finally as a hole; `fail` raises an error once the
            other tiles of the chunks are stored.

    Raises:
        Interrupted: `watch` stopped it; complete blocks are stored.
        FolderInUse: another run has taken the output folder over.
        TilesFailed: there are holes, and `holes` is `fail`; a retry computes only these tiles.
        SceneChanged: a scene is not the one that was planned; what its chunk stored is deleted.
        PestoError: an error that is not of a single tile: a raster that cannot be read, a service
            that is down or breaks its contract, a store that cannot be written.
    """
    context = load_context(chunk.plan)
    beat = OwnerBeat(context.plan)
    beat.keep()
    phase, stages = context.plan.phases[chunk.phase], context.phases[chunk.phase]
    bands = needed_bands(context, stages)
    windows = () if is_blocked(context, chunk.phase) else phase.chunks[chunk.start : chunk.stop]
    # Only with chunks to run: the values that a blocked phase waits for do not exist.
    parameters = {stage.id: context.parameters(stage) for stage in stages.stages if windows}
    require_mosaics(context, stages.sources if windows else ())
    watch = watch or TileObserver()
    with raster_settings(), cancelled_when(watch.should_stop), TilePool(
        lambda: _runner(context, stages, bands, parameters), threads
    ) as pool:  # fmt: skip
        sampled = sampled_rasters(context, chunk.phase, bands)
        run = _Chunks(context, stages, bands, pool, watch, beat, sampled)
        for window in windows:
            _run_chunk(run, window, tile=phase.tile)
    result = _save_manifest(run, manifest_name(context, chunk.phase, chunk.start, chunk.stop))
    if run.holes and holes == "fail":
        raise _tiles_failed(run)
    return result


@dataclass
class _Chunks:
    """Some chunks of a phase while they run; belongs to one thread."""

    context: RunContext
    stages: PhaseStages
    bands: Mapping[str, tuple[int, ...]]
    pool: TilePool
    watch: TileObserver
    beat: OwnerBeat
    sampled: Mapping[str, SampledRaster]
    meter: CostMeter = field(default_factory=CostMeter)
    holes: list[Hole] = field(default_factory=list)
    records: list[TileRecord] = field(default_factory=list)
    blocks: int = 0

    def record(self, window: Window, seconds: float, state: str) -> None:
        """Record the state of a tile, and report it to the observer."""
        self.beat.keep()
        self.records.append(TileRecord(window, seconds, state))
        self.watch.on_tile(self.records[-1])

    def check_stop(self) -> None:
        """Stop if the observer requests it.

        Raises:
            Interrupted: it does.
        """
        if self.watch.should_stop():
            raise Interrupted("stopped between tiles; the same command resumes the run")


def _runner(
    context: RunContext,
    stages: PhaseStages,
    bands: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Mapping[str, object]],
) -> TileRunner:
    return TileRunner(
        context=context,
        chain=phase_chain(stages, context.types, context.sizes),
        stages=stages.stages,
        sources=Sources(context, bands),
        parameters=parameters,
        meter=CostMeter(),
    )


def _run_chunk(run: _Chunks, chunk: Window, *, tile: Size) -> None:
    scenes = [scene for each in run.stages.sources if (scene := scene_of(run.context, each))]
    members = (*run.stages.stages, *run.stages.reduces)
    code = partial(require_planned, run.context.plan, members)
    cache = chunk_cache(run.context, run.stages, chunk)
    with ChunkGuard(
        run.context,
        checks=[partial(_require_scenes, scenes), code],
        before_put=[partial(_require_scenes, [s for s in scenes if is_local(s.href)])],
    ) as context:
        if cache:
            cache.restore_objects(context)
        samples = ChunkSamples(run.sampled, chunk, context)
        for runner in run.pool.runners:
            runner.sources.on_read = samples.add
        writer = ChunkWriter.of(
            context, run.stages, chunk, source_bands=run.bands, meter=run.meter, samples=samples
        )
        try:
            if cache:
                _restore(run, writer, cache)
            if run.stages.kind == "whole":
                _run_whole(run, writer, chunk)
            else:
                group = _block_group(context, run.stages)
                _run_tiles(run, writer, tiles_of(chunk, tile, group=group))
        finally:
            writer.flush()
            samples.save(context.store)
    run.blocks += writer.blocks
    if cache:  # scenes and code are verified
        cache.keep()


def _restore(run: _Chunks, writer: ChunkWriter, cache: ChunkCache) -> None:
    """Take the blocks that the cache has; a reduce that fails on one leaves a hole."""
    for name, block, data in cache.blocks_for(writer):
        run.check_stop()
        try:
            writer.restore(name, block, data)
        except StageFailed as failure:
            _add_hole(
                run, failure, covering_window(block.window, run.context.grid_type(name).scale)
            )


def _run_tiles(run: _Chunks, writer: ChunkWriter, windows: Iterable[Window]) -> None:
    tiles = _missing_tiles(run, writer, windows)
    for outcome in run.pool.run(tiles, check_stop=run.check_stop):
        begun = time.perf_counter()
        state = _store(run, writer, outcome)
        run.record(outcome.window, outcome.seconds + time.perf_counter() - begun, state)
        del outcome  # its pixels would stay in memory while the next tile is computed


def _require_scenes(scenes: Iterable[Scene]) -> None:
    """Require that scenes are still those of the plan.

    Raises:
        SceneChanged: one was replaced, overwritten or deleted.
    """
    for scene in scenes:
        require_unchanged(scene.href, scene.identity)


def _block_group(context: RunContext, stages: PhaseStages) -> Size:
    """Return width and height, in the grid of the tiles, of the largest block of the phase."""
    scales = [context.grid_type(name).scale for name in stages.writes] or [Scale()]
    return (int(max(BLOCK / s.x for s in scales)), int(max(BLOCK / s.y for s in scales)))


def _missing_tiles(
    run: _Chunks, writer: ChunkWriter, windows: Iterable[Window]
) -> Iterator[tuple[Window, Mapping[str, Window]]]:
    """Yield the tiles that touch a missing block, with the windows of rasters to compute."""
    for window in windows:
        wanted = writer.wanted(window)
        if wanted:
            yield window, wanted
        else:
            run.record(window, 0.0, "reused")


def _store(run: _Chunks, writer: ChunkWriter, outcome: TileOutcome) -> str:
    """Store the results of a tile or its hole, and return the state of the tile."""
    if isinstance(outcome.result, StageFailed):
        _add_hole(run, outcome.result, outcome.window)
        writer.add_hole(outcome.wanted)
        return "hole"
    try:
        writer.add(outcome.wanted, outcome.result)
        writer.add_values(outcome.window, outcome.values)
    except StageFailed as failure:  # of a reduce: the pixels themselves are right
        _add_hole(run, failure, outcome.window)
    return "done"


def _run_whole(run: _Chunks, writer: ChunkWriter, window: Window) -> None:
    run.check_stop()
    begun = time.perf_counter()
    if writer.is_complete and _has_scalars(run):
        run.record(window, 0.0, "reused")
        return
    try:
        results, values = attempted(run.pool.runners[0].run_whole)
    except StageFailed as failure:
        raise in_stage(failure.error, failure.stage, window) from failure
    writer.add(writer.wanted(window), results)
    outputs = {name.rpartition(".")[2]: encode_value(name, v) for name, v in values.items()}
    if outputs:
        name = scalars_name(run.context, run.stages.stages[0].id)
        writer.context.store.put_json(name, dict(outputs))
    run.record(window, time.perf_counter() - begun, "done")


def _has_scalars(run: _Chunks) -> bool:
    """Whether the JSON outputs of a whole stage are stored, or it has none."""
    stage = run.stages.stages[0]
    has_any = any(isinstance(each, JsonType) for each in stage.makes.values())
    return not has_any or run.context.store.has(scalars_name(run.context, stage.id))


def _add_hole(run: _Chunks, failure: StageFailed, window: Window) -> None:
    """Record the failure of a tile as a hole.

    Raises:
        PestoError: the error is not of this tile only; the run ends.
    """
    if not isinstance(failure.error, _A_TILES_OWN_FAULT):
        raise in_stage(failure.error, failure.stage, window) from failure
    problem = in_stage(failure.error, failure.stage, window).to_problem()
    run.holes.append(Hole(window=window, stage=failure.stage, error=problem))


def _tiles_failed(run: _Chunks) -> TilesFailed:
    """Return an error with the number of holes and the first three of them."""
    details = [hole.reason for hole in run.holes[:_MOST_LISTED]]
    more = len(run.holes) - len(details)
    lines = [*details, f"and {more} more"] if more else details
    return TilesFailed(
        f"{len(run.holes)} of {len(run.records)} tiles failed; the others are stored, and a retry "
        "computes only these:" + "".join(f"\n  {line}" for line in lines)
    )


def _save_manifest(run: _Chunks, name: str) -> ChunkResult:
    """Store the manifest of the chunks, and return its href and counts."""
    runners = run.pool.runners
    for runner in runners:
        run.meter.add(runner.meter)
    states = [record.state for record in run.records]
    result = ChunkResult(
        manifest=run.context.store.href(name),
        tiles=states.count("done"),
        reused=states.count("reused"),
        holes=len(run.holes),
        blocks=run.blocks,
        bytes_read=sum(runner.sources.bytes_read for runner in runners),
    )
    run.context.store.put_json(name, _manifest(run, result))
    return result


def _manifest(run: _Chunks, result: ChunkResult) -> dict[str, object]:
    return {
        "tiles": [
            [*record.window, round(record.seconds, 4), record.state] for record in run.records
        ],
        "holes": [hole.model_dump(mode="json") for hole in run.holes],
        "bytes_read": result.bytes_read,
        **run.meter.manifest(),
    }


def needed_bands(context: RunContext, stages: PhaseStages) -> dict[str, tuple[int, ...]]:
    """Return source -> the bands that its readers select; absent if a reader uses all of them."""
    selected: dict[str, list[tuple[int, ...] | None]] = {}
    for stage in (*stages.stages, *stages.reduces):
        for port, reference in stage.rasters.items():
            bands = None
            if not stage.is_warp:
                bands = picked_bands(context, stage, stage.masks.get(port, port))
            selected.setdefault(str(reference), []).append(bands)
    return {
        name: tuple(sorted({number for bands in found if bands for number in bands}))
        for name, found in selected.items()
        if name in stages.sources and None not in found
    }
