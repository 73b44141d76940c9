"""Validate the inputs of a request, collect all faults, read its images.

How an image is read is in `image_loader`, other values are validated in `input_values`; parsing of
the body comes before, in `request`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import IMAGE_KINDS
from pesto_runtime.errors import InvalidInput, PestoError, SceneChanged, TooLarge
from pesto_runtime.processor import OwnedInputs
from pesto_runtime.raster.validity import add_masks, named_images
from pesto_runtime.service.image_loader import Allowance, parse_roi
from pesto_runtime.service.input_values import ValueValidator, known_values
from pesto_runtime.service.long_texts import LongText
from pesto_runtime.service.request import RawImage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pesto_runtime.contract import Description, Port, RasterContract, TileInfo
    from pesto_runtime.raster.image import Bounds, Image
    from pesto_runtime.service.image_loader import ImageLoader, PickWindow, RegionOfInterest
    from pesto_runtime.service.request import Faults, InputValue, ParsedRequest


@dataclass(frozen=True)
class RequestInputs:
    """The inputs of one call of the processor.

    Attributes:
        values: Input name -> array (band, row, col), list of them, or JSON value; emptied by the
            code that runs the call, to free their memory.
        tile: Place of the pixels: from the request, else from the first image.
        first: The first image input without its pixels, with the place of `tile`; None without
            image inputs.
        roi: PESTO's option `roi`.
    """

    values: OwnedInputs
    tile: TileInfo | None
    first: Image | None
    roi: RegionOfInterest | None


class InputReader:
    """Reads the inputs of one process; its schema is compiled once."""

    def __init__(
        self, description: Description, loader: ImageLoader, *, request_bounds: Bounds | None = None
    ) -> None:
        """Compile the schema of the description, without images: reading them validates them.

        Args:
            description: Of the process.
            loader: Reads images, each within its bounds.
            request_bounds: Bounds of all images of a request; None for none.
        """
        self._request_bounds = request_bounds
        self._description = description
        self._loader = loader
        self._images = [port for port in description.inputs if port.kind in IMAGE_KINDS]
        self._image_names = frozenset(port.name for port in self._images)
        self._values = ValueValidator(description)

    def read(self, call: ParsedRequest, faults: Faults) -> RequestInputs:
        """Validate all inputs and read all images.

        Raises:
            InvalidInput: with a field for each fault, those in `faults` included; if all faults
                are of one other class (`HrefRefused`, `RasterUnreadable`, `TooLarge`), that class.
        """
        roi = self._roi(call, faults)
        known = known_values(self._description, call.values)
        self._values.validate(known, faults)
        if self._image_names.isdisjoint(known):
            faults.raise_any(f"inputs of {self._description.name!r}")
            return RequestInputs(OwnedInputs(known), call.options.tile, None, roi)
        allowance = Allowance(self._loader.bounds, self._request_bounds)
        images: dict[str, list[Image]] = {}
        for port in self._images:
            if port.name in known:
                pick = roi.window if roi is not None and port.name in roi.target_in else None
                read = partial(self._read, allowance, port.raster, pick_window=pick)
                images[port.name] = _read_images(port, known[port.name], read, faults)
        masks = self._description.masks
        data = {name: several for name, several in images.items() if name not in masks}
        first = next((image for several in data.values() for image in several), None)
        _check_tile(call.options.tile, first, faults)
        faults.raise_any(f"inputs of {self._description.name!r}")
        arrays = {port.name: _arrays(port, images) for port in self._images if port.name in images}
        tile = call.options.tile or (None if first is None else first.whole_tile)
        header = None if first is None else _header(first, call.options.tile)
        named = named_images(self._description, images)
        values = add_masks({**known, **arrays}, self._description, named)
        return RequestInputs(OwnedInputs(values), tile, header, roi)

    def _roi(self, call: ParsedRequest, faults: Faults) -> RegionOfInterest | None:
        try:
            return parse_roi(call.options.roi, self._description)
        except InvalidInput as error:
            faults.add_error("", error)
            return None

    def _read(
        self,
        allowance: Allowance,
        contract: RasterContract | None,
        value: InputValue,
        *,
        pick_window: PickWindow | None,
    ) -> Image:
        loader = replace(self._loader, bounds=allowance.bounds)
        try:
            image = loader.load(value, contract, pick_window=pick_window)
        except TooLarge as error:
            raise TooLarge(f"{error.detail}{allowance.used}") from error
        allowance.add(image)
        return image


def _read_images(
    port: Port, value: InputValue, read: Callable[[InputValue], Image], faults: Faults
) -> list[Image]:
    """Read the images of one input; errors are added to the faults."""
    if port.kind == "images" and not isinstance(value, list):
        faults.add(f"/{port.name}", "must be a list of images", value)
        return []
    images = []
    is_list = port.kind == "images" and isinstance(value, list)
    for index, each in enumerate(value if is_list else [value]):  # type: ignore[arg-type]  # it is one
        pointer = f"/{port.name}" + (f"/{index}" if port.kind == "images" else "")
        try:
            images.append(read(each))
        except SceneChanged:  # no fault of the request: never mixed with others into another kind
            raise
        except PestoError as error:
            faults.add_error(pointer, error, _shown(each))
    return images


def _shown(value: InputValue) -> object:
    if isinstance(value, LongText):
        return value.begins
    return value.media_type if isinstance(value, RawImage) else value


def _check_tile(tile: TileInfo | None, first: Image | None, faults: Faults) -> None:
    if tile is None or first is None:
        return
    _, height, width = first.pixels.shape
    if (tile.read.width, tile.read.height) != (width, height):
        faults.add(
            "/pesto/tile/read",
            f"is {tile.read.width} x {tile.read.height} pixels, but the first image has {width} x "
            f"{height} (width x height)",
            list(tile.read),
        )


def _arrays(port: Port, images: Mapping[str, list[Image]]) -> np.ndarray | list[np.ndarray]:
    arrays = [np.ascontiguousarray(image.pixels) for image in images[port.name]]
    return arrays if port.kind == "images" else arrays[0]


def _header(image: Image, tile: TileInfo | None) -> Image:
    """Return the image without pixels, so that it does not prevent the release of their memory."""
    from pesto_runtime.raster.inheritance import with_facts_of

    pixels = np.empty((len(image.pixels), 0, 0), image.pixels.dtype)
    header = replace(image, pixels=pixels)
    return header if tile is None else with_facts_of(header, tile)
