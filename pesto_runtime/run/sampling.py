"""Collect the samples of scenes and outputs while a chunk has their pixels, for the report.

A chunk stores them as one small object per raster. Products do not depend on them, and a run that
has lost some is not damaged: the report reads these pixels again, or leaves them out.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import NotFound
from pesto_runtime.pipeline import RasterType
from pesto_runtime.raster.identity import is_local
from pesto_runtime.raster.samples import Samples
from pesto_runtime.run.context import samples_folder
from pesto_runtime.run.inputs import scene_of
from pesto_runtime.tiling import SampleGrid, scaled_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_runtime.contract import Window
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.store import Store

_READ_AGAIN = 32 << 20
"""A local scene of fewer bytes is read again for the report, with all its bands."""


@dataclass(frozen=True)
class SampledRaster:
    """A raster whose samples a phase collects.

    Attributes:
        name: Its reference.
        folder: Folder of its samples in the run store.
        grid: Which pixels are samples.
        bands: 1-based numbers of the bands that are collected.
        dtype: Its dtype.
    """

    name: str
    folder: str
    grid: SampleGrid
    bands: tuple[int, ...]
    dtype: str


def sampled_rasters(
    context: RunContext, number: int, bands: Mapping[str, tuple[int, ...]]
) -> dict[str, SampledRaster]:
    """Return the rasters whose samples a phase collects: outputs, and scenes that it reads first.

    Args:
        context: The run.
        number: The phase.
        bands: Source -> 1-based numbers of the bands that the phase reads; absent for all.
    """
    if context.plan.report == "none":
        return {}
    phase = context.phases[number]
    earlier = {name for each in context.phases[:number] for name in each.sources}
    outputs = set(Pipeline.parse(context.plan.pipeline).outputs.values())
    # A warp reads windows of its source that are not those of the chunk.
    names = [
        name
        for name in phase.sources
        if name not in earlier
        and context.grid_type(name).grid == phase.grid
        and _is_large(context, name)
    ]
    names += [name for name in phase.writes if name in outputs]
    found = {}
    for name in names:
        raster = context.types[name]
        if not isinstance(raster, RasterType) or raster.bands is None or len(raster.dtype) != 1:
            continue
        numbers = bands.get(name) or tuple(range(1, len(raster.bands) + 1))
        (dtype,) = raster.dtype
        pixel_bytes = len(numbers) * np.dtype(dtype).itemsize
        grid = SampleGrid.of(context.sizes[name], pixel_bytes=pixel_bytes)
        folder = samples_folder(context.plan, name)
        path = f"{folder}/{grid.step}-{'-'.join(map(str, numbers))}"
        found[name] = SampledRaster(name, path, grid, numbers, dtype)
    return found


def _is_large(context: RunContext, name: str) -> bool:
    """Whether reading a scene again for the report would cost more than collecting its samples."""
    scene = scene_of(context, name)
    if scene is None:
        return False
    raw = scene.width * scene.height * len(scene.bands) * np.dtype(scene.dtype).itemsize
    return raw > _READ_AGAIN or not is_local(scene.href)


@dataclass
class ChunkSamples:
    """The samples of one chunk; any thread may add some.

    Attributes:
        rasters: The rasters to collect.
        chunk: The chunk, in the grid of the scenes.
        context: The run.
    """

    rasters: Mapping[str, SampledRaster]
    chunk: Window
    context: RunContext
    _samples: dict[str, Samples] = field(init=False)

    def __post_init__(self) -> None:
        self._samples = {
            name: Samples.empty(
                raster.grid,
                raster.grid.samples_in(
                    scaled_window(self.chunk, self.context.grid_type(name).scale)
                ),
                bands=len(raster.bands),
                dtype=raster.dtype,
            )
            for name, raster in self.rasters.items()
        }

    def add(self, name: str, window: Window, pixels: np.ndarray) -> None:
        """Take the samples of a window; those of other chunks and of other rasters are ignored.

        Args:
            name: The raster.
            window: The window in the raster's grid.
            pixels: Array (band, row, col).
        """
        if name in self._samples:
            self._samples[name].add(window, pixels)

    def save(self, store: Store) -> None:
        """Store the samples, together with those that an earlier attempt has stored.

        Raises:
            StoreFailed: the store cannot be written.
        """
        for name, samples in self._samples.items():
            if not samples.seen.any():
                continue
            object_name = f"{self.rasters[name].folder}/{'-'.join(map(str, samples.part))}"
            if not samples.is_complete:
                with suppress(NotFound):
                    earlier = _decoded(self.rasters[name], store.get(object_name))
                    earlier.merge(samples)
                    samples = earlier  # noqa: PLW2901  # what is stored
            store.put(object_name, samples.encode())


def collected(context: RunContext, raster: SampledRaster) -> Samples:
    """Return all samples of a raster that chunks have stored.

    Raises:
        StoreFailed: the store does not respond.
    """
    found = Samples.of_all(raster.grid, bands=len(raster.bands), dtype=raster.dtype)
    for part in _parts(context.store, raster):
        found.merge(part)
    return found


def _parts(store: Store, raster: SampledRaster) -> Iterator[Samples]:
    for name in sorted(store.names(raster.folder)):
        with suppress(NotFound):  # damaged, and deleted: the report reads these pixels again
            yield _decoded(raster, store.get(name))


def _decoded(raster: SampledRaster, data: bytes) -> Samples:
    return Samples.decode(raster.grid, data, bands=len(raster.bands), dtype=raster.dtype)
