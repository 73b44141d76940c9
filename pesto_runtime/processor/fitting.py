"""Extend the images of one call to a size that the process accepts, and trim its outputs.

A run gives each call windows of such a size, with the pixels of the scene around them. This file is
for a call of whole images outside a run: a scene rarely is a multiple of 32 pixels.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Margin, Scale, TileInfo, Window
from pesto_runtime.errors import AlgorithmFailed, BadField, InvalidInput
from pesto_runtime.pipeline import step_of
from pesto_runtime.processor.protocol import OwnedInputs
from pesto_runtime.processor.values import require_no_faults
from pesto_runtime.raster.filling import extended
from pesto_runtime.raster.validity import add_masks
from pesto_runtime.tiling import Size, Step, scaled_size, scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_runtime.contract import Description, Fill
    from pesto_runtime.processor.ports import PortSpec

_NOTHING = Window(0, 0, 0, 0)


@dataclass(frozen=True)
class FittedCall:
    """A call whose images have a size that the process accepts.

    Attributes:
        description: The contract of the process.
        inputs: The inputs, images extended.
        tile: Place of the images in the scene.
        size: Width and height of the first image before it was extended; None without images, or
            with images of other sizes than their ratios state, which are not extended.
        extent: The window of the images that the process receives; it may start before them.
    """

    description: Description
    inputs: Mapping[str, object]
    tile: TileInfo | None
    size: Size | None = None
    extent: Window = _NOTHING

    @classmethod
    def of(
        cls,
        description: Description,
        inputs: Mapping[str, object],
        tile: TileInfo | None,
        *,
        step: Step,
        is_mirrored: bool = False,
    ) -> FittedCall:
        """Add missing masks, and extend the images of a call as its contract states with `fill`.

        Args:
            description: The contract of the process.
            inputs: The inputs; images are arrays (band, row, col).
            tile: Place of the images in the scene; None for whole images.
            step: The geometry of the process.
            is_mirrored: Whether the images are mirrored by the margin on all sides, too.

        Raises:
            InvalidInput: the process takes one size of windows, and the images have another one.
        """
        if description.masks:
            made = add_masks(inputs, description, {})
            inputs = OwnedInputs(made) if isinstance(inputs, OwnedInputs) else made
        images = {
            port.name: value
            for port in description.image_inputs
            if isinstance(value := inputs.get(port.name), np.ndarray) and value.ndim == 3
        }
        if description.has_ratios:
            _require_ratios(description, images)
        sizes = {
            scaled_size((value.shape[2], value.shape[1]), Scale() / description.ratio(name))
            for name, value in images.items()
        }
        if len(sizes) != 1 or 0 in (size := sizes.pop()):
            return cls(description, inputs, tile)
        # What is mirrored around a scene belongs to the margin of tiles: a whole image has none.
        is_whole = not is_mirrored and step.mirror != Margin()
        extent = (replace(step, mirror=Margin()) if is_whole else step).extent(size)
        if step.is_fixed and step.least > 1 and extent[2:] != (step.least, step.least):
            raise InvalidInput(_other_size(description, step, size))
        if extent == whole(size):
            return cls(description, inputs, tile, size, extent)
        larger = {
            name: _extended(value, extent, description.ratio(name), description.fills[name])
            for name, value in images.items()
        }
        place = tile or TileInfo(read=whole(size), write=whole(size), scene_size=size)
        read = Window(
            place.read.col_off + extent.col_off,
            place.read.row_off + extent.row_off,
            extent.width,
            extent.height,
        )  # fmt: skip
        place = place.model_copy(update={"read": read})
        return cls(description, OwnedInputs({**inputs, **larger}), place, size, extent)

    def trimmed(self, outputs: Mapping[str, object]) -> dict[str, object]:
        """Return the outputs, images without the pixels that were added."""
        if self.size is None or self.extent == whole(self.size):
            return dict(outputs)
        scale = step_of(self.description).scale
        made = scaled_window(self.extent, scale)
        rows, cols = whole(scaled_size(self.size, scale)).relative_to(made).slices
        images = {port.name for port in self.description.outputs if port.kind == "image"}
        return {
            name: value[:, rows, cols]
            if name in images and isinstance(value, np.ndarray)
            else value
            for name, value in outputs.items()
        }

    @contextmanager
    def naming_fill(self) -> Iterator[None]:
        """Add a hint to an error of the process for images that are not aligned.

        Raises:
            AlgorithmFailed: the process failed.
        """
        try:
            yield
        except AlgorithmFailed as error:
            step = step_of(self.description)
            if self.size is None or not any(n % step.align for n in self.extent[2:]):
                raise
            raise AlgorithmFailed(
                f"{error.detail}; the images have {self.extent.height} rows and "
                f"{self.extent.width} columns, which are not multiples of align {step.align}, as "
                "at a scene's far edge: `fill` in the contract extends them"
            ) from error


def _extended(image: np.ndarray, extent: Window, ratio: Scale, fill: Fill) -> np.ndarray:
    """Return an image with the pixels beyond it; `extent` is in pixels of the first image."""
    size = (image.shape[2], image.shape[1])
    return extended(image, whole(size), scaled_window(extent, ratio), size=size, fill=fill)


def _require_ratios(description: Description, images: Mapping[str, np.ndarray]) -> None:
    """Require images whose sizes have the ratios of their ports.

    Raises:
        InvalidInput: an image has another size.
    """
    if not images:
        return
    first, image = next(iter(images.items()))
    cols, rows = image.shape[2], image.shape[1]
    faults = []
    for name, each in images.items():
        factor = description.ratio(name) / description.ratio(first)
        if (each.shape[2], each.shape[1]) != (cols * factor.x, rows * factor.y):
            faults.append(BadField(
                f"/{name}",
                f"has {each.shape[1]} rows and {each.shape[2]} columns, and {first!r} {rows} and "
                f"{cols}: its ratio is {description.ratio(name).to_json()}, so it must have "
                f"{float(rows * factor.y):g} rows and {float(cols * factor.x):g} columns",
            ))  # fmt: skip
    require_no_faults(description.name, faults)


def whole_tile(ports: tuple[PortSpec, ...], arguments: Mapping[str, object]) -> TileInfo:
    """Return the tile of a call without one: the whole array, as a whole scene."""
    for port in ports:
        pixels = arguments.get(port.name)
        if port.kind == "images" and isinstance(pixels, (list, tuple)) and pixels:
            pixels = pixels[0]
        if port.kind in ("image", "images") and not port.is_mask and isinstance(pixels, np.ndarray):
            _, height, width = pixels.shape
            window = Window(0, 0, width, height)
            return TileInfo(read=window, write=window, own=window, scene_size=(width, height))
    raise InvalidInput("a process that receives its tile requires an image")


def _other_size(description: Description, step: Step, size: Size) -> str:
    takes = f"{description.name} takes images of {step.least} x {step.least} pixels"
    if max(size) > step.least:
        return (
            f"{takes}, not {size[0]} x {size[1]}: run it as a stage of a pipeline (`pesto run`), "
            "which divides the image into tiles"
        )
    return f"{takes}, not {size[0]} x {size[1]}: `fill` in the contract extends smaller ones"
