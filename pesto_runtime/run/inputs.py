"""Prepare the inputs of one call of a stage, and cut its outputs to the pixels that are right.

Reads windows of rasters, selects bands, extends edges, and describes the tile. It does not call the
stage: `run/tile.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import (
    BandValues,
    ImageReference,
    RasterContract,
    Reference,
    Scale,
    Selection,
    TileInfo,
    Window,
    parse_binding,
)
from pesto_runtime.contract.band_files import stacked_bands
from pesto_runtime.errors import ContractBroken
from pesto_runtime.pipeline import RasterType, taken_type
from pesto_runtime.raster.filling import extended
from pesto_runtime.raster.image import dtype_name
from pesto_runtime.raster.scaling import physical
from pesto_runtime.raster.validity import valid_pixels
from pesto_runtime.run.context import RunContext, raster_name
from pesto_runtime.run.features import WindowPlacement
from pesto_runtime.run.readers import decoded_blocks, readers
from pesto_runtime.tiling import covering_window, scaled_size, scaled_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from pesto_runtime.contract import Scene
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.raster.block_cache import CellGrid
    from pesto_runtime.raster.read import RasterReader
    from pesto_runtime.tiling import Size, StepWindows


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a window of a raster.

    Attributes:
        window: The window in the raster's grid.
        array: (band, row, col).
        bands: 1-based numbers of the raster's bands in the array; None for all in order.
    """

    window: Window
    array: np.ndarray
    bands: tuple[int, ...] | None = None

    def crop(self, window: Window) -> Pixels:
        """Return the same bands of a window inside this one."""
        if window == self.window:
            return self
        rows, cols = window.relative_to(self.window).slices
        return Pixels(window, self.array[:, rows, cols], self.bands)

    def pick(self, bands: tuple[int, ...] | None) -> np.ndarray:
        """Return some of the bands as an array (band, row, col); None for all of the array."""
        if bands is None or bands == self.bands:
            return self.array
        present = self.bands or tuple(range(1, self.array.shape[0] + 1))
        positions = [present.index(number) for number in bands]
        if positions == list(range(self.array.shape[0])):
            return self.array
        return self.array[positions]


@dataclass
class Sources:
    """Reads the sources of a phase; belongs to one thread.

    Attributes:
        context: The run.
        bands: Raster -> 1-based numbers of the bands that stages need; absent for all.
        bytes_read: Bytes of pixels read so far.
        on_read: Receives the raster, the window and the array of each read.
    """

    context: RunContext
    bands: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bytes_read: int = 0
    on_read: Callable[[str, Window, np.ndarray], None] = lambda *_: None
    _places: dict[str, tuple[str, str, str, Selection | None]] = field(default_factory=dict)
    _grids: dict[str, CellGrid] = field(default_factory=dict)

    def read(self, name: str, window: Window) -> Pixels:
        """Read a window of a raster.

        Raises:
            RasterUnreadable: it cannot be read there.
            SceneChanged: it is opened, and is not the scene that was planned.
        """
        bands = self.bands.get(name)
        with self._reader(name) as reader:
            grid = self._grids.get(name) or self._grids.setdefault(name, reader.grid)
            if grid.is_aligned(window):
                array = reader.read(window, bands=bands)
            else:
                array = decoded_blocks.read(
                    (self.context.plan.run, name, bands),
                    grid,
                    window,
                    read=partial(reader.read, bands=bands),
                )
        self.bytes_read += array.nbytes
        self.on_read(name, window, array)
        return Pixels(window, array, bands)

    def _reader(self, name: str) -> AbstractContextManager[RasterReader]:
        """Use an open raster: a scene, or a mosaic of an earlier phase in the store."""
        if name not in self._places:
            scene = scene_of(self.context, name)
            href = scene.href if scene else self.context.store.href(raster_name(self.context, name))
            identity, selection = (scene.identity, scene.selection) if scene else ("", None)
            self._places[name] = (self.context.plan.run, href, identity, selection)
        return readers.reader(*self._places[name])


