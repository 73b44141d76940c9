"""Measure what the tiles of a phase cost on this machine, for `pesto plan`.

It runs the code of a run, in this process and without a run store. It stores nothing. CPU seconds
are what a run takes when nothing else uses the machine, also where something does just now.
"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import BLOCK, Window
from pesto_runtime.errors import PestoError
from pesto_runtime.pipeline import RasterType, phase_chain
from pesto_runtime.raster.block_cache import CACHE_BYTES
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import is_local
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.run.callers import close_callers, planned_caller
from pesto_runtime.run.chunk import needed_bands
from pesto_runtime.run.inputs import Pixels, Sources, images_of, scene_of, tile_info
from pesto_runtime.run.readers import decoded_blocks, readers
from pesto_runtime.run.records import CostMeter
from pesto_runtime.run.stage import StageFailed
from pesto_runtime.run.tile import TileRunner
from pesto_runtime.run.tile_values import windows_of_values
from pesto_runtime.tiling import scaled_window, tile_quantum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.run.context import RunContext

_SIDES = (64, 128, 256, 512)  # pixels; the first call loads what the code imports late
_MOST_S = 0.06  # a call that takes longer is the last one


@dataclass(frozen=True)
class PixelCost:
    """What the first phase of a run costs.

    Attributes:
        side: Side of the largest window that was measured, pixels.
        decode_s: CPU seconds per pixel of the scenes, for all bands that are read; of a remote
            scene, seconds.
        compute_s: CPU seconds per pixel that a tile reads, margin included.
        store_s: CPU seconds per pixel of the scenes, to compress what is stored.
        array_bytes: Most bytes of arrays at one time, per pixel that a tile reads.
        stored_bytes: Compressed bytes per pixel of the scenes.
    """

    side: int
    decode_s: float
    compute_s: float
    store_s: float
    array_bytes: float
    stored_bytes: float


def pixel_cost(context: RunContext) -> PixelCost | None:
    """Measure the first phase on windows in the middle of its scenes, in less than 0.3 s.

    A window that takes more than 0.06 s is the last one.

    Returns:
        None if the phase has no tiles or calls a service, or if a stage fails there.
    """
    phase = context.phases[0]
    services = [context.plan.services[s.stage.process] for s in (*phase.stages, *phase.reduces)]
    if phase.kind == "call" or any(service.is_remote for service in services):
        return None
    try:
        with raster_settings():
            return _Phase(context).cost()
    except (StageFailed, PestoError):
        return None  # the run reports it
    finally:
        readers.close()
        close_callers()
        decoded_blocks.clear()


class _Phase:
    """The first phase of a run, on windows."""

    def __init__(self, context: RunContext) -> None:
        stages = context.phases[0]
        self._context = context
        self._reduces = stages.reduces
        self._bands = needed_bands(context, stages)
        self._sources = stages.sources
        read = {str(each) for stage in stages.reduces for each in stage.rasters.values()}
        self._stored = [n for n in stages.writes if isinstance(context.types[n], RasterType)]
        self._names = sorted(read | set(stages.writes))
        self._runner = TileRunner(
            context,
            phase_chain(stages, context.types, context.sizes),
            stages.stages,
            Sources(context, self._bands),
            {stage.id: context.parameters(stage) for stage in stages.stages},
            CostMeter(),
        )

    def cost(self) -> PixelCost:
        """Measure windows of growing size; the last one counts."""
        phase = self._context.plan.phases[0]
        chunk = phase.chunks[len(phase.chunks) // 2]
        decode_s = self._decode_s(chunk.intersection(Window(*chunk[:2], BLOCK, BLOCK)))
        first, *larger = _SIDES if self._shares_blocks() else _SIDES[-1:]
        cost, seconds = self._measured(self._window(chunk, first), decode_s)
        for side in larger:
            if seconds > _MOST_S or cost.side >= max(phase.tile):
                break
            cost, seconds = self._measured(self._window(chunk, side), decode_s)
        return cost

    def _shares_blocks(self) -> bool:
        """Whether one decoded block of every scene fits into the cache.

        If not, each small window would decode whole blocks again, which large tiles do not.
        """
        sizes = [
            scene.block[0] * scene.block[1] * len(scene.bands) * np.dtype(scene.dtype).itemsize
            for scene in self._context.plan.scenes.values()
        ]
        return sum(sizes) <= CACHE_BYTES

    def _window(self, chunk: Window, side: int) -> Window:
        """Return a window of about this size, of whole, aligned pixels in all rasters."""
        scales = [self._context.grid_type(name).scale for name in self._names]
        quantum = tile_quantum(scales, [step.align for step in self._runner.chain.steps])
        width, height = (-(-side // each) * each for each in quantum)
        tile = self._context.plan.phases[0].tile
        window = Window(*chunk[:2], min(width, tile[0]), min(height, tile[1]))
        return window.intersection(chunk)

    def _decode_s(self, window: Window) -> float:
        """Return the seconds per pixel of the scenes of reading a block, without any cache."""
        seconds = 0.0
        for name in self._sources:
            scene = scene_of(self._context, name)
            if scene is None:
                continue
            clock = time.process_time if is_local(scene.href) else time.perf_counter
            with RasterReader(scene.href, scene.selection) as reader:
                begun = clock()
                own = scaled_window(window, self._context.grid_type(name).scale)
                reader.read(own, bands=self._bands.get(name))
                seconds += (clock() - begun) / window.pixels
        return seconds

    def _measured(self, window: Window, decode_s: float) -> tuple[PixelCost, float]:
        """Return the cost of a window, and the seconds of a call."""
        wanted = {
            name: scaled_window(window, self._context.grid_type(name).scale) for name in self._names
        } | windows_of_values(self._context, self._runner.stages, window)
        windows = self._runner.chain.windows(wanted)
        reads = [*windows.sources.values(), *(step.read for step in windows.steps.values())]
        read = max(each.pixels for each in reads)
        self._computed(wanted, window)  # decodes the blocks, and loads what the code imports late
        begun = time.process_time()
        results = self._computed(wanted, window)
        computed = time.process_time()
        stored = sum(self._compressed(results[name]) for name in self._stored)
        stored_at = time.process_time()
        del results
        tracemalloc.start()  # numpy reports its arrays to it
        try:
            self._computed(wanted, window)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        cost = PixelCost(
            side=max(window.width, window.height),
            decode_s=decode_s,
            compute_s=(computed - begun) / read,
            store_s=(stored_at - computed) / window.pixels,
            array_bytes=peak / read,
            stored_bytes=stored / window.pixels,
        )
        return cost, computed - begun

    def _computed(self, wanted: Mapping[str, Window], tile: Window) -> dict[str, np.ndarray]:
        results, _ = self._runner.run(wanted, tile=tile)
        arrays = {n: each for n, each in results.items() if isinstance(each, np.ndarray)}
        for stage in self._reduces:
            self._reduce(stage, wanted, arrays)
        return arrays

    def _reduce(
        self, stage: BoundStage, wanted: Mapping[str, Window], arrays: Mapping[str, np.ndarray]
    ) -> None:
        inputs: dict[str, object] = dict(self._context.parameters(stage))
        for image in images_of(self._context, stage):
            name = image.raster
            pixels = Pixels(wanted[name], arrays[name], self._bands.get(name))
            inputs[image.port] = image.array(pixels)
        window = wanted[str(next(iter(stage.rasters.values())))]
        tile = tile_info(self._context, stage, window, window)
        planned_caller(self._context.plan, stage.stage.process).partial(inputs, tile=tile)

    def _compressed(self, array: np.ndarray) -> int:
        """Compress an array (band, row, col); return its bytes."""
        codec = BlockCodec(array.shape[0], array.dtype.name, self._context.plan.compression)
        rows, cols = min(array.shape[1], BLOCK), min(array.shape[2], BLOCK)
        block = np.ascontiguousarray(array[:, :rows, :cols])
        return len(codec.compress(block)) * array.size // block.size
