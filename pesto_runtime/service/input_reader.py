"""Input values judged against the description, all faults at once, and images read."""

from __future__ import annotations

import binascii
import io
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jsonschema import Draft6Validator
from jsonschema.exceptions import best_match
from pydantic import ValidationError

from pesto_runtime.contract import ImageReference, Window, bad_fields
from pesto_runtime.errors import InvalidInput, PestoError, RasterUnreadable, TooLarge, shortened
from pesto_runtime.hrefs import looks_like_href
from pesto_runtime.processor import OwnedInputs
from pesto_runtime.raster.codec import decode_image
from pesto_runtime.raster.image import Bounds, Image, shifted
from pesto_runtime.raster.read import picked_for, read_for
from pesto_runtime.schema import surely_fits
from pesto_runtime.service.admission import Allowance
from pesto_runtime.service.request import LongText, RawImage
from pesto_runtime.service.roi import parse_roi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from mmap import mmap

    from jsonschema.exceptions import ValidationError as SchemaFault
    from pydantic import JsonValue

    PickWindow = Callable[[int, int], Window]
    from collections.abc import Mapping

    from pesto_runtime.contract import Description, Port, RasterContract, TileInfo
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.problems import Faults
    from pesto_runtime.service.request import InputValue, ParsedRequest
    from pesto_runtime.service.roi import RegionOfInterest


_SLICE_CHARS = 1 << 20  # a multiple of 4, so that every slice is base64 of its own
_FORMS = "an image is base64, a URI, or an object {href, window, bands}"


@dataclass(frozen=True)
class ImageLoader:
    """Reads images for one service.

    Attributes:
        gate: What hrefs pass.
        bounds: Of one image.
    """

    gate: Gate
    bounds: Bounds

    def load(
        self,
        value: InputValue,
        contract: RasterContract | None,
        *,
        pick_window: PickWindow | None = None,
    ) -> Image:
        """Read an image, its bands picked as the port names them.

        Args:
            value: base64, a URI, a reference object, or a raw body.
            contract: The port's; None for any image.
            pick_window: Called with width and height: which window is wanted; None for all.

        Raises:
            HrefRefused: the gate does not admit the href.
            RasterUnreadable: no image, or a broken one.
            TooLarge: over the bounds.
            InvalidInput: not a form of image, or not what the port takes.
        """
        if isinstance(value, RawImage):
            image = self._decoded(value.data, contract, media_type=value.media_type)
        elif isinstance(value, dict):
            image = self._referred(_reference(value), contract, pick_window)
            pick_window = None
        elif isinstance(value, str) and looks_like_href(value):
            image = self._referred(ImageReference(href=value), contract, pick_window)
            pick_window = None
        elif isinstance(value, str):
            image = self._decoded(_from_base64(_sliced(value), value), contract)
        elif isinstance(value, LongText):
            image = self._decoded(_from_base64(value.consumed(), value.begins), contract)
        else:
            raise InvalidInput(f"must be an image; {_FORMS}")
        if pick_window is not None:
            image = _cropped(image, pick_window(image.pixels.shape[2], image.pixels.shape[1]))
        _require_fit(image, contract)
        return image

    def _decoded(
        self, data: bytes | mmap, contract: RasterContract | None, *, media_type: str | None = None
    ) -> Image:
        image = decode_image(data, media_type=media_type, bounds=self.bounds)
        return picked_for(image, contract)

    def _referred(
        self,
        reference: ImageReference,
        contract: RasterContract | None,
        pick_window: PickWindow | None,
    ) -> Image:
        return read_for(
            self.gate.admit_read(reference.href),
            contract,
            window=reference.window,
            bands=reference.bands,
            pick_window=pick_window,
            bounds=self.bounds,
        )


def _reference(value: dict[str, JsonValue]) -> ImageReference:
    try:
        return ImageReference.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(_FORMS, fields=bad_fields(error, value=value)) from error


def _sliced(text: str) -> Iterator[bytes]:
    """Base64 in slices, without the line ends that may be in it."""
    packed = text.translate({10: None, 13: None}) if "\n" in text or "\r" in text else text
    for at in range(0, len(packed), _SLICE_CHARS):
        yield packed[at : at + _SLICE_CHARS].encode()