def dataset_mask(context: RunContext, name: str, window: Window) -> np.ndarray | None:
    """Read the mask of a raster, as a bool array (row, col); None without one.

    An intermediate raster has that of the scene from which it inherits.

    Raises:
        RasterUnreadable: it cannot be read there.
        SceneChanged: it is opened, and is not the scene that was planned.
    """
    source = context.raster_type(name).mask
    if not source:
        return None
    scene = context.plan.scenes[source]
    with readers.reader(context.plan.run, scene.href, scene.identity, scene.selection) as reader:
        return reader.mask(window)


def scene_of(context: RunContext, name: str) -> Scene | None:
    """Return the scene of a reference; None for an output of a stage."""
    reference = parse_binding(name)
    if isinstance(reference, Reference) and reference.is_input:
        return context.plan.scenes.get(reference.port)
    return None


def picked_bands(context: RunContext, stage: BoundStage, port: str) -> tuple[int, ...] | None:
    """Return the 1-based numbers of the bands that a port selects; None for all of them."""
    raster = context.raster_type(str(stage.rasters[port]))
    if raster.bands is None:
        return None
    return _contract(stage, port).pick(raster.bands, in_order=raster.in_order)


def placement_of(stage: BoundStage, windows: StepWindows, *, size: Size) -> WindowPlacement:
    """Return the place of a stage's vector coordinates in their grid, for one tile.

    Args:
        stage: The stage.
        windows: Its windows for the tile.
        size: Width and height of the grid of the vectors.
    """
    return WindowPlacement(
        col_off=windows.makes.col_off,
        row_off=windows.makes.row_off,
        size=size,
        is_extended=stage.description.is_extended,
    )


@dataclass(frozen=True)
class StageImage:
    """An image input of a stage; what does not depend on the tile is computed once.

    Attributes:
        context: The run.
        stage: The stage.
        port: The image port; for a mask that the runtime makes, that of the mask.
    """

    context: RunContext
    stage: BoundStage
    port: str

    @cached_property
    def raster(self) -> str:
        """The reference of the raster that is bound to the port."""
        return str(self.stage.rasters[self.port])

    @property
    def is_made_mask(self) -> bool:
        """Whether it is a mask that the runtime makes of the pixels of another port."""
        return self.port in self.stage.masks

    def array(self, pixels: Pixels, shown: Window | None = None) -> np.ndarray:
        """Return the array (band, row, col) for the port: bands selected, edges extended.

        Args:
            pixels: Pixels of the raster.
            shown: The window to return, which may extend beyond the raster; None for that of
                `pixels`.
        """
        bands, source = self._bands, self._source
        picked = pixels.pick(bands)
        if self.is_made_mask:
            nodata = self._contract.nodata if source.nodata is None else source.nodata
            mask = dataset_mask(self.context, self.raster, pixels.window)
            per_band = self.port in self.stage.description.band_masks
            picked = valid_pixels(picked, nodata=nodata, mask=mask, per_band=per_band)
        elif self._contract.scaled:
            picked_type = source.picked([number - 1 for number in bands]) if bands else source
            picked = physical(picked, picked_type.values, source.nodata)
        if shown is not None and shown != pixels.window:
            fill, size = (
                self.stage.description.fills.get(self.port),
                self.context.sizes[self.raster],
            )
            picked = extended(picked, pixels.window, shown, size=size, fill=fill)
        return np.ascontiguousarray(picked)

    def own_window(self, window: Window) -> Window:
        """Return the pixels of the raster that a read window of the stage has."""
        return scaled_window(window, self._ratio)

    @cached_property
    def _ratio(self) -> Scale:
        return self.stage.description.ratio(self.port)

    def byte_count(self, window: Window) -> int:
        """Return the bytes of the pixels of a window that the port receives, before `scaled`."""
        return window.pixels * self._pixel_bytes

    def reference(self, window: Window) -> ImageReference | None:
        """Return a window of the raster by reference, if it is a scene; None otherwise."""
        scene = self._scene
        # A service opens neither a scene of several files nor one of another driver.
        if scene is None or scene.driver or stacked_bands(scene.href):
            return None
        selection, contract = scene.selection or Selection(), self._contract
        numbers = selection.numbers(self._bands)
        # Numbers alone would be compared with the names in the file, which the selection replaces.
        is_renamed = selection.names is not None and contract.band_names is not None
        names = contract.band_names if is_renamed else None
        return ImageReference(
            href=scene.href,
            window=selection.moved(window),
            bands=numbers if names is None else dict(zip(names, numbers or (), strict=True)),
            identity=scene.identity or None,
        )

    @property
    def _image(self) -> str:
        """The port whose contract decides: that of the image, for a mask that the runtime makes."""
        return self.stage.masks.get(self.port, self.port)

    @cached_property
    def _contract(self) -> RasterContract:
        return _contract(self.stage, self._image)

    @cached_property
    def _source(self) -> RasterType:
        return self.context.raster_type(self.raster)

    @cached_property
    def _scene(self) -> Scene | None:
        return scene_of(self.context, self.raster)

    @cached_property
    def _bands(self) -> tuple[int, ...] | None:
        return picked_bands(self.context, self.stage, self._image)

    @cached_property
    def _pixel_bytes(self) -> int:
        count = len(self._bands or self._source.bands or (None,))
        return count * np.dtype(self._source.dtype[0] if self._source.dtype else "uint8").itemsize


