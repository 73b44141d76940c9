"""Validate the inputs of a request against the description, collect all faults, read its images.

How an image is read is in `image_loader`; parsing of the body comes before, in `request`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jsonschema import Draft6Validator
from jsonschema.exceptions import best_match

from pesto_runtime.errors import InvalidInput, PestoError, SceneChanged, TooLarge, shortened
from pesto_runtime.processor import OwnedInputs
from pesto_runtime.schema import main_errors, surely_fits
from pesto_runtime.service.image_loader import Allowance, parse_roi
from pesto_runtime.service.long_texts import LongText
from pesto_runtime.service.request import RawImage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jsonschema.exceptions import ValidationError as SchemaFault
    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port, RasterContract, TileInfo
    from pesto_runtime.raster.image import Bounds, Image
    from pesto_runtime.service.image_loader import ImageLoader, PickWindow, RegionOfInterest
    from pesto_runtime.service.request import Faults, InputValue, ParsedRequest


_IMAGES = ("image", "images")


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
        self._images = [port for port in description.inputs if port.kind in _IMAGES]
        self._image_names = {port.name for port in self._images}
        schema = _schema_of_others(description)
        self._validator, self._surely_fits = Draft6Validator(schema), surely_fits(schema)

    def read(self, call: ParsedRequest, faults: Faults) -> RequestInputs:
        """Validate all inputs and read all images.

        Raises:
            InvalidInput: with a field for each fault, those in `faults` included; if all faults
                are of one other class (`HrefRefused`, `RasterUnreadable`, `TooLarge`), that class.
        """
        roi = self._roi(call, faults)
        known = _known(self._description, call.values)
        self._validate(known, faults)
        allowance = Allowance(self._loader.bounds, self._request_bounds)
        images: dict[str, list[Image]] = {}
        for port in self._images:
            if port.name in known:
                pick = roi.window if roi is not None and port.name in roi.target_in else None
                read = partial(self._read, allowance, port.raster, pick_window=pick)
                images[port.name] = _read_images(port, known[port.name], read, faults)
        first = next((image for several in images.values() for image in several), None)
        _check_tile(call.options.tile, first, faults)
        faults.raise_any(f"inputs of {self._description.name!r}")
        arrays = {port.name: _arrays(port, images) for port in self._images if port.name in images}
        tile = call.options.tile or (None if first is None else first.whole_tile)
        header = None if first is None else _header(first, call.options.tile)
        return RequestInputs(OwnedInputs({**known, **arrays}), tile, header, roi)

    def _roi(self, call: ParsedRequest, faults: Faults) -> RegionOfInterest | None:
        try:
            return parse_roi(call.options.roi, self._description)
        except InvalidInput as error:
            faults.add_error("", error)
            return None

    def _validate(self, known: Mapping[str, InputValue], faults: Faults) -> None:
        for port in self._description.inputs:
            if port.required and port.name not in known:
                faults.add(f"/{port.name}", f"is required; {_expected(port)}")
        others = {name: known[name] for name in known if name not in self._image_names}
        if self._surely_fits(others):
            return
        errors = list(self._validator.iter_errors(known))
        found = [best_match([each]) or each for each in errors]  # of the nearest branch of an anyOf
        for inner in main_errors(found):
            pointer = "".join(f"/{_escaped(str(part))}" for part in inner.absolute_path)
            faults.add(pointer, _validation_message(inner), inner.instance)

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


def _known(description: Description, values: Mapping[str, InputValue]) -> dict[str, InputValue]:
    """Select the values of inputs; as PESTO, ignore others, and null for an optional image."""
    return {
        port.name: values[port.name]
        for port in description.inputs
        if port.name in values
        and (values[port.name] is not None or port.required or port.kind not in _IMAGES)
    }


def _schema_of_others(description: Description) -> dict[str, JsonValue]:
    schema = dict(description.known.input)
    properties = schema.get("properties")
    others = dict(properties) if isinstance(properties, dict) else {}
    for port in description.inputs:
        if port.kind in _IMAGES:
            others.pop(port.name, None)
    schema.pop("required", None)
    schema.pop("additionalProperties", None)
    return {**schema, "properties": others}


def _expected(port: Port) -> str:
    if port.kind in _IMAGES:
        return f"it must be {'an image' if port.kind == 'image' else 'a list of images'}"
    return f"it must match {shortened(dict(port.schema))}"


def _validation_message(error: SchemaFault) -> str:
    # jsonschema's message contains the whole value, which may have megabytes.
    limit = shortened(error.validator_value)
    if error.validator == "required":
        return error.message.removesuffix(" property")
    phrases = {
        "type": "must be of type",
        "enum": "must be one of",
        "minimum": "must be at least",
        "maximum": "must be at most",
        "maxLength": "must have at most this many characters:",
        "minLength": "must have at least this many characters:",
    }
    return f"{phrases.get(str(error.validator), f'violates {error.validator!r}:')} {limit}"


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


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

    header = replace(image, pixels=np.empty((len(image.pixels), 0, 0), image.pixels.dtype))
    return header if tile is None else with_facts_of(header, tile)
