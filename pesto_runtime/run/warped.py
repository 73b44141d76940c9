"""Run a stage of the process `warp` on tiles: it reads the windows of its source itself."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, cast

from pesto_runtime.contract import Window
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.raster.resampling import Warp
from pesto_runtime.raster.validity import valid_pixels
from pesto_runtime.run.inputs import dataset_mask
from pesto_runtime.run.stage import StageFailed, StageRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.contract import Grid
    from pesto_runtime.pipeline import BoundStage, RasterType
    from pesto_runtime.raster.resampling import Resampling
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.inputs import Pixels, StageImage
    from pesto_runtime.tiling import StepWindows


class WarpRunner(StageRunner):
    """Resamples the image of a stage for one tile after another; belongs to one thread."""

    @property
    def images(self) -> tuple[StageImage, ...]:
        """No window of the tile's chain: the source has another grid."""
        return ()

    def call(
        self,
        windows: StepWindows,
        read: Callable[[str], Pixels],  # noqa: ARG002  # as of any stage
        own: Window | None = None,  # noqa: ARG002  # as of any stage
    ) -> dict[str, object]:
        """Resample one tile.

        Args:
            windows: The windows of the stage.
            read: Not used.
            own: Not used.

        Returns:
            `image` -> array (band, row, col).

        Raises:
            StageFailed: an image has no place on Earth.
            RasterUnreadable: the source cannot be read.
        """
        try:
            warp = self._warp
        except PestoError as error:
            raise StageFailed(self.stage.id, error) from error
        with self.meter.call(self.stage.id):
            places = warp.places(windows.read)
            window = warp.source_window(places)
        source, nodata = self._source, self._made.nodata
        if not window.pixels:  # of a source that the tile does not touch
            window = Window(0, 0, 1, 1)
        pixels = self.sources.read(str(self.stage.rasters["image"]), window).array
        with self.meter.call(self.stage.id):
            mask = dataset_mask(self.context, str(self.stage.rasters["image"]), window)
            valid = valid_pixels(pixels, nodata=source.nodata, mask=mask, per_band=True)
            made = warp.resampled(
                pixels, valid.astype(bool), window, places, nodata=cast("float", nodata)
            )
        return {"image": made}

    @cached_property
    def _source(self) -> RasterType:
        return self.context.raster_type(str(self.stage.rasters["image"]))

    @cached_property
    def _made(self) -> RasterType:
        return self.context.raster_type(self.stage.reference("image"))

    @cached_property
    def _warp(self) -> Warp:
        return warp_of(self.context, self.stage)


def warp_of(context: RunContext, stage: BoundStage) -> Warp:
    """Return the places of the pixels of a warped image in its source.

    Raises:
        InvalidInput: one of both has no transform, or only one a CRS.
    """
    source = context.place(context.raster_type(str(stage.rasters["image"])))
    target = context.place(context.raster_type(stage.reference("image")))
    _require_places(str(stage.rasters["image"]), source, target)
    stated = context.parameters(stage).get("resampling")
    return Warp(source, target, cast("Resampling", stated or "nearest"))


def _require_places(image: str, source: Grid, target: Grid) -> None:
    if source.transform is None or target.transform is None:
        raise InvalidInput(f"{image} cannot be warped: it or the image of `like` has no transform")
    if (source.crs is None) != (target.crs is None):
        raise InvalidInput(f"{image} cannot be warped: it or the image of `like` has no CRS")