def _from_base64(slices: Iterable[bytes], text: str) -> bytes:
    """Decode slice by slice: between two of them other threads get a word in."""
    decoded, is_padded = io.BytesIO(), False  # gives its bytes away without copying them
    try:
        for each in slices:
            if is_padded:
                raise RasterUnreadable(
                    f"{shortened(text)} is neither base64 (it is padded inside) nor a URI"
                )
            decoded.write(binascii.a2b_base64(each, strict_mode=True))
            is_padded = each.endswith(b"=")
    except ValueError as error:
        raise RasterUnreadable(
            f"{shortened(text)} is neither base64 ({error}) nor a URI such as file:///data/a.tif"
        ) from error
    return decoded.getvalue()


def _cropped(image: Image, window: Window) -> Image:
    rows, cols = window.slices
    moved = image.transform and shifted(image.transform, window.col_off, window.row_off)
    return replace(image, pixels=image.pixels[:, rows, cols], transform=moved)


def _require_fit(image: Image, contract: RasterContract | None) -> None:
    if contract is None:
        return
    found, dtype = len(image.pixels), image.pixels.dtype.name
    if contract.band_count not in (None, found):
        wanted = ", ".join(contract.band_names or ()) or "unnamed"
        raise InvalidInput(f"has {found} bands; {contract.band_count} are taken: {wanted}")
    if contract.dtype and dtype not in contract.dtype:
        raise InvalidInput(f"has dtype {dtype}; {' or '.join(contract.dtype)} is taken")


_IMAGES = ("image", "images")


@dataclass(frozen=True)
class RequestInputs:
    """What the processor is called with.

    Attributes:
        values: Input name -> array (band, row, col), list of them, or JSON value; given away
            to whoever runs them.
        tile: Where the pixels lie: the caller's, else that of the first image.
        first: What is known of the first image input, without its pixels; None for none.
        roi: PESTO's own window option.
    """

    values: OwnedInputs
    tile: TileInfo | None
    first: Image | None
    roi: RegionOfInterest | None


class InputReader:
    """Reads the inputs of one process; its schema is compiled once."""

    def __init__(
        self, description: Description, loader: ImageLoader, *, together: Bounds | None = None
    ) -> None:
        """Compile the description's schema, images left out: they are judged by being read.

        Args:
            description: Of the process.
            loader: Reads images, each within its bounds.
            together: Bounds of all images of a request; None for none.
        """
        self._together = together
        self._description = description
        self._loader = loader
        self._images = [port for port in description.inputs if port.kind in _IMAGES]
        self._image_names = {port.name for port in self._images}
        schema = _schema_of_others(description)
        self._validator, self._surely_fits = Draft6Validator(schema), surely_fits(schema)

    def read(self, call: ParsedRequest, faults: Faults) -> RequestInputs:
        """Validate all, read all images; what was wrong before is told with what is wrong here.

        Raises:
            InvalidInput: with a field for each fault; where all faults are of one other kind
                (`HrefRefused`, `RasterUnreadable`, `TooLarge`), that kind.
        """
        roi = self._roi(call, faults)
        known = _known(self._description, call.values)
        self._judge(known, faults)
        allowance = Allowance(self._loader.bounds, self._together)
        images: dict[str, list[Image]] = {}
        for port in self._images:
            if port.name in known:
                pick = roi.window if roi is not None and port.name in roi.target_in else None
                read = partial(self._read, allowance, port.raster, pick_window=pick)
                images[port.name] = _several(port, known[port.name], read, faults)
        first = next((image for several in images.values() for image in several), None)
        _judge_tile(call.options.tile, first, faults)
        faults.raise_any(f"inputs of {self._description.name!r}")
        arrays = {port.name: _arrays(port, images) for port in self._images if port.name in images}
        tile = call.options.tile or (None if first is None else first.whole_tile)
        about = None if first is None else _without_pixels(first)
        return RequestInputs(OwnedInputs({**known, **arrays}), tile, about, roi)

    def _roi(self, call: ParsedRequest, faults: Faults) -> RegionOfInterest | None:
        try:
            return parse_roi(call.options.roi, self._description)
        except InvalidInput as error:
            faults.add_error("", error)
            return None

    def _judge(self, known: Mapping[str, InputValue], faults: Faults) -> None:
        for port in self._description.inputs:
            if port.required and port.name not in known:
                faults.add(f"/{port.name}", f"is required; {_wanted(port)}")
        others = {name: known[name] for name in known if name not in self._image_names}
        if self._surely_fits(others):
            return
        for error in self._validator.iter_errors(known):
            inner = best_match([error]) or error  # of an anyOf, what is wrong with the nearest
            pointer = "".join(f"/{_escaped(str(part))}" for part in inner.absolute_path)
            faults.add(pointer, _told(inner), inner.instance)

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
            raise TooLarge(f"{error.detail}{allowance.told}") from error
        allowance.take(image)
        return image


