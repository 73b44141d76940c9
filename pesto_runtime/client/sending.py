"""Write a call as an HTTP request, each image in the cheapest form that both sides can use.

That is a reference, or else a binary body or a form with binary parts, or else base64. Measured on
640 x 640 x 4 uint16: .npy is encoded in 5 ms and decoded in 0.1 ms, GeoTIFF (deflate) in 23 and
12 ms, so .npy is used if only the pixels are needed. Nothing is sent from here.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode

import numpy as np

from pesto_runtime.client.multipart import FORM_TYPE, Part, write_parts
from pesto_runtime.client.steps import Request
from pesto_runtime.contract import ImageReference, TileInfo
from pesto_runtime.contract.image_lists import gathered
from pesto_runtime.errors import BadField, InvalidInput, shortened
from pesto_runtime.hrefs import image_reference, looks_like_href
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.identity import unchanged
from pesto_runtime.raster.image import Image
from pesto_runtime.raster.picking import taken_for
from pesto_runtime.raster.read import read_for
from pesto_runtime.raster.validity import add_masks, named_images
from pesto_runtime.schema import typed_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, References
    from pesto_runtime.contract import Description, Port

NPY = "application/x-npy"
TIFF = "image/tiff"
JSON = "application/json"
_QUERY_CHARS = 7000
"""Longest encoded query: proxies accept a request line of 8 KiB."""

Sent: TypeAlias = "Image | ImageReference | str"


@dataclass(frozen=True)
class OutgoingCall:
    """One call, before it is encoded as an HTTP request.

    Attributes:
        inputs: Input name -> array (band, row, col), `Image`, `ImageReference` or JSON value.
        tile: Position of the arrays in the scene.
        out: Output name -> href for the service to write to.
        partial: Request the partial of a reduce.
        finish: A merged partial, as JSON, of which a reduce computes its outputs.
        accept: `image/tiff` to receive images as `Image`, with their georeference.
    """

    inputs: Mapping[str, object]
    tile: TileInfo | None = None
    out: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False
    finish: Mapping[str, JsonValue] | None = None
    accept: str | None = None

    @property
    def options(self) -> dict[str, JsonValue]:
        """The value of the reserved key `pesto`."""
        options: dict[str, JsonValue] = {}
        if self.tile is not None:
            options["tile"] = self.tile.model_dump(mode="json")
        if self.out:
            options["out"] = dict(self.out)
        if self.partial:
            options["partial"] = True
        if self.finish is not None:
            options["finish"] = dict(self.finish)
        return options


@dataclass(frozen=True)
class EncodedCall:
    """A call whose images have the form in which they are sent.

    Attributes:
        call: The call.
        images: Input name -> image, or list of images.
        others: The other inputs.
    """

    call: OutgoingCall
    images: Mapping[str, Sent | list[Sent]]
    others: Mapping[str, JsonValue]

    @property
    def has_pixels(self) -> bool:
        """Whether any image is sent as pixels."""
        several = (each if isinstance(each, list) else [each] for each in self.images.values())
        return any(isinstance(each, Image) for found in several for each in found)

    def parts(self) -> list[Part]:
        """Return the parts of a form: one per input, and per image of a list."""
        parts = [Part(name, json_text(value).encode(), JSON) for name, value in self.others.items()]
        for name, image in self.images.items():
            several = image if isinstance(image, list) else [image]
            found = [_image_part(name, each, self.call.tile) for each in several]
            parts += found or [Part(name, b"[]", JSON)]
        if self.call.options:
            parts.append(Part("pesto", json_text(self.call.options).encode(), JSON))
        return parts

    def document(self, *, knows_options: bool) -> dict[str, JsonValue]:
        """Return a JSON object with the pixels in base64."""
        document: dict[str, JsonValue] = dict(self.others)
        for name, image in self.images.items():
            several = isinstance(image, list)
            document[name] = [_as_json(each) for each in image] if several else _as_json(image)  # type: ignore[arg-type, union-attr]  # `several` decides the type
        if self.call.options and knows_options:
            document["pesto"] = self.call.options
        return document


def request_of(call: OutgoingCall, described: Described, references: References) -> Request:
    """Write a call as a request.

    Raises:
        InvalidInput: an input that the process does not have, a value that is no image, or an
            option that a plain PESTO service does not know.
        RasterUnreadable: an image that has to be sent cannot be read here.
    """
    outgoing = outgoing_of(call, described, references)
    request = (
        _raw_request(outgoing, described)
        or _form_request(outgoing, described)
        or _json_request(outgoing, described)
    )
    return replace(request, headers={**request.headers, **_tile_header(call.tile)})


def outgoing_of(call: OutgoingCall, described: Described, references: References) -> EncodedCall:
    """Separate the images of a call from its other inputs, and decide how each is sent.

    Raises:
        InvalidInput: an unknown input, a value that is not an image, or an option that a plain
            PESTO service does not support.
        RasterUnreadable: an image whose pixels must be sent cannot be read here.
    """
    _require_known(call, described)
    images: dict[str, Sent | list[Sent]] = {}
    others: dict[str, JsonValue] = {}
    for name, value in call.inputs.items():
        port = described.description.input(name)
        if port is not None and port.kind == "images" and isinstance(value, (list, tuple)):
            images[name] = [_prepared(port, each, references) for each in value]
        elif port is not None and port.kind == "image" and value is not None:
            images[name] = _prepared(port, value, references)
        else:
            others[name] = value  # type: ignore[assignment]  # json_text validates it
    return EncodedCall(call, images | _masks(images, described.description), others)


def _masks(
    images: Mapping[str, Sent | list[Sent]], description: Description
) -> dict[str, Sent | list[Sent]]:
    """Return masks of images whose form on the wire does not state what is valid."""
    stated: dict[str, Image] = {}
    for name, several in images.items():
        listed = several if isinstance(several, list) else [several]
        known = [each for each in listed if isinstance(each, Image)]
        states = any(each.mask is not None or each.nodata is not None for each in known)
        if states and len(known) == len(listed):  # masks are sent for all images of a list
            stated |= named_images(description, {name: known})
    arrays = gathered(description, {name: image.pixels for name, image in stated.items()})
    made = add_masks({**dict.fromkeys(images), **arrays}, description, stated)
    return {
        name: Image(array) if isinstance(array, np.ndarray) else [Image(each) for each in array]
        for name, array in made.items()
        if name not in images and isinstance(array, (np.ndarray, list))
    }


def accepted(call: OutgoingCall, described: Described) -> str:
    """Return the media type to request: that of the image if it is the only output, else a form."""
    ports = described.description.outputs
    has_images = any(each.kind in ("image", "images") for each in ports)
    if described.is_plain_pesto or not has_images or call.out or call.partial:
        return JSON
    if len(ports) == 1 and ports[0].kind == "image":
        return TIFF if call.accept == TIFF else NPY
    return FORM_TYPE if FORM_TYPE in described.transports else JSON


def accept_header(call: OutgoingCall, described: Described) -> str:
    """Return the header `Accept`; for a form, also the format of its images."""
    wanted = accepted(call, described)
    if wanted != FORM_TYPE:
        return wanted
    return f"{FORM_TYPE}, {TIFF if call.accept == TIFF else NPY};q=0.5"


def _require_known(call: OutgoingCall, described: Described) -> None:
    description = described.description
    known = [port.name for port in description.inputs]
    unknown = [name for name in call.inputs if name not in known]
    if unknown:
        raise InvalidInput.of(
            f"inputs of {description.name!r}",
            (
                BadField(f"/{name}", f"is not an input; there are {', '.join(known) or 'none'}")
                for name in unknown
            ),
        )
    if described.is_plain_pesto and (call.out or call.partial or call.finish is not None):
        raise InvalidInput(
            f"{description.name} is a plain PESTO service; it has no out, partial or finish"
        )


def _prepared(port: Port, value: object, references: References) -> Sent:
    is_href = isinstance(value, str) and looks_like_href(value)
    if isinstance(value, dict) or (is_href and "#" in str(value)):
        value = image_reference(value)
    if isinstance(value, ImageReference):
        if references.admits(value.href):
            return value
        with unchanged(value.href, value.identity):
            return read_for(value, port.raster)
    if isinstance(value, Image):
        return taken_for(value, port.raster)
    if isinstance(value, np.ndarray):
        return taken_for(Image(value[np.newaxis] if value.ndim == 2 else value), port.raster)
    if isinstance(value, str):
        return value
    raise InvalidInput(
        f"input {port.name!r} is an array (band, row, col), an Image, an ImageReference, an "
        f"object {{href, bands, window}} or a string (base64 or URI), not {shortened(value)}"
    )


def _raw_request(outgoing: EncodedCall, described: Described) -> Request | None:
    """Return a request whose body is the only image; None if that is not possible."""
    call, images = outgoing.call, outgoing.images
    ports = described.description.data_inputs
    image = next(iter(images.values()), None)
    if len(ports) != 1 or len(images) != 1 or not isinstance(image, Image):
        return None
    if next(iter(images)) != ports[0].name:
        return None
    fits = [each for each in _binary_types(image, call.tile) if each in described.transports]
    described_as = described.description
    texts = {name: _as_text(described_as, name, each) for name, each in outgoing.others.items()}
    query = {name: text for name, text in texts.items() if text is not None}
    if call.options:
        query["pesto"] = json_text(call.options)
    if not fits or len(query) < len(texts) or not _is_short(query):
        return None
    headers = {"Content-Type": fits[0], "Accept": accept_header(call, described)}
    return Request("POST", "/process", headers, query, encode_image(image, fits[0]))


def _is_short(query: Mapping[str, str]) -> bool:
    """Whether an encoded query is short enough; encoding takes 0.1 ms, which most do not need."""
    most = sum(len(name) + 12 * len(text) + 2 for name, text in query.items())
    return most <= _QUERY_CHARS or len(urlencode(query)) <= _QUERY_CHARS


def _form_request(outgoing: EncodedCall, described: Described) -> Request | None:
    """Return a request with a form; None if it has no pixels, or the service accepts no forms."""
    if FORM_TYPE not in described.transports or not outgoing.has_pixels:
        return None
    content, media_type = write_parts(outgoing.parts())
    headers = {"Content-Type": media_type, "Accept": accept_header(outgoing.call, described)}
    return Request("POST", "/process", headers, content=content)


def _image_part(name: str, image: Sent, tile: TileInfo | None) -> Part:
    if not isinstance(image, Image):
        return Part(name, json_text(_as_json(image)).encode(), JSON)
    media_type = _binary_types(image, tile)[0]
    return Part(name, encode_image(image, media_type), media_type, name)


def _tile_header(tile: TileInfo | None) -> dict[str, str]:
    """Return the header by which the service's log names the tile: its write window."""
    return {} if tile is None else {"X-Pesto-Tile": ",".join(str(each) for each in tile.write)}


