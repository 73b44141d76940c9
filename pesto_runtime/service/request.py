"""Parse the body of a request into input values and options.

Only the form is checked: JSON, parts of a form, known options. `input_reader` validates the values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from pesto_runtime.client.multipart import Part, is_form, read_parts
from pesto_runtime.contract import CallOptions, bad_fields
from pesto_runtime.errors import BadField, BadRequest, InvalidInput, PestoError, shortened
from pesto_runtime.schema import STRICT_JSON, schema_faults, typed_text
from pesto_runtime.service.long_texts import LongText, read_long_json, restored
from pesto_runtime.service.runner import (
    BYTES_TYPE,
    JSON_TYPE,
    NPY_TYPE,
    RESERVED,
    is_image_type,
    raw_image_port,
    require_media_type,
)

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.service.runner import Payload, Spool


_FILE_TYPES = (
    BYTES_TYPE,
    "application/geotiff",
    "application/tiff",
    "application/x-geotiff",
    "application/x-tiff",
)
"""Media types of parts that are files of an image, whatever its format."""

_NO_OPTIONS = CallOptions()
_ABSENT = object()
_URLENCODED = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class RawImage:
    """An image file that is the body of a request, or a part of a form."""

    data: bytes | mmap.mmap
    media_type: str


InputValue: TypeAlias = "JsonValue | RawImage | LongText | list[RawImage | LongText | JsonValue]"


@dataclass(frozen=True)
class ParsedRequest:
    """Input values, not yet validated, and options of a request.

    Attributes:
        values: Input name -> value.
        options: The options.
        unknown: Parts of a form that are not inputs.
    """

    values: Mapping[str, InputValue]
    options: CallOptions
    unknown: tuple[str, ...] = ()

    def ignored(self, description: Description) -> tuple[str, ...]:
        """Return the names of the request that are not inputs of the process."""
        names = [name for name in self.values if description.input(name) is None]
        return (*self.unknown, *names)


class Faults:
    """Collects the wrong fields of a request, and the kinds of error that they are."""

    def __init__(self) -> None:
        """Start without faults."""
        self._fields: list[BadField] = []
        self._kinds: set[type[PestoError]] = set()

    def __bool__(self) -> bool:
        return bool(self._fields)

    def add(self, pointer: str, detail: str, value: object = _ABSENT) -> None:
        """Add a field that does not match the contract."""
        self.add_field(BadField(pointer, detail, _shown(value)))

    def add_field(self, field: BadField) -> None:
        """Add a field that does not match the contract, with its description."""
        self._fields.append(field)
        self._kinds.add(InvalidInput)

    def add_error(self, pointer: str, error: PestoError, value: object = _ABSENT) -> None:
        """Add an error that a field caused; the fields of the error come under the pointer."""
        self._kinds.add(type(error))
        inner = [BadField(pointer + f.pointer, f.detail, f.value) for f in error.fields]
        self._fields.extend(inner or [BadField(pointer, error.detail, _shown(value))])

    def raise_any(self, subject: str) -> None:
        """Raise one error for all faults; do nothing without faults.

        Raises:
            PestoError: of the class that all faults share, `InvalidInput` for a mixture.
        """
        if not self._fields:
            return
        kind = self._kinds.pop() if len(self._kinds) == 1 else InvalidInput
        raise kind.of(subject, self._fields)


def _shown(value: object) -> str | None:
    return None if value is _ABSENT else shortened(value)


def read_payload(payload: Payload, description: Description, faults: Faults) -> ParsedRequest:
    """Parse a request; wrong options are added to the faults.

    Raises:
        BadRequest: the body is not a JSON object, or not a valid form.
        UnsupportedMedia: the process accepts no such body.
    """
    require_media_type(payload.media_type, description)
    if is_form(payload.media_type):
        body = payload.whole()
        payload.release()
        return form_call(read_parts(body, payload.media_type), description, faults)
    port = raw_image_port(description)
    if port is None or not is_image_type(payload.media_type):
        if payload.spool is None:
            return json_call(read_json(payload.body, _body_name(payload.media_type)), faults)
        return _long_json_call(payload.spool, description, faults)
    values: dict[str, InputValue] = {
        name: _text_value(description, name, text)
        for name, text in payload.query.items()
        if name != RESERVED
    }
    values[port.name] = _raw_image(payload)
    options = payload.query.get(RESERVED)
    unknown = tuple(name for name in payload.query if name not in {*values, RESERVED})
    read = _options(options and read_json(options, "?pesto"), faults)
    return ParsedRequest(values, read, unknown)


def _text_value(description: Description, name: str, text: str) -> JsonValue:
    port = description.input(name)
    return text if port is None else typed_text(description.schema_of(port), text)


def _body_name(media_type: str) -> str:
    if media_type != _URLENCODED:  # curl's default, also for JSON
        return "the body"
    return f"the body, which is read as JSON (a form is multipart/form-data, not {_URLENCODED}),"


def _raw_image(payload: Payload) -> RawImage:
    """Return the body as an image; .npy is mapped, other formats are decoded from a copy."""
    spool, media_type = payload.spool, payload.media_type
    if spool is not None and media_type == NPY_TYPE:
        return RawImage(spool.mapped(), media_type)
    image = RawImage(payload.whole(), media_type)
    payload.release()
    return image


def _long_json_call(spool: Spool, description: Description, faults: Faults) -> ParsedRequest:
    """Parse a large JSON object without copying the images in it."""
    document, texts = read_long_json(spool, partial(read_json, what="the body"))
    if not texts or not isinstance(document, dict):
        return json_call(restored(document, texts), faults)
    images = {port.name for port in description.inputs if port.kind in ("image", "images")}
    small = {name: restored(each, texts) for name, each in document.items() if name not in images}
    call = json_call(small, faults)
    large = {name: _with_texts(document[name], texts) for name in images if name in document}
    return ParsedRequest({**call.values, **large}, call.options)


def _with_texts(value: JsonValue, texts: Mapping[str, LongText]) -> InputValue:
    """Return an image, or a list of images, as `LongText` where it is long."""
    if isinstance(value, str) and value in texts:
        return texts[value]
    if isinstance(value, list):
        several: list[RawImage | LongText | JsonValue] = []
        for each in value:
            is_long = isinstance(each, str) and each in texts
            several.append(texts[str(each)] if is_long else restored(each, texts))
        return several
    return restored(value, texts)


def json_call(document: JsonValue, faults: Faults) -> ParsedRequest:
    """Parse a JSON object.

    Raises:
        BadRequest: it is not an object.
    """
    if not isinstance(document, dict):
        raise BadRequest(
            f"the body must be a JSON object with an input per key, not {shortened(document)}"
        )
    values = {name: each for name, each in document.items() if name != RESERVED}
    return ParsedRequest(values, _options(document.get(RESERVED), faults))


def form_call(parts: list[Part], description: Description, faults: Faults) -> ParsedRequest:
    """Parse a form: parts of one name are the images of a list, in their order."""
    values: dict[str, InputValue] = {}
    lists: dict[str, list[RawImage | LongText | JsonValue]] = {}
    unknown: list[str] = []
    options: JsonValue = None
    for part in parts:
        port = description.input(part.name)
        if part.name == RESERVED:
            options = read_json(part.data, "the part 'pesto'")
        elif port is None:
            unknown.append(part.name)  # ignored, as in JSON
        elif not part.data and not port.required and _is_left_empty(part, port, description):
            continue
        elif port.kind == "images":
            value = _part_value(part, port, description, faults)
            lists.setdefault(part.name, []).extend(value if isinstance(value, list) else [value])
        elif part.name in values:
            faults.add(f"/{part.name}", "is given twice; only a list of images has several parts")
        else:
            values[part.name] = _part_value(part, port, description, faults)
    return ParsedRequest({**values, **lists}, _options(options, faults), tuple(unknown))


def _is_left_empty(part: Part, port: Port, description: Description) -> bool:
    """Return whether a part is a field of a form that was not filled in."""
    if port.kind in ("image", "images"):
        return True
    return part.media_type != JSON_TYPE and bool(
        list(schema_faults(description.schema_of(port), ""))
    )


def _part_value(
    part: Part, port: Port, description: Description, faults: Faults
) -> RawImage | JsonValue:
    """Return an image if the media type is one, or a file for an image port; else JSON or text."""
    takes_images = port.kind in ("image", "images")
    is_bytes = part.media_type in _FILE_TYPES or bool(part.filename and not part.media_type)
    if takes_images and (is_bytes or is_image_type(part.media_type)):
        is_declared = is_image_type(part.media_type)
        return RawImage(part.data, part.media_type if is_declared else BYTES_TYPE)
    if part.media_type == JSON_TYPE:
        return read_json(part.data, f"the part {part.name!r}")
    try:
        text = part.data.decode()
    except UnicodeDecodeError:
        media_type = part.media_type or "bytes"
        faults.add(f"/{part.name}", f"is not UTF-8 text, and {media_type} is not accepted")
        return None
    if takes_images:  # base64 has no brace
        return read_json(text, f"the part {part.name!r}") if text.startswith("{") else text
    return typed_text(description.schema_of(port), text)


def read_json(text: bytes | str, what: str) -> JsonValue:
    """Parse JSON; NaN and Infinity, which Python accepts, are errors.

    Raises:
        BadRequest: it is not JSON; `what` names it in the message.
    """
    try:
        document: JsonValue = STRICT_JSON.decode(_text(text))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} is not JSON: {error}; it begins {shortened(text)}") from error
    return document


def _text(data: bytes | str) -> str:
    """Decode UTF-8, and the other encodings that `json.loads` detects (RFC 4627 section 3)."""
    return data if isinstance(data, str) else data.decode(json.detect_encoding(data))


def _options(document: JsonValue, faults: Faults) -> CallOptions:
    if document is None:
        return _NO_OPTIONS
    try:
        return CallOptions.model_validate(document)
    except ValidationError as error:
        for field in bad_fields(error, prefix=f"/{RESERVED}", value=document):
            faults.add_field(field)
    except InvalidInput as error:  # of a window, which checks itself
        faults.add_error(f"/{RESERVED}", error)
    return _NO_OPTIONS
