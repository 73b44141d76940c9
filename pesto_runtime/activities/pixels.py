"""Windows of rasters in memory, and where they come from: the pipeline's scenes, earlier phases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.activities.context import RunContext, raster_name
from pesto_runtime.activities.readers import ReaderCache
from pesto_runtime.contract import Reference, Window, parse_binding
from pesto_runtime.errors import RasterUnreadable
from pesto_runtime.raster import band_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.contract import ImageReference, Scene


@dataclass(frozen=True, slots=True)
class Pixels:
    """Some bands of a window of a raster.

    Attributes:
        window: Of the raster's grid.
        array: (band, row, col).
        bands: 1-based numbers of the raster's bands that the array holds; None for all in order.
    """

    window: Window
    array: np.ndarray
    bands: tuple[int, ...] | None = None

    def crop(self, window: Window) -> Pixels:
        """The same bands of a window inside this one."""
        if window == self.window:
            return self
        rows, cols = window.relative_to(self.window).slices
        return Pixels(window, self.array[:, rows, cols], self.bands)

    def pick(self, bands: tuple[int, ...] | None) -> np.ndarray:
        """Some of the bands, as an array (band, row, col); None for all that are held."""
        if bands is None or bands == self.bands:
            return self.array
        held = self.bands or tuple(range(1, self.array.shape[0] + 1))
        positions = [held.index(number) for number in bands]
        if positions == list(range(self.array.shape[0])):
            return self.array
        return self.array[positions]


_held = ReaderCache()


@dataclass
class Sources:
    """Reads the rasters that a phase reads; not shared between threads.

    Attributes:
        context: Of the run.
        bands: Raster -> 1-based numbers of the bands that anybody needs; absent for all.
        bytes_read: Bytes of pixels read so far.
    """

    context: RunContext
    bands: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bytes_read: int = 0

    def read(self, name: str, window: Window) -> Pixels:
        """Read a window of a raster.

        Raises:
            RasterUnreadable: it cannot be read there.
        """
        bands = self.bands.get(name)
        try:
            reader = _held.reader(self.context.plan.run, self.href(name))
            array = reader.read(window, bands=bands)
        except RasterUnreadable:
            _held.close()  # whoever tries again looks at the file again
            raise
        self.bytes_read += array.nbytes
        return Pixels(window, array, bands)

    def count_reference(self, name: str, image: ImageReference) -> None:
        """Count the bytes of pixels that a service reads by itself."""
        made = self.context.raster_type(name)
        bands = len(image.bands or made.bands or (None,))
        pixels = image.window.pixels if image.window else 0
        self.bytes_read += pixels * bands * np.dtype(made.dtype[0]).itemsize

    def href(self, name: str) -> str:
        """Where a raster is: a scene, or what an earlier phase left in the store."""
        scene = scene_of(self.context, name)
        return scene.href if scene else self.context.store.href(raster_name(self.context, name))


def scene_of(context: RunContext, name: str) -> Scene | None:
    """The scene that a reference names; None for what a stage makes."""
    reference = parse_binding(name)
    if isinstance(reference, Reference) and reference.is_input:
        return context.plan.scenes.get(reference.port)
    return None


def picked_bands(context: RunContext, name: str, names: tuple[str, ...] | None
                 ) -> tuple[int, ...] | None:  # fmt: skip
    """1-based numbers of the bands that a port picks from a raster; None for all of them.

    A raster whose bands have no names gives them in order.
    """
    has = context.raster_type(name).bands
    if names is None or has is None or not any(has):
        return None
    return band_numbers(has, names, href=name)