def _several(
    port: Port, value: InputValue, read: Callable[[InputValue], Image], faults: Faults
) -> list[Image]:
    """The images of one input; what is wrong with any goes to the faults."""
    if port.kind == "images" and not isinstance(value, list):
        faults.add(f"/{port.name}", "must be a list of images", value)
        return []
    found = []
    is_list = port.kind == "images" and isinstance(value, list)
    for index, each in enumerate(value if is_list else [value]):  # type: ignore[arg-type]  # it is one
        pointer = f"/{port.name}" + (f"/{index}" if port.kind == "images" else "")
        try:
            found.append(read(each))
        except PestoError as error:
            faults.add_error(pointer, error, _shown(each))
    return found


def _shown(value: InputValue) -> object:
    if isinstance(value, LongText):
        return value.begins
    return value.media_type if isinstance(value, RawImage) else value


def _known(description: Description, values: Mapping[str, InputValue]) -> dict[str, InputValue]:
    """Values of inputs; others are ignored as PESTO does, and so is null for an optional image."""
    return {
        port.name: values[port.name]
        for port in description.inputs
        if port.name in values
        and (values[port.name] is not None or port.required or port.kind not in _IMAGES)
    }


def _schema_of_others(description: Description) -> dict[str, JsonValue]:
    schema = dict(description.known.input)
    properties = schema.get("properties")
    kept = dict(properties) if isinstance(properties, dict) else {}
    for port in description.inputs:
        if port.kind in _IMAGES:
            kept.pop(port.name, None)
    schema.pop("required", None)
    schema.pop("additionalProperties", None)
    return {**schema, "properties": kept}


def _wanted(port: Port) -> str:
    if port.kind in _IMAGES:
        return f"it takes {'an image' if port.kind == 'image' else 'a list of images'}"
    return f"it takes {shortened(dict(port.schema))}"


def _told(error: SchemaFault) -> str:
    """Say what is allowed; jsonschema's own words hold the whole value."""
    limit = shortened(error.validator_value)
    if error.validator == "required":
        return error.message.removesuffix(" property")
    words = {
        "type": "must be of type",
        "enum": "must be one of",
        "minimum": "must be at least",
        "maximum": "must be at most",
        "maxLength": "must have at most this many characters:",
        "minLength": "must have at least this many characters:",
    }
    return f"{words.get(str(error.validator), f'breaks {error.validator!r}:')} {limit}"


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _judge_tile(tile: TileInfo | None, first: Image | None, faults: Faults) -> None:
    if tile is None or first is None:
        return
    _, height, width = first.pixels.shape
    if (tile.read.width, tile.read.height) != (width, height):
        faults.add(
            "/pesto/tile/read",
            f"is {tile.read.width} x {tile.read.height} pixels, but the first image {width} x "
            f"{height} (width x height)",
            list(tile.read),
        )


def _arrays(port: Port, images: Mapping[str, list[Image]]) -> np.ndarray | list[np.ndarray]:
    found = [np.ascontiguousarray(image.pixels) for image in images[port.name]]
    return found if port.kind == "images" else found[0]


def _without_pixels(image: Image) -> Image:
    """All but the pixels, whose memory goes with the arrays that were given away."""
    return replace(image, pixels=np.empty((len(image.pixels), 0, 0), image.pixels.dtype))
