"""Run the stages of a phase on tiles, one tile or several at once, with retries.

Inside a tile the chain runs depth-first, and an intermediate array is freed after its last reader.
This file neither selects tiles nor stores results: `run/chunk.py` and `run/blocks.py` do.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, TypeAlias

from pesto_runtime.errors import PestoError, Unreachable
from pesto_runtime.pipeline import BoundStage, RasterType, VectorType
from pesto_runtime.run.callers import planned_caller
from pesto_runtime.run.features import Feature, read_features
from pesto_runtime.run.inputs import (
    placement_of,
    stage_array,
    stage_reference,
    tile_info,
    trimmed,
    typed,
    write_window,
)
from pesto_runtime.tiling import (
    StepWindows,
    scaled_size,
    scaled_window,
    source_window,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np

    from pesto_runtime.contract import Scale, TileInfo, Window
    from pesto_runtime.run.callers import Caller
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.inputs import Pixels, Sources
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.tiling import Chain, Size, Step


TileOutput: TypeAlias = "np.ndarray | tuple[Feature, ...]"
"""A result of a tile: an array (band, row, col) of a raster, or the features of a vector."""

TileOutputs: TypeAlias = "tuple[dict[str, TileOutput], dict[str, object]]"
"""Raster or vector -> result, and `$stage.port` -> value of every JSON output."""

_ATTEMPTS = 3
_LONGEST_PAUSE_S = 5.0
_POLL_S = 0.2


class StageFailed(Exception):  # control flow: it becomes a hole, or ends the run as its `error`
    """A stage failed on a tile.

    Attributes:
        stage: Id of the stage.
        error: The error.
        is_final: Whether another attempt at once cannot help.
    """

    def __init__(self, stage: str, error: PestoError, *, is_remote: bool = False) -> None:
        """Create the failure; the client of a remote stage has waited for an absent service."""
        super().__init__(f"stage {stage!r}: {error}")
        self.stage = stage
        self.error = error
        self.is_final = not error.retryable or (is_remote and isinstance(error, Unreachable))


def in_stage(error: PestoError, stage: str, window: Window | None = None) -> PestoError:
    """Return the same error with the stage and the tile before its detail."""
    where = f"stage {stage!r}" + (f", tile {list(window)}" if window else "")
    placed = error.prefixed(where)
    placed.__cause__ = error
    return placed


@dataclass(frozen=True, slots=True)
class TileOutcome:
    """The results of a tile, or its error.

    Attributes:
        window: The tile, in the grid of the scenes.
        wanted: Raster or vector -> the window of it that was computed.
        seconds: Time that it took.
        result: Raster -> array (band, row, col), vector -> features; or the final error.
    """

    window: Window
    wanted: Mapping[str, Window]
    seconds: float
    result: Mapping[str, TileOutput] | StageFailed


class TilePool:
    """Runs tiles in the calling thread, or several at once in threads that wait for services."""

    def __init__(self, make_runner: Callable[[], TileRunner], count: int) -> None:
        """Create a pool in which each thread has its own runner.

        Args:
            make_runner: Creates a runner.
            count: Number of tiles at once, 1 or more.
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
        self,
        tiles: Iterable[tuple[Window, Mapping[str, Window]]],
        *,
        check_stop: Callable[[], None],
    ) -> Iterator[TileOutcome]:
        """Run tiles, and yield the outcome of each when it ends.

        Args:
            tiles: The window of each tile, and raster or vector -> window to compute. The pool
                takes the next tile when a thread is free.
            check_stop: Called before every tile and while waiting; raises to stop.

        Raises:
            PestoError: an error that is not of a single tile.
        """
        if self._pool is None:
            for window, wanted in tiles:
                check_stop()
                yield self._outcome(window, wanted)
            return
        waiting: set[Future[TileOutcome]] = set()
        for window, wanted in tiles:
            check_stop()
            # A thread of a pool does not inherit context variables: without the copy, its calls
            # could not be cancelled, and would lose the trace.
            waiting.add(self._pool.submit(copy_context().run, self._outcome, window, wanted))
            while len(waiting) >= len(self.runners):
                yield from _finished(waiting, check_stop)
        while waiting:
            yield from _finished(waiting, check_stop)

    def _outcome(self, window: Window, wanted: Mapping[str, Window]) -> TileOutcome:
        runner, begun = self._free.get(), time.perf_counter()
        result: Mapping[str, TileOutput] | StageFailed
        try:
            result, _ = attempted(lambda: runner.run(wanted))
        except StageFailed as failure:
            result = failure
        finally:
            self._free.put(runner)
        return TileOutcome(window, wanted, time.perf_counter() - begun, result)


