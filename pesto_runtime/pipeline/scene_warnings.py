"""Warn of scenes that a pipeline can read, but not as a stage needs them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from pesto_runtime.contract import Margin, Reference
from pesto_runtime.errors import BadField
from pesto_runtime.pipeline.types import RasterType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pesto_runtime.contract import Scene
    from pesto_runtime.pipeline.types import BoundStage


def scene_warnings(stages: Sequence[BoundStage], scenes: Mapping[str, Scene]) -> Iterator[BadField]:
    """Yield the warnings about the scenes of a pipeline.

    Args:
        stages: The stages without errors.
        scenes: Image input -> its scene, if the scene is known.
    """
    return chain(
        _place_warnings(scenes),
        _mask_warnings(stages, scenes),
        _window_warnings(stages, scenes),
        _fact_warnings(stages, scenes),
    )


def _place_warnings(scenes: Mapping[str, Scene]) -> Iterator[BadField]:
    for name, scene in scenes.items():
        if scene.crs is None and not scene.has_points:
            yield BadField(f"/inputs/{name}", f"{scene.href} has no CRS, so the outputs have none")
        if scene.unread:
            yield BadField(
                f"/inputs/{name}",
                f"{', '.join(scene.unread)} beside {scene.href} is not read, because the raster is "
                "remote: download both, or write these facts into the raster",
            )


def _window_warnings(
    stages: Sequence[BoundStage], scenes: Mapping[str, Scene]
) -> Iterator[BadField]:
    """Yield a warning for each scene that is cut where a stage needs pixels beyond the cut."""
    looks_far = next((stage.id for stage in stages if stage.description.margin != Margin()), None)
    for name, scene in scenes.items():
        window = scene.selection.window if scene.selection else None
        if looks_far and window is not None:
            yield BadField(
                f"/inputs/{name}",
                f"is cut to the window {list(window)}, and nothing beyond it is read: pixels in "
                f"the margin of stage {looks_far!r} differ from those of the whole scene",
            )


def _fact_warnings(stages: Sequence[BoundStage], scenes: Mapping[str, Scene]) -> Iterator[BadField]:
    """Yield a warning for each scene without the scale or the size that a stage needs."""
    for stage in stages:
        for port, reference in stage.rasters.items():
            scene = scenes.get(reference.port) if reference.is_input else None
            raster = getattr(stage.description.input(port), "raster", None)
            if scene is None or raster is None:
                continue
            if raster.scaled and not scene.values:
                yield BadField(
                    f"/inputs/{reference.port}",
                    f"{scene.href} states neither scale nor offset: stage {stage.id!r} takes "
                    "physical values, and receives its numbers as they are",
                )
            if raster.fill is not None:
                continue
            if scene.width % raster.align or scene.height % raster.align:
                yield BadField(
                    f"/inputs/{reference.port}",
                    f"{scene.width} x {scene.height} pixels are no multiples of align "
                    f"{raster.align} of stage {stage.id!r}: windows at the right and lower edge "
                    'are smaller; for a network that needs multiples, declare fill="reflect"',
                )


def _carries_mask(stage: BoundStage) -> bool:
    """Whether all outputs of a stage are images that inherit the mask of their scene."""
    return all(isinstance(made, RasterType) and made.mask for made in stage.makes.values())


def _mask_warnings(stages: Sequence[BoundStage], scenes: Mapping[str, Scene]) -> Iterator[BadField]:
    """Yield a warning for each scene with a mask that a stage does not take."""
    for name, scene in scenes.items():
        reference = Reference(owner="inputs", port=name)
        ignoring = [
            stage.id
            for stage in stages
            for port, bound in stage.rasters.items()
            if bound == reference
            and port not in {*stage.masks, *stage.masks.values()}
            and not _carries_mask(stage)
        ]
        if scene.has_mask and ignoring:
            kind = "an alpha band" if scene.validity == "alpha" else "a mask"
            yield BadField(
                f"/inputs/{name}",
                f"{scene.href} marks its valid pixels with {kind}, which stage {ignoring[0]!r} "
                "does not take: the other pixels are data to it; add a parameter `valid: "
                "Annotated[np.ndarray, Raster(mask=True)]` to its function",
            )
