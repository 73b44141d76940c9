"""Estimate peak memory and time of a run on this machine, from a measurement of its first phase.

Memory is what the local engine's processes have together: the anonymous pages of each, and the
pages of libraries once. Time is that of a machine that nothing else uses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.pipeline import RasterType, phase_chain
from pesto_runtime.raster.block_cache import CACHE_BYTES
from pesto_runtime.raster.gdal import GDAL_CACHE_BYTES
from pesto_runtime.run.calibration import pixel_cost
from pesto_runtime.run.chunk import needed_bands, tiles_at_once
from pesto_runtime.run.chunk_process import PROCESS_CACHE_BYTES
from pesto_runtime.run.context import context_of
from pesto_runtime.run.kept_costs import kept_rate
from pesto_runtime.run.planning import PUBLISHED_BYTES_PER_S
from pesto_runtime.run.sampling import sampled_rasters
from pesto_runtime.run.spending import remote_bytes
from pesto_runtime.run.tile_values import windows_of_values
from pesto_runtime.tiling import scaled_window, tiles_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pesto_runtime.contract.prices import Prices
    from pesto_runtime.run.calibration import PixelCost
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.planning import PhaseEstimate, Planned
    from pesto_runtime.run.sampling import SampledRaster

Executor: TypeAlias = Literal["threads", "processes"]

# Measured with Python 3.11, numpy 2.4 and rasterio 1.4 on Linux.
_LATE_LIBRARIES = 28 << 20  # library pages that a run touches and a plan does not
_PARENT_ONLY = 6 << 20  # of the command line, which a worker process does not load
_FRAGMENTS = 1.25  # memory of freed arrays that the allocator keeps, times what is in use
_CURVE = (1, 2, 4, 8, 16, 32, 64)
_PICTURE_BYTES = 12  # per sample: colours, their palette and the compressed picture
_START_S = {"threads": 0.2, "processes": 1.2}  # with the imports of a worker process
_TILE_S = 0.002  # bookkeeping of a tile
_MOST_COUNTED = 256  # tiles; of more, the largest are whole ones
_SAMPLE_S = 60e-9  # to draw a sample in a picture


@dataclass(frozen=True)
class RunCost:
    """What a run takes on this machine.

    Attributes:
        memory_bytes: Peak memory of all its processes: anonymous pages, and libraries once.
        seconds: Wall time, without the time that services need.
        basis: What the figures rest on.
        workers: Threads or processes.
        price: In the currency of the prices; 0 without prices.
    """

    memory_bytes: int
    seconds: float
    basis: str
    workers: int = 1
    price: float = 0.0


def run_cost(planned: Planned, *, workers: int, executor: Executor = "threads") -> RunCost:
    """Estimate a run by the local engine; calls the stages of the first phase on small windows.

    Args:
        planned: The plan.
        workers: Threads or processes.
        executor: Which of them.
    """
    return _CostModel.of(planned, executor).cost(workers, len(os.sched_getaffinity(0)))


def run_costs(
    planned: Planned,
    *,
    workers: int,
    executor: Executor = "threads",
    prices: Prices | None = None,
    start_s: float = 0.0,
) -> list[RunCost]:
    """Estimate a run as `run_cost` does; then with 1, 2, 4, … workers on so many cores.

    Args:
        planned: The plan.
        workers: Threads or processes of the first estimate.
        executor: Which of them.
        prices: What the machine costs; None for nothing.
        start_s: Seconds from the start of the command to its plan, which are part of the run.
    """
    model = _CostModel.of(planned, executor, prices, start_s)
    tiles = max((each.tiles for each in planned.estimates), default=1)
    others = [count for count in _CURVE if count <= tiles]
    return [
        model.cost(workers, len(os.sched_getaffinity(0))),
        *(model.cost(count, count) for count in others),
    ]


@dataclass(frozen=True)
class _CostModel:
    """The measurement of a run's first phase, from which each number of workers follows."""

    phases: Sequence[_Tiles]
    executor: Executor
    own: tuple[int, int]
    samples: Sequence[SampledRaster]
    measured: PixelCost | None
    prices: Prices | None
    start_s: float

    @classmethod
    def of(
        cls,
        planned: Planned,
        executor: Executor,
        prices: Prices | None = None,
        start_s: float = 0.0,
    ) -> _CostModel:
        """Measure."""
        own = _own_memory()
        context = context_of(planned.plan)
        measured = pixel_cost(context)
        phases = [
            _Tiles(context, number, estimate, measured if number == 0 else None)
            for number, estimate in enumerate(planned.estimates)
        ]
        return cls(phases, executor, own, _samples(context), measured, prices, start_s)

    def cost(self, workers: int, cores: int) -> RunCost:
        """Return what the run takes with so many workers on so many cores."""
        base, libraries = self.own
        # Of the phases one after another, and of the report's largest picture after them.
        peak = max(
            [each.bytes(base, workers, self.executor) for each in self.phases]
            + [*map(_picture_bytes, self.samples)]
        )
        memory = int(base + libraries + _LATE_LIBRARIES + peak)
        # Later phases read rasters that do not exist yet: their nominal time is corrected as the
        # first.
        nominal = self.phases[0].estimate.seconds
        factor = self.phases[0].cpu_seconds / nominal if self.measured and nominal else 1.0
        seconds = self.start_s + _START_S[self.executor]
        seconds += sum(each.grid.width * each.grid.height * _SAMPLE_S for each in self.samples)
        kept = 0
        for each in self.phases:
            cpu = each.cpu_seconds if each.measured else each.estimate.seconds * factor
            if not each.measured and (earlier := each.kept_seconds) is not None:
                cpu, kept = earlier, kept + 1
            at_once = max(1, min(workers, cores, each.estimate.tiles))
            seconds += cpu / at_once + each.publish_seconds
        basis = (
            f"measured just now on {self.measured.side} x {self.measured.side} pixels"
            if self.measured
            else "nominal rates: expect the time within a factor of three"
        )
        if kept:
            rest = len(self.phases) - kept - bool(self.measured)
            earlier_runs = f"earlier runs{' and nominal rates' if rest else ''}"
            basis = f"{basis}, and {earlier_runs}" if self.measured else earlier_runs
        price = 0.0
        if self.prices is not None:
            price = self.prices.cost(
                seconds, cores=workers, memory_bytes=memory, transferred=self._remote_bytes()
            )
        return RunCost(memory, seconds, basis, workers, price)

    def _remote_bytes(self) -> int:
        first = self.phases[0]
        return remote_bytes(first.context.plan, first.estimate)


