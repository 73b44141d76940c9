"""Run the stages of a phase on tiles, one tile or several at once, with retries.

Inside a tile the chain runs depth-first, and an intermediate array is freed after its last reader.
This file neither selects tiles nor stores results: `run/chunk.py` and `run/blocks.py` do.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, TypeAlias

from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.run.stage import StageFailed, StageRunner
from pesto_runtime.tiling import StepWindows, scaled_size, scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np

    from pesto_runtime.contract import Window
    from pesto_runtime.errors import PestoError
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.features import Feature
    from pesto_runtime.run.inputs import Pixels, Sources
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.tiling import Chain


TileOutput: TypeAlias = "np.ndarray | tuple[Feature, ...]"
"""A result of a tile: an array (band, row, col) of a raster, or the features of a vector."""

TileOutputs: TypeAlias = "tuple[dict[str, TileOutput], dict[str, object]]"
"""Raster or vector -> result, and `$stage.port` -> value of every JSON output."""

_ATTEMPTS = 3
_LONGEST_PAUSE_S = 5.0
_POLL_S = 0.2


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
        values: `$stage.port` -> value of every JSON output.
    """

    window: Window
    wanted: Mapping[str, Window]
    seconds: float
    result: Mapping[str, TileOutput] | StageFailed
    values: Mapping[str, object]


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
            waiting.add(self._pool.submit(copy_context().run, self._in_thread, window, wanted))
            while len(waiting) >= len(self.runners):
                yield from _finished(waiting, check_stop)
        while waiting:
            yield from _finished(waiting, check_stop)

    def _in_thread(self, window: Window, wanted: Mapping[str, Window]) -> TileOutcome:
        # Settings of GDAL are those of one thread, unless the main thread sets them.
        with raster_settings():
            return self._outcome(window, wanted)

    def _outcome(self, window: Window, wanted: Mapping[str, Window]) -> TileOutcome:
        runner, begun = self._free.get(), time.perf_counter()
        result: Mapping[str, TileOutput] | StageFailed
        values: Mapping[str, object] = {}
        try:
            result, values = attempted(lambda: runner.run(wanted, tile=window))
        except StageFailed as failure:
            result = failure
        finally:
            self._free.put(runner)
        return TileOutcome(window, wanted, time.perf_counter() - begun, result, values)


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

    def run(self, wanted: Mapping[str, Window], *, tile: Window | None = None) -> TileOutputs:
        """Compute windows of rasters and vectors, and values of stages.

        Args:
            wanted: Raster or vector -> window to compute; also id of a stage with folded values ->
                the tile in the grid of its outputs.
            tile: The tile; None for windows whose folded values do not count.

        Returns:
            Raster -> array (band, row, col) of its window, vector -> the features that were found,
            also those in the margin; and `$stage.port` -> value of every JSON output, which is
            meaningful for a whole stage only.

        Raises:
            StageFailed: a stage failed.
            RasterUnreadable: a source cannot be read.
        """
        windows = self.chain.windows(wanted)
        live = [each for each in self._stages if each.stage.id in windows.steps]
        to_read = Counter(image.raster for each in live for image in each.images)
        pixels: dict[str, Pixels] = {}
        read = partial(self._pixels, pixels, windows.sources)
        results: dict[str, TileOutput] = {}
        values: dict[str, object] = {}
        for each in live:
            own = windows.steps[each.stage.id]
            outputs = each.call(own, read, each.own_pixels(tile))
            results |= each.features(own, outputs)
            pixels |= each.rasters(own, outputs)
            values |= each.values(outputs)
            for image in each.images:
                to_read[image.raster] -= 1
                if not to_read[image.raster] and image.raster not in wanted:
                    pixels.pop(image.raster, None)
        results |= {
            name: read(name).crop(window).array
            for name, window in wanted.items()
            if window.pixels and name not in results and name not in self.context.stages
        }
        return results, values

    def run_whole(self) -> TileOutputs:
        """Run the only stage of a whole phase on its whole rasters; returns the same as `run`.

        Raises:
            StageFailed: the stage failed.
            RasterUnreadable: a source cannot be read.
        """
        (each,) = self._stages
        scale, size = each.step.scale, each.size
        extent = each.step.extent(size)
        keep = whole(scaled_size(size, scale))
        windows = StepWindows(extent, scaled_window(extent, scale), keep)
        sources = {name: whole(own) for name, own in self.chain.sizes.items()}
        outputs = each.call(windows, partial(self._pixels, {}, sources))
        results: dict[str, TileOutput] = dict(each.features(windows, outputs))
        made = each.rasters(windows, outputs)
        return results | {name: found.array for name, found in made.items()}, each.values(outputs)

    @cached_property
    def _stages(self) -> tuple[StageRunner, ...]:
        steps = {step.name: step for step in self.chain.steps}
        return tuple(
            _runner_of(stage)(
                self.context, stage, steps[stage.id],
                self.chain.grid(steps[stage.id]),
                self.sources, self.parameters[stage.id], self.meter,
            )
            for stage in self.stages
        )  # fmt: skip

    def _pixels(
        self, pixels: dict[str, Pixels], sources: Mapping[str, Window], name: str
    ) -> Pixels:
        """Return the pixels of a raster: computed before, or read now."""
        if name not in pixels:
            pixels[name] = self.sources.read(name, sources[name])
        return pixels[name]


def _finished(
    waiting: set[Future[TileOutcome]], check_stop: Callable[[], None]
) -> Iterator[TileOutcome]:
    """Remove finished tiles from `waiting`, and yield them; none after 0.2 s without one."""
    finished, _ = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
    check_stop()
    for future in finished:
        waiting.discard(future)
        yield future.result()


def _runner_of(stage: BoundStage) -> type[StageRunner]:
    if not stage.is_warp:
        return StageRunner
    from pesto_runtime.run.warped import WarpRunner  # loads pyproj, 10 MB

    return WarpRunner
