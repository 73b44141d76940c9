"""Encode the outputs of a call: as JSON, as one image, as a form, or into files at hrefs.

The response is as PESTO writes it, unless the request's `Accept` selects another form. `http` sends
it.
"""

from __future__ import annotations

import binascii
import json
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from pesto_runtime.client.multipart import FORM_TYPE, Part, write_parts
from pesto_runtime.errors import (
    ContractBroken,
    InvalidInput,
    PestoError,
    StoreFailed,
    UnsupportedMedia,
)
from pesto_runtime.hrefs import path_of
from pesto_runtime.places import WRITABLE, RemotePath
from pesto_runtime.service.header_fields import preferred
from pesto_runtime.service.runner import (
    INLINE_BYTES,
    JSON_TYPE,
    NPY_TYPE,
    TIFF_TYPE,
    CallResponse,
    Spool,
    SpoolPool,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.raster.image import Image
    from pesto_runtime.service.input_reader import RequestInputs
    from pesto_runtime.service.request import Faults


PNG_TYPE = "image/png"
IMAGE_TYPES = (TIFF_TYPE, NPY_TYPE, PNG_TYPE)
_RESPONSE_TYPES = (JSON_TYPE, *IMAGE_TYPES, FORM_TYPE)

_PIECE_BYTES = 3 << 18  # a multiple of 3, so that base64 of a piece has no padding
_ANSWERS = SpoolPool(1)  # of this worker process, which sends one answer after the other
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
_SUFFIXES = {TIFF_TYPE: ".tif", NPY_TYPE: ".npy", PNG_TYPE: ".png"}
_BY_SUFFIX = {".tif": TIFF_TYPE, ".tiff": TIFF_TYPE, ".png": PNG_TYPE, ".npy": NPY_TYPE}


@dataclass(frozen=True)
class ResponseFormat:
    """The form of a response; chosen, and known to be possible, before the process runs.

    Attributes:
        media_type: Of the response.
        binary: Name of the image output that is the whole response; None for JSON and forms.
        image_type: Of the images in a form.
        out: Output name -> admitted href to write to.
    """

    media_type: str = JSON_TYPE
    binary: str | None = None
    image_type: str = TIFF_TYPE
    out: Mapping[str, str] = field(default_factory=dict)


_AS_JSON = ResponseFormat()


def negotiate(description: Description, accept: str, out: Mapping[str, str]) -> ResponseFormat:
    """Choose the form of the response from `Accept`; outputs at hrefs make it JSON.

    Raises:
        UnsupportedMedia: one image is requested, and the process has none or several.
    """
    media_type = JSON_TYPE if out else response_type(accept)
    if media_type == JSON_TYPE:
        return ResponseFormat(out=out) if out else _AS_JSON
    if media_type == FORM_TYPE:
        return ResponseFormat(FORM_TYPE, image_type=preferred(accept, IMAGE_TYPES) or TIFF_TYPE)
    images = [port.name for port in description.outputs if port.kind == "image"]
    if len(images) != 1:
        raise UnsupportedMedia(
            f"{description.name} has {len(images)} image outputs ({', '.join(images) or 'none'}), "
            f"so a response cannot be {media_type}; accept {JSON_TYPE}, or name hrefs under "
            "pesto.out"
        )
    return ResponseFormat(media_type, images[0])


@lru_cache(maxsize=64)
def response_type(accept: str) -> str:
    """Return the media type of a response to this `Accept`; JSON if it names none that exists."""
    return preferred(accept, _RESPONSE_TYPES) or JSON_TYPE


def admitted(
    description: Description, out: Mapping[str, str], gate: Gate, faults: Faults
) -> dict[str, str]:
    """Return the hrefs to write to that the gate admits; refused ones are added to the faults."""
    hrefs: dict[str, str] = {}
    for name, href in out.items():
        pointer = f"/pesto/out/{name}"
        if description.output(name) is None:
            known = ", ".join(port.name for port in description.outputs)
            faults.add(pointer, f"is not an output of {description.name}, which has {known}", href)
            continue
        try:
            hrefs[name] = gate.admit_write(href)
            if urlsplit(href).scheme not in WRITABLE:
                path_of(hrefs[name])
        except PestoError as error:
            faults.add_error(pointer, error, href)
    return hrefs


def write_response(
    description: Description,
    outputs: dict[str, object],
    inputs: RequestInputs,
    form: ResponseFormat,
) -> CallResponse:
    """Encode the outputs, and remove each from `outputs` to free its memory.

    An output that is not in the description is ignored.

    Raises:
        ContractBroken: the requested output is missing, or a number is not finite.
        StoreFailed: an href cannot be written.
        InvalidInput: the requested file format cannot store the image.
    """
    images = _OutputEncoder(inputs)
    if form.binary is not None:
        pixels, port = outputs.get(form.binary), description.output(form.binary)
        if port is None or not isinstance(pixels, np.ndarray):
            raise ContractBroken(f"{description.name} returned no image {form.binary!r}")
        outputs.pop(form.binary)
        writer = ResponseWriter()
        for piece in images.pieces(port, pixels, form.media_type):
            writer.write(piece)
        return writer.response(form.media_type)
    ports = [port for port in description.outputs if port.name in outputs]
    if form.media_type == FORM_TYPE:
        return CallResponse(*write_parts(images.parts(ports, outputs, form.image_type)))
    return _write_json(ports, outputs, images, form.out)


def json_response(document: Mapping[str, JsonValue]) -> CallResponse:
    """Encode a JSON document.

    Raises:
        ContractBroken: a number is not finite.
    """
    return CallResponse(_json_bytes(document), JSON_TYPE)


class ResponseWriter:
    """Collects the bytes of one response; many of them in a spool."""

    def __init__(self) -> None:
        """Start without bytes."""
        self._bytes = bytearray()
        self._spool: Spool | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        if self._spool is None and len(self._bytes) + len(data) <= INLINE_BYTES:
            self._bytes += data
            return
        if self._spool is None:
            self._spool = Spool.of(bytes(self._bytes), _ANSWERS)
        self._spool.write(data)

    def write_base64(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Append bytes as base64, a piece at a time."""
        rest = b""
        for piece in pieces:
            begin = min(-len(rest) % 3, len(piece))
            rest += bytes(piece[:begin])
            if len(rest) == 3:
                self.write(binascii.b2a_base64(rest, newline=False))
                rest = b""
            stop = len(piece) - (len(piece) - begin) % 3
            for at in range(begin, stop, _PIECE_BYTES):
                part = piece[at : min(at + _PIECE_BYTES, stop)]
                self.write(binascii.b2a_base64(part, newline=False))
            rest += bytes(piece[max(stop, begin) :])
        self.write(binascii.b2a_base64(rest, newline=False))

    def response(self, media_type: str) -> CallResponse:
        """Return the bytes as a response."""
        return CallResponse(
            bytes(self._bytes) if self._spool is None else b"", media_type, self._spool
        )


def _write_json(
    ports: list[Port], outputs: dict[str, object], images: _OutputEncoder, out: Mapping[str, str]
) -> CallResponse:
    writer = ResponseWriter()
    if not out and not any(_has_pixels(port, outputs[port.name]) for port in ports):
        writer.write(_json_bytes({port.name: outputs.pop(port.name) for port in ports}))
        return writer.response(JSON_TYPE)
    for index, port in enumerate(ports):
        writer.write(b"," if index else b"{")
        writer.write(_json_bytes(port.name) + b":")
        value = outputs.pop(port.name)  # its memory is freed before the next one is encoded
        href = out.get(port.name)
        if href is None:
            images.write_json(writer, port, value)
        else:
            write_to_href(href, [images.file(port, value, href)])
            writer.write(_json_bytes(href))
    writer.write(b"}" if ports else b"{}")
    return writer.response(JSON_TYPE)


def _has_pixels(port: Port, value: object) -> bool:
    return isinstance(value, np.ndarray) or port.kind == "images"


def _json_bytes(document: object) -> bytes:
    try:
        text = _ENCODER.encode(document)
    except ValueError as error:
        raise ContractBroken(f"an output is not JSON: {error}") from error
    return text.encode()


class _OutputEncoder:
    """Encodes outputs; images have the georeference of the inputs."""

    def __init__(self, inputs: RequestInputs) -> None:
        self._inputs = inputs

    def write_json(self, writer: ResponseWriter, port: Port, value: object) -> None:
        if isinstance(value, np.ndarray):
            writer.write(b'"')
            writer.write_base64(self._as_pesto(port, value))
            writer.write(b'"')
        elif port.kind == "images" and isinstance(value, (list, tuple)):
            writer.write(b"[")
            for index, each in enumerate(value):
                writer.write(b"," if index else b"")
                self.write_json(writer, port, each)
            writer.write(b"]")
        else:
            writer.write(_json_bytes(value))

    def parts(
        self, ports: Iterable[Port], outputs: Mapping[str, object], media_type: str
    ) -> Iterator[Part]:
        """Yield a part per output, and per image of a list."""
        for port in ports:
            value = outputs[port.name]
            is_list = port.kind == "images" and isinstance(value, (list, tuple))
            if is_list and not value:
                yield Part(port.name, b"[]", JSON_TYPE)
            for each in value if is_list else (value,):  # type: ignore[attr-defined]  # a list is one
                if isinstance(each, np.ndarray):
                    data = self.encoded(port, each, media_type)
                    yield Part(port.name, data, media_type, port.name + _SUFFIXES[media_type])
                else:
                    plain: JsonValue = each
                    yield Part(port.name, _json_bytes(plain), JSON_TYPE)

    def file(self, port: Port, value: object, href: str) -> bytes:
        if isinstance(value, np.ndarray):
            suffix = PurePosixPath(href).suffix.lower()
            return self.encoded(port, value, _BY_SUFFIX.get(suffix, TIFF_TYPE))
        if port.kind == "images":
            raise InvalidInput(
                f"output {port.name!r} is a list of images, which one href cannot store"
            )
        return json.dumps(value, allow_nan=False).encode()

    def encoded(self, port: Port, pixels: np.ndarray, media_type: str) -> bytes:
        from pesto_runtime.raster.codec import encode_image

        return encode_image(self._image(port, self._trimmed(port, pixels)), media_type)

    def pieces(
        self, port: Port, pixels: np.ndarray, media_type: str
    ) -> Iterator[bytes | memoryview]:
        from pesto_runtime.raster.codec import image_pieces

        return image_pieces(self._image(port, self._trimmed(port, pixels)), media_type)

    def _as_pesto(self, port: Port, pixels: np.ndarray) -> Iterator[bytes | memoryview]:
        """Encode PNG where PESTO does; else GeoTIFF, which stores georeference and nodata."""
        is_plain = (
            port.raster is None and len(pixels) <= 3 and pixels.dtype in (np.uint8, np.uint16)
        )
        return self.pieces(port, pixels, PNG_TYPE if is_plain else TIFF_TYPE)

    def _trimmed(self, port: Port, pixels: np.ndarray) -> np.ndarray:
        roi = self._inputs.roi
        return roi.trimmed(pixels) if roi and port.name in roi.target_out else pixels

    def _image(self, port: Port, pixels: np.ndarray) -> Image:
        from pesto_runtime.raster.inheritance import covers, output_image

        tile, first = self._inputs.tile, self._inputs.first
        on_input = (
            tile is not None and self._inputs.roi is None and covers(pixels, tile, port.raster)
        )
        return output_image(pixels, port.raster, first, covers=on_input)


def write_to_href(href: str, pieces: Iterable[bytes]) -> None:
    """Write a file atomically: beside its name first, then rename it; or an object of a bucket.

    Raises:
        StoreFailed: it cannot be written.
    """
    if urlsplit(href).scheme in WRITABLE:
        RemotePath(href).write_chunks(pieces)
        return
    target = path_of(href)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("xb") as file:
                file.writelines(pieces)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreFailed(f"{href} cannot be written: {error.strerror or error}") from error
