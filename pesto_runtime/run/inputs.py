"""What one call of a stage is given: its images, picked and padded, and where they lie."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import (
    ImageReference,
    RasterContract,
    Reference,
    Scale,
    TileInfo,
    Window,
    parse_binding,
)
from pesto_runtime.errors import ContractBroken, RasterUnreadable
from pesto_runtime.raster.image import rescaled
from pesto_runtime.raster.read import RasterReader, band_numbers
from pesto_runtime.run.context import RunContext, raster_name
from pesto_runtime.run.features import WindowPlacement
from pesto_runtime.tiling import covering_window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.contract import Scene
    from pesto_runtime.pipeline import BoundStage, RasterType
    from pesto_runtime.tiling import Size, StepWindows


@dataclass
class ReaderCache(threading.local):
    """A thread's open rasters, all of one run; closed when the thread ends or begins another.

    Attributes:
        run: Key of the run; it tells one state of a raster from another.
    """

    run: str = ""
    _open: dict[str, RasterReader] = field(default_factory=dict)

    def reader(self, run: str, href: str) -> RasterReader:
        """An open raster.

        Raises:
            RasterUnreadable: it cannot be opened.
        """
        if run != self.run:
            self.close()
            self.run = run
        if href not in self._open:
            self._open[href] = RasterReader(href)
        return self._open[href]

    def close(self) -> None:
        """Close every raster of this thread."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()


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


@dataclass(frozen=True, slots=True)
class Padding:
    """Pixels mirrored onto a window where it ends at the scene's edge (`edge: reflect`)."""

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0

    @property
    def is_none(self) -> bool:
        """Whether nothing is added."""
        return not (self.top or self.right or self.bottom or self.left)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Mirror the outermost pixels of (band, row, col), the edge itself not repeated."""
        if self.is_none:
            return pixels
        widths = ((0, 0), (self.top, self.bottom), (self.left, self.right))
        return np.pad(pixels, widths, mode="reflect")

    def grown(self, window: Window) -> Size:
        """Width and height of a window so padded."""
        return (window.width + self.left + self.right, window.height + self.top + self.bottom)


def padding_of(stage: BoundStage, windows: StepWindows, grid: Size) -> Padding:
    """What a stage wants to see beyond the scene's edges around a tile."""
    if all(_contract(stage, port).edge == "clip" for port in stage.rasters):
        return Padding()
    margin, read = stage.description.margin, windows.read
    align = max(_contract(stage, port).align for port in stage.rasters)
    return Padding(
        top=0 if read.row_off else _up(margin.top, align),
        right=0 if read.col_stop < grid[0] else margin.right,
        bottom=0 if read.row_stop < grid[1] else margin.bottom,
        left=0 if read.col_off else _up(margin.left, align),
    )


def placement_of(stage: BoundStage, windows: StepWindows, pad: Padding, *, scale: Scale, size: Size
                 ) -> WindowPlacement:  # fmt: skip
    """Where the pixels of a stage's vectors lie, for a tile.

    Args:
        stage: That makes them.
        windows: Of the tile.
        pad: Put around what the stage was given.
        scale: Of the stage.
        size: Width and height of the grid of the vectors.
    """
    return WindowPlacement(
        col_off=windows.makes.col_off - int(pad.left * scale.x),
        row_off=windows.makes.row_off - int(pad.top * scale.y),
        size=size,
        is_mirrored=any(_contract(stage, port).edge == "reflect" for port in stage.rasters),
    )


def stage_array(
    context: RunContext, stage: BoundStage, port: str, pixels: Pixels, pad: Padding | None = None
) -> np.ndarray:
    """The array (band, row, col) that an image port is given."""
    names = _contract(stage, port).band_names
    bands = picked_bands(context, str(stage.rasters[port]), names)
    picked = pixels.pick(bands)
    return np.ascontiguousarray(pad.apply(picked) if pad else picked)


def stage_reference(
    context: RunContext, stage: BoundStage, port: str, window: Window
) -> ImageReference | None:
    """The image by reference, where the port reads a scene; None where it does not."""
    name = str(stage.rasters[port])
    scene = scene_of(context, name)
    if scene is None:
        return None
    bands = picked_bands(context, name, _contract(stage, port).band_names)
    return ImageReference(href=scene.href, window=window, bands=bands)


def tile_info(context: RunContext, stage: BoundStage, read: Window, write: Window) -> TileInfo:
    """Where a call's pixels lie, in the grid of the stage's inputs."""
    first = str(next(iter(stage.rasters.values())))
    made = context.raster_type(first)
    scene = _first_scene(context)
    return TileInfo(
        read=read,
        write=write,
        scene_size=context.sizes[first],
        crs=scene.crs,
        transform=_scaled(scene, made.scale),
        nodata=made.nodata,
        tags=scene.tags,
    )


def typed(value: object, made: RasterType, *, name: str) -> np.ndarray:
    """An output, held to the type that the plan gave it: bands and dtype.

    What a contract leaves open is as in the stage's first image.

    Raises:
        ContractBroken: not an array (band, row, col), or of other bands or another dtype.
    """
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        got = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
        raise ContractBroken(f"{name} must be an array (band, row, col), got {got}")
    if made.bands is not None and value.shape[0] != len(made.bands):
        raise ContractBroken(
            f"{name} must have {len(made.bands)} bands, got {value.shape[0]}; what `bands` does "
            "not declare is as in the stage's first image"
        )
    if made.dtype and value.dtype.name not in made.dtype:
        raise ContractBroken(
            f"{name} must be {' or '.join(made.dtype)}, got {value.dtype.name}: convert it by "
            "`.astype`, or declare its `dtype` (undeclared is as in the stage's first image)"
        )
    return value


def trimmed(
    value: np.ndarray, windows: StepWindows, pad: Padding, *, scale: Scale, name: str
) -> Pixels:
    """The part of an output (band, row, col) that is right, its margin and padding cut off.

    Raises:
        ContractBroken: not the whole window it was given times its scale.
    """
    width, height = pad.grown(windows.read)
    expected = (int(height * scale.y), int(width * scale.x))
    if value.shape[1:] != expected:
        raise ContractBroken(
            f"{name} must have {expected[0]} rows and {expected[1]} columns (the whole window it "
            f"was given, margin included, times its scale), got {list(value.shape[1:])}"
        )
    top, left = int(pad.top * scale.y), int(pad.left * scale.x)
    made = windows.makes
    array = value[:, top : top + made.height, left : left + made.width]
    return Pixels(made, array).crop(windows.keep)


def written(windows: StepWindows, scale: Scale) -> Window:
    """The input pixels under what is kept of a call."""
    return covering_window(windows.keep, scale).intersection(windows.read)


def _contract(stage: BoundStage, name: str) -> RasterContract:
    port = stage.description.input(name)
    return port.raster if port is not None and port.raster is not None else RasterContract()


def _first_scene(context: RunContext) -> Scene:
    return next(iter(context.plan.scenes.values()))


def _scaled(scene: Scene, scale: Scale) -> tuple[float, float, float, float, float, float] | None:
    if scene.transform is None:
        return None
    return rescaled(scene.transform, float(scale.x), float(scale.y))


def _up(value: int, quantum: int) -> int:
    return -(-value // quantum) * quantum
