"""Find the grids of images that are warped onto grids of their own, and refuse absurd warps.

Importing this file loads neither pixels nor network: see `planning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pesto_runtime.errors import InvalidInput
from pesto_runtime.pipeline import base_grids, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.contract import Grid, Scene
    from pesto_runtime.pipeline import BoundStage, Checked, RasterType
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


def require_warps(checked: Checked, scenes: Mapping[str, Scene], grids: Mapping[str, Grid]) -> None:
    """Require that each image that is warped onto the grid of `like` touches it, and its size.

    Args:
        checked: The result of a check with the scenes.
        scenes: Image inputs.
        grids: As `warped_grids` returns them.

    Raises:
        InvalidInput: an image is wholly outside, or `ratio` makes one that is empty or too large;
            with the stage and both images.
        GridMismatch: two scenes of a grid have not the same one.
    """
    warps = [each for each in checked.stages if each.is_warp and "like" in each.rasters]
    bases = base_grids(scenes, checked.types, grids) if warps else {}
    for stage in warps:
        image, like = str(stage.rasters["image"]), str(stage.rasters["like"])
        source, target, made = (
            place_of(cast("RasterType", checked.types[name]), bases, scenes, checked.types)
            for name in (image, like, stage.reference("image"))
        )
        _require_size(stage, like, target, made)
        _require_touch(f"stage {stage.id!r}", (image, source), (like, made))


def _require_size(stage: BoundStage, like: str, target: Grid, made: Grid) -> None:
    from pesto_runtime.raster.resampling import MOST_SIDE

    ratio = stage.literals.get("ratio", 1)
    if not (made.width and made.height) or (max(made.width, made.height) > MOST_SIDE
                                            and ratio != 1):  # fmt: skip
        raise InvalidInput(
            f"stage {stage.id!r}: `ratio` {ratio} makes {made.width} x {made.height} pixels of the "
            f"{target.width} x {target.height} of {like}: a warped image has 1 to {MOST_SIDE} "
            "pixels along a side"
        )


def _require_touch(where: str, source: tuple[str, Grid], target: tuple[str, Grid]) -> None:
    from pesto_runtime.raster.resampling import Warp

    if not _has_place(source[1], target[1]) or Warp(source[1], target[1], "nearest").touches():
        return  # images without a place are refused where they are warped
    found = [f"{name} ({_bounds(grid)})" for name, grid in (source, target)]
    raise InvalidInput(
        f"{where}: {found[0]} is wholly outside of {found[1]}, so that no pixel would have data: "
        "give images of one place, or an area (--aoi, --window) that both have"
    )


def _has_place(source: Grid, target: Grid) -> bool:
    has_transforms = source.transform is not None and target.transform is not None
    return has_transforms and (source.crs is None) == (target.crs is None)


def _bounds(grid: Grid) -> str:
    """Return west, south, east and north in degrees; else size and transform."""
    from pesto_runtime.raster.place import lonlat_of

    box = lonlat_of(grid)
    if box is None:
        return f"{grid.width} x {grid.height} pixels at {list(grid.transform or ())}"
    west, south, east, north = (f"{each:.6g}" for each in box)
    return f"longitude {west} to {east}, latitude {south} to {north}"
