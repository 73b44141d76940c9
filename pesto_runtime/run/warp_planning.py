"""Find the grids of images that are warped onto grids of their own, when a run is planned.

Importing this file loads neither pixels nor network: see `planning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pesto_runtime.errors import InvalidInput
from pesto_runtime.pipeline import base_grids, place_of

if TYPE_CHECKING:
    from pesto_runtime.contract import Grid
    from pesto_runtime.pipeline import Checked, RasterType
    from pesto_runtime.run.pipeline_inputs import PipelineInputs


def warped_grids(checked: Checked, inputs: PipelineInputs) -> dict[str, Grid]:
    """Return the grid of each image of a warp that states its own.

    Args:
        checked: The result of a check with the inputs.
        inputs: Scenes and parameters.

    Raises:
        InvalidInput: a CRS is not known, or an image has no place; with the stage.
    """
    from pesto_runtime.raster.resampling import target_grid  # loads rasterio

    grids: dict[str, Grid] = {}
    for stage in (each for each in checked.stages if each.is_warp and "like" not in each.rasters):
        values = {n: inputs.parameters.get(reference.port) for n, reference in stage.values.items()}
        stated = {**stage.literals, **values}
        source = checked.types[str(stage.rasters["image"])]
        bases = base_grids(inputs.scenes, checked.types, grids)
        crs, resolution = stated.get("crs"), stated.get("resolution")
        try:
            grids[stage.reference("image")] = target_grid(
                place_of(cast("RasterType", source), bases, inputs.scenes, checked.types),
                crs=str(crs) if crs is not None else None,
                resolution=float(str(resolution)) if resolution is not None else None,
            )
        except InvalidInput as error:
            raise InvalidInput(
                f"stage {stage.id!r}: {stage.rasters['image']} {error.detail}"
            ) from error
    return grids