def _binary_types(image: Image, tile: TileInfo | None) -> tuple[str, ...]:
    """Return the media types of an image; not .npy if that would lose any of its facts."""
    return (NPY, TIFF) if tile is not None or image.is_bare else (TIFF,)


def _json_request(outgoing: EncodedCall, described: Described) -> Request:
    headers = {"Content-Type": JSON, "Accept": accept_header(outgoing.call, described)}
    content = json_text(outgoing.document(knows_options=not described.is_plain_pesto)).encode()
    return Request("POST", "/process", headers, content=content, alone=described.is_plain_pesto)


def _as_json(image: Sent) -> JsonValue:
    if isinstance(image, str):
        return image
    if isinstance(image, ImageReference):
        document: dict[str, JsonValue] = image.model_dump(mode="json", exclude_none=True)
        return document
    return base64.b64encode(encode_image(image, TIFF)).decode("ascii")


def _as_text(description: Description, name: str, value: JsonValue) -> str | None:
    """Return the query parameter that the service reads as this value; None if there is none."""
    port = description.input(name)
    schema = description.schema_of(port) if port else {}
    written = json_text(value)
    texts = (value, written) if isinstance(value, str) else (written,)
    return next((each for each in texts if json_text(typed_text(schema, each)) == written), None)


def json_text(value: JsonValue) -> str:
    """Return a value as JSON text.

    Raises:
        InvalidInput: the value has no JSON form.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{shortened(value)} is not JSON: {error}") from error