def attempted(call: Callable[[], TileOutputs]) -> TileOutputs:
    """Run a tile up to 3 times, as long as its error is retryable.

    Orchestrators retry whole tasks; a retry here repeats one tile, and the other tiles of the chunk
    stay.

    Raises:
        StageFailed: the last attempt failed, or the error is not retryable.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except StageFailed as failure:
            if failure.is_final:
                raise
            time.sleep(min(failure.error.retry_after_s or 0.2 * 2**attempt, _LONGEST_PAUSE_S))
    return call()


@dataclass
class TileRunner:
    """Runs the stages of a phase on one tile after another; belongs to one thread.

    Attributes:
        context: The run.
        chain: Geometry of the phase.
        stages: Map stages, or the only whole stage, in order.
        sources: Reads pixels.
        parameters: Stage id -> its JSON inputs.
        meter: Cost of the calls of this runner.
    """

    context: RunContext
    chain: Chain
    stages: tuple[BoundStage, ...]
    sources: Sources
    parameters: Mapping[str, Mapping[str, object]]
    meter: CostMeter
    _callers: dict[str, Caller] = field(default_factory=dict)
    _tiles: dict[str, TileInfo] = field(default_factory=dict)

    def run(self, wanted: Mapping[str, Window]) -> TileOutputs:
        """Compute windows of rasters and vectors.

        Args:
            wanted: Raster or vector -> window to compute.

        Returns:
            Raster -> array (band, row, col) of its window, vector -> the features that were found,
            also those in the margin; and `$stage.port` -> value of every JSON output, which is
            meaningful for a whole stage only.

        Raises:
            StageFailed: a stage failed.
            RasterUnreadable: a source cannot be read.
        """
        windows = self.chain.windows(wanted)
        live = [stage for stage in self.stages if stage.id in windows.steps]
        to_read = Counter(str(each) for stage in live for each in stage.rasters.values())
        pixels: dict[str, Pixels] = {}
        results: dict[str, TileOutput] = {}
        values: dict[str, object] = {}
        for stage in live:
            outputs = self._call(stage, windows.steps[stage.id], pixels, windows.sources)
            results |= self._features(stage, windows.steps[stage.id], outputs)
            values |= self._trim(stage, windows.steps[stage.id], outputs, pixels)
            for reference in stage.rasters.values():
                to_read[str(reference)] -= 1
                if not to_read[str(reference)] and str(reference) not in wanted:
                    pixels.pop(str(reference), None)
        results |= {
            name: self._pixels(name, pixels, windows.sources).crop(window).array
            for name, window in wanted.items()
            if window.pixels and name not in results
        }
        return results, values

    def run_whole(self) -> TileOutputs:
        """Run the only stage of a whole phase on its whole rasters; returns the same as `run`.

        Raises:
            StageFailed: the stage failed.
            RasterUnreadable: a source cannot be read.
        """
        (stage,) = self.stages
        read = whole(self._grid(stage))
        scale, size = self._scale(stage), self._grid(stage)
        extent = self._step(stage).extent(size)
        keep = whole(scaled_size(size, scale))
        windows = StepWindows(extent, scaled_window(extent, scale), keep)
        outputs = self._call(stage, windows, {}, dict.fromkeys(self.chain.sizes, read))
        pixels: dict[str, Pixels] = {}
        results: dict[str, TileOutput] = dict(self._features(stage, windows, outputs))
        values = self._trim(stage, windows, outputs, pixels)
        return results | {name: each.array for name, each in pixels.items()}, values

    def _pixels(
        self, name: str, pixels: dict[str, Pixels], sources: Mapping[str, Window]
    ) -> Pixels:
        """Return the pixels of a raster: computed before, or read now."""
        if name not in pixels:
            pixels[name] = self.sources.read(name, sources[name])
        return pixels[name]

    def _call(
        self,
        stage: BoundStage,
        windows: StepWindows,
        pixels: dict[str, Pixels],
        sources: Mapping[str, Window],
    ) -> dict[str, object]:
        caller, size = self._caller(stage), self._grid(stage)
        source = source_window(windows.read, size)
        inputs: dict[str, object] = dict(self.parameters[stage.id])
        for port, reference in stage.rasters.items():
            image = (
                stage_reference(self.context, stage, stage.masks.get(port, port), windows.read)
                if caller.takes_references and whole(size).contains(windows.read)
                else None
            )
            if image is not None and port in stage.masks:
                continue  # the service makes it from the image that it reads
            if image is not None:
                inputs[port] = image
                self.sources.count_reference(str(reference), image)
            else:
                read = self._pixels(str(reference), pixels, sources).crop(source)
                inputs[port] = stage_array(self.context, stage, port, read, windows.read)
        write = write_window(windows, self._scale(stage))
        tile = self._tile_info(stage, windows.read, write)
        try:
            with self.meter.call(stage.id):
                return caller.run(inputs, tile=tile)
        except PestoError as error:
            raise StageFailed(stage.id, error, is_remote=caller.is_remote) from error

    def _trim(
        self,
        stage: BoundStage,
        windows: StepWindows,
        outputs: Mapping[str, object],
        pixels: dict[str, Pixels],
    ) -> dict[str, object]:
        """Trim the raster outputs of a stage into `pixels`, and return its JSON outputs."""
        values: dict[str, object] = {}
        for port, planned in stage.makes.items():
            name = stage.reference(port)
            if isinstance(planned, VectorType):
                continue
            if not isinstance(planned, RasterType):
                values[name] = outputs.get(port)
                continue
            try:
                array = typed(outputs.get(port), planned, name=name)
                scale = self._scale(stage)
                pixels[name] = trimmed(array, windows, scale=scale, name=name)
            except PestoError as error:
                raise StageFailed(stage.id, error) from error
        return values

    def _features(
        self, stage: BoundStage, windows: StepWindows, outputs: Mapping[str, object]
    ) -> dict[str, TileOutput]:
        """Return the features of every vector output of a stage, moved into the scene's grid."""
        found: dict[str, TileOutput] = {}
        for port in stage.description.outputs:
            name = stage.reference(port.name)
            if not isinstance(stage.makes[port.name], VectorType):
                continue
            size = self.context.sizes[name]
            place = placement_of(stage, windows, size=size)
            geometries = port.vector.geometry if port.vector else ()
            try:
                found[name] = read_features(
                    outputs.get(port.name), place, geometries=geometries, name=name
                )
            except PestoError as error:
                raise StageFailed(stage.id, error) from error
        return found

    def _tile_info(self, stage: BoundStage, read: Window, write: Window) -> TileInfo:
        # Its facts of the scene are validated once: that takes as long as a small tile.
        first = self._tiles.get(stage.id)
        if first is None:
            first = self._tiles[stage.id] = tile_info(self.context, stage, read, write)
        places = {"read": read, "write": write, "tags": dict(first.tags)}
        return first.model_copy(update=places)

    def _caller(self, stage: BoundStage) -> Caller:
        # `planned_caller` writes the service as JSON for its key, and takes a lock: once per chunk
        # is enough, because callers are closed only between chunks.
        if stage.id not in self._callers:
            self._callers[stage.id] = planned_caller(self.context.plan, stage.stage.process)
        return self._callers[stage.id]

    def _scale(self, stage: BoundStage) -> Scale:
        return self._step(stage).scale

    def _step(self, stage: BoundStage) -> Step:
        return next(step for step in self.chain.steps if step.name == stage.id)

    def _grid(self, stage: BoundStage) -> Size:
        return self.chain.sizes[str(next(iter(stage.rasters.values())))]


def _finished(
    waiting: set[Future[TileOutcome]], check_stop: Callable[[], None]
) -> Iterator[TileOutcome]:
    """Remove finished tiles from `waiting`, and yield them; none after 0.2 s without one."""
    finished, _ = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
    check_stop()
    for future in finished:
        waiting.discard(future)
        yield future.result()