@dataclass(frozen=True)
class _Tiles:
    """The tiles of a phase."""

    context: RunContext
    number: int
    estimate: PhaseEstimate
    measured: PixelCost | None

    def bytes(self, base: int, workers: int, executor: Executor) -> float:
        """Return the memory of tiles, caches and worker processes."""
        if not self.estimate.tiles:
            return 0.0
        at_once = min(workers, self.estimate.tiles)
        arrays = self._largest_tiles(at_once) * self._tile_bytes()
        cached = self._decoded_bytes()
        if executor == "threads":
            caches = GDAL_CACHE_BYTES + min(CACHE_BYTES, cached)
            return _FRAGMENTS * (caches + arrays)
        caches = GDAL_CACHE_BYTES + min(PROCESS_CACHE_BYTES, cached)
        return at_once * (base - _PARENT_ONLY + _FRAGMENTS * caches) + _FRAGMENTS * arrays

    def _largest_tiles(self, count: int) -> float:
        """Return what the largest tiles of a scene have together, in whole tiles.

        Those at the right and lower edge of a small scene are parts of a tile.
        """
        phase = self.context.plan.phases[self.number]
        if phase.kind == "whole" or self.estimate.tiles > _MOST_COUNTED:
            return count
        tiles = (tile for chunk in phase.chunks for tile in tiles_of(chunk, phase.tile))
        sizes = sorted((each.pixels for each in tiles), reverse=True)
        return sum(sizes[:count]) / (phase.tile[0] * phase.tile[1])

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all tiles."""
        if self.measured is None:
            return self.estimate.seconds
        phase, cost = self.context.plan.phases[self.number], self.measured
        pixels = phase.size[0] * phase.size[1]
        overlap = self._read_pixels() / (phase.tile[0] * phase.tile[1])
        per_pixel = cost.decode_s + cost.compute_s * overlap + cost.store_s
        return pixels * per_pixel + self.estimate.tiles * _TILE_S

    @property
    def kept_seconds(self) -> float | None:
        """Seconds of all tiles of one worker in earlier runs; None if a stage had none."""
        stages, phase = self.context.phases[self.number], self.context.plan.phases[self.number]
        pixels, total = phase.size[0] * phase.size[1], 0.0
        at_once = min(tiles_at_once(self.context, self.number), max(1, self.estimate.tiles))
        for stage in (*stages.stages, *stages.reduces):
            service = self.context.plan.services[stage.stage.process]
            rate = kept_rate(service)
            if rate is None:
                return None
            seconds = rate.seconds / at_once if service.is_remote else rate.cpu_seconds
            total += pixels * seconds / rate.pixels
        return total or None

    @property
    def publish_seconds(self) -> float:
        """Seconds to write the products of the phase."""
        if self.measured is None:
            return self.estimate.bytes_made / 2 / PUBLISHED_BYTES_PER_S
        phase = self.context.plan.phases[self.number]
        return phase.size[0] * phase.size[1] * self.measured.stored_bytes / PUBLISHED_BYTES_PER_S

    def _tile_bytes(self) -> float:
        """Return the bytes of the arrays of a tile and of the blocks that it fills."""
        if self.measured is None:
            return self.estimate.memory_bytes
        blocks = self.estimate.bytes_made / max(1, self.estimate.tiles)
        return self.measured.array_bytes * self._read_pixels() + 2 * blocks

    def _read_pixels(self) -> int:
        """Return the pixels of the largest window that a stage reads for a tile in the middle."""
        windows = self._windows()
        return max((each.pixels for each in windows.values()), default=0)

    def _windows(self) -> Mapping[str, Window]:
        stages, phase = self.context.phases[self.number], self.context.plan.phases[self.number]
        if phase.kind == "whole":
            return {"": whole(phase.size)}
        chain = phase_chain(stages, self.context.types, self.context.sizes)
        (width, height), tile_size = phase.size, phase.tile
        tile = Window(
            (width - tile_size[0]) // 2, (height - tile_size[1]) // 2, *tile_size
        ).intersection(whole(phase.size))
        reads = {str(each) for stage in stages.reduces for each in stage.rasters.values()}
        wanted = {
            name: scaled_window(tile, self.context.grid_type(name).scale)
            for name in {*reads, *stages.writes}
        } | windows_of_values(self.context, stages.stages, tile)
        windows = chain.windows(wanted)
        return {**windows.sources, **{name: each.read for name, each in windows.steps.items()}}

    def _decoded_bytes(self) -> int:
        """Return the bytes of the sources that tiles share: 0 if no tile has a margin."""
        stages = self.context.phases[self.number]
        if stages.kind != "map":
            return 0
        bands = needed_bands(self.context, stages)
        windows = self._windows()
        tile = self.context.plan.phases[self.number].tile
        total = 0
        for name in stages.sources:
            raster = self.context.types[name]
            window = windows.get(name)  # none for the source of a warp, which has another grid
            if not isinstance(raster, RasterType) or window is None:
                continue
            if window.pixels <= tile[0] * tile[1]:
                continue
            size = self.context.sizes[name]
            count = len(bands.get(name) or raster.bands or (None,))
            total += size[0] * size[1] * count * np.dtype(raster.dtype[0]).itemsize
        return total


def _samples(context: RunContext) -> list[SampledRaster]:
    """Return the rasters whose samples the report shows as pictures."""
    return [
        raster
        for number, stages in enumerate(context.phases)
        for raster in sampled_rasters(context, number, needed_bands(context, stages)).values()
    ]


def _picture_bytes(raster: SampledRaster) -> float:
    pixel_bytes = 2 * len(raster.bands) * np.dtype(raster.dtype).itemsize + _PICTURE_BYTES
    return raster.grid.width * raster.grid.height * pixel_bytes


def _own_memory() -> tuple[int, int]:
    """Return the anonymous bytes of this process, and those of its libraries and files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    found = {name.rstrip(":"): int(kibibytes) << 10 for name, kibibytes, *_ in fields}
    return found["Anonymous"], found["Rss"] - found["Anonymous"]