def images_of(context: RunContext, stage: BoundStage) -> tuple[StageImage, ...]:
    """Return the image inputs of a stage, in the order of its ports."""
    return tuple(StageImage(context, stage, port) for port in stage.rasters)


def tile_info(context: RunContext, stage: BoundStage, read: Window, write: Window) -> TileInfo:
    """Describe the place of a call's pixels in the stage's grid."""
    port, first = next(iter(stage.rasters.items()))
    source = taken_type(context.raster_type(str(first)), _contract(stage, port))
    scene = context.plan.scenes[source.scene]
    place = context.place(source)
    values = source.values or (BandValues(),) * len(source.bands or ())
    return TileInfo(
        read=read,
        write=write,
        scene_size=scaled_size(context.sizes[str(first)], Scale() / stage.description.ratio(port)),
        crs=place.crs,
        transform=place.transform,
        nodata=source.nodata,
        tags=scene.tags,
        scales=tuple(each.scale for each in values),
        offsets=tuple(each.offset for each in values),
        units=tuple(each.unit for each in values),
    )


def typed(value: object, planned: RasterType, *, name: str) -> np.ndarray:
    """Check bands and dtype of a raster output against its type in the plan, and return it.

    Properties that the contract does not declare are those of the stage's first image.

    Raises:
        ContractBroken: not an array (band, row, col), or of other bands or another dtype.
    """
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        got = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
        raise ContractBroken(f"{name} must be an array (band, row, col), got {got}")
    if planned.bands is not None and value.shape[0] != len(planned.bands):
        raise ContractBroken(
            f"{name} must have {len(planned.bands)} bands, got {value.shape[0]}; undeclared "
            "`bands` are those of the stage's first image"
        )
    if planned.dtype and dtype_name(value.dtype) not in planned.dtype:
        raise ContractBroken(
            f"{name} must be {' or '.join(planned.dtype)}, got {value.dtype.name}: convert it by "
            "`.astype`, or declare its `dtype` (an undeclared one is that of the stage's first "
            "image)"
        )
    return value


def trimmed(value: np.ndarray, windows: StepWindows, *, scale: Scale, name: str) -> Pixels:
    """Cut margin and pixels beyond the scene off an output (band, row, col).

    Raises:
        ContractBroken: its size is not that of the input window times the scale.
    """
    expected = scaled_size((windows.read.width, windows.read.height), scale)[::-1]
    if value.shape[1:] != expected:
        raise ContractBroken(
            f"{name} must have {expected[0]} rows and {expected[1]} columns (the input window, "
            f"margin included, times the scale), got {list(value.shape[1:])}"
        )
    return Pixels(windows.makes, value).crop(windows.keep)


def write_window(windows: StepWindows, scale: Scale) -> Window:
    """Return the input pixels under the output of a call without its margin."""
    return covering_window(windows.keep, scale).intersection(windows.read)


def _contract(stage: BoundStage, name: str) -> RasterContract:
    port = stage.description.input(name)
    return port.raster if port is not None and port.raster is not None else RasterContract()
