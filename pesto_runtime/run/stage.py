"""Run one stage on tiles: prepare the inputs of a call, call it, cut its outputs.

What does not depend on the tile is computed once per chunk. `run/tile.py` has the chain of stages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pesto_runtime.contract.image_lists import list_of
from pesto_runtime.errors import PestoError, Unreachable
from pesto_runtime.pipeline import BoundStage, RasterType, VectorType
from pesto_runtime.run.callers import planned_caller
from pesto_runtime.run.features import Feature, read_features
from pesto_runtime.run.inputs import (
    images_of,
    placement_of,
    tile_info,
    trimmed,
    typed,
    write_window,
)
from pesto_runtime.run.tile_values import stage_scale
from pesto_runtime.tiling import StepWindows, scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pesto_runtime.contract import ImageReference, TileInfo, Window
    from pesto_runtime.run.callers import Caller
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.inputs import Pixels, Sources, StageImage
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.tiling import Size, Step

SENT_BYTES = 1 << 20
"""A window of at most so many bytes is sent to a service, and a larger one by reference.

A service opens the file for each reference, which takes 4 ms.
"""


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


@dataclass
class StageRunner:
    """Runs one stage on one tile after another; belongs to one thread.

    Attributes:
        context: The run.
        stage: The stage.
        step: Its geometry.
        size: Width and height of the grid of its inputs.
        sources: Reads pixels, and counts those that a service reads.
        parameters: Its JSON inputs.
        meter: Cost of its calls.
    """

    context: RunContext
    stage: BoundStage
    step: Step
    size: Size
    sources: Sources
    parameters: Mapping[str, object]
    meter: CostMeter

    def call(
        self,
        windows: StepWindows,
        read: Callable[[str], Pixels],
        own: Window | None = None,
    ) -> dict[str, object]:
        """Call the stage on a tile.

        Args:
            windows: The windows of the stage.
            read: Returns the pixels of a raster of the tile.
            own: The pixels of its grid that no other tile has; None without folded values.

        Returns:
            Output port -> array (band, row, col), features or JSON value, margin included.

        Raises:
            StageFailed: the call failed.
            RasterUnreadable: a source cannot be read.
        """
        caller, shown = self._caller, windows.read
        may_refer = caller.takes_references and self._whole.contains(shown)
        sources = self.step.read(self.size, self.context.sizes, shown)
        inputs: dict[str, object] = dict(self.parameters)
        references = self._references(shown) if may_refer else {}
        for image in self.images:
            reference = references.get(image.port)
            if reference is None:
                pixels = read(image.raster).crop(sources[image.raster])
                inputs[image.port] = image.array(pixels, image.own_window(shown))
            elif not image.is_made_mask:  # which the service makes from the image that it reads
                inputs[image.port] = reference
                self.sources.bytes_read += image.byte_count(image.own_window(shown))
        write = write_window(windows, self.step.scale)
        if own is None and self.stage.is_folded:  # of windows that are computed again
            own = write
        tile = self._tile_info(shown, write, own)
        try:
            with self.meter.call(self.stage.id):
                return caller.run(inputs, tile=tile)
        except PestoError as error:
            raise StageFailed(self.stage.id, error, is_remote=caller.is_remote) from error

    def own_pixels(self, tile: Window | None) -> Window | None:
        """Return the pixels of its grid in a tile; None without folded values."""
        if tile is None or not self.stage.is_folded:
            return None
        return scaled_window(tile, stage_scale(self.context, self.stage))

    def rasters(self, windows: StepWindows, outputs: Mapping[str, object]) -> dict[str, Pixels]:
        """Return reference -> pixels of each raster output of a call, without its margin.

        Raises:
            StageFailed: one does not fit its type in the plan, or its window.
        """
        found: dict[str, Pixels] = {}
        try:
            for port, name, planned in self._rasters:
                array = typed(outputs.get(port), planned, name=name)
                found[name] = trimmed(array, windows, scale=self.step.scale, name=name)
        except PestoError as error:
            raise StageFailed(self.stage.id, error) from error
        return found

    def features(
        self, windows: StepWindows, outputs: Mapping[str, object]
    ) -> dict[str, tuple[Feature, ...]]:
        """Return reference -> features of each vector output, moved into the scene's grid.

        Raises:
            StageFailed: one does not have the form of its contract.
        """
        found: dict[str, tuple[Feature, ...]] = {}
        try:
            for port, name in self._vectors:
                place = placement_of(self.stage, windows, size=self.context.sizes[name])
                contract = self.stage.description.output(port)
                geometries = contract.vector.geometry if contract and contract.vector else ()
                found[name] = read_features(
                    outputs.get(port), place, geometries=geometries, name=name
                )
        except PestoError as error:
            raise StageFailed(self.stage.id, error) from error
        return found

    def values(self, outputs: Mapping[str, object]) -> dict[str, object]:
        """Return reference -> value of each JSON output."""
        return {name: outputs.get(port) for port, name in self._values}

    def _references(self, shown: Window) -> dict[str, ImageReference]:
        """Return the windows that are sent by reference: those that are large, or in a long list.

        The images of a list are sent in one form, because their masks are.
        """
        sizes: Counter[str] = Counter()
        for image in self.images:
            sizes[list_of(image.port)] += image.byte_count(image.own_window(shown))
        found = {each.port: each.reference(each.own_window(shown)) for each in self.images
                 if sizes[list_of(each.port)] > SENT_BYTES}  # fmt: skip
        without = {list_of(port) for port, reference in found.items() if reference is None}
        return {port: each for port, each in found.items() if each and list_of(port) not in without}

    @cached_property
    def images(self) -> tuple[StageImage, ...]:
        """Its image inputs."""
        return images_of(self.context, self.stage)

    @cached_property
    def _rasters(self) -> tuple[tuple[str, str, RasterType], ...]:
        return tuple((port, self.stage.reference(port), planned)
                     for port, planned in self.stage.makes.items()
                     if isinstance(planned, RasterType))  # fmt: skip

    @cached_property
    def _vectors(self) -> tuple[tuple[str, str], ...]:
        return tuple((port, self.stage.reference(port))
                     for port, planned in self.stage.makes.items()
                     if isinstance(planned, VectorType))  # fmt: skip

    @cached_property
    def _values(self) -> tuple[tuple[str, str], ...]:
        return tuple((port, self.stage.reference(port))
                     for port, planned in self.stage.makes.items()
                     if not isinstance(planned, (RasterType, VectorType)))  # fmt: skip

    @cached_property
    def _caller(self) -> Caller:
        # `planned_caller` writes the service as JSON for its key, and takes a lock: once per chunk
        # is enough, because callers are closed only between chunks.
        return planned_caller(self.context.plan, self.stage.stage.process)

    @cached_property
    def _whole(self) -> Window:
        return whole(self.size)

    @cached_property
    def _first_tile(self) -> TileInfo:
        # Its facts of the scene are validated once: that takes as long as a small tile.
        return tile_info(self.context, self.stage, self._whole, self._whole)

    def _tile_info(self, read: Window, write: Window, own: Window | None) -> TileInfo:
        first = self._first_tile
        places = {"read": read, "write": write, "own": own, "tags": dict(first.tags)}
        return first.model_copy(update=places)
