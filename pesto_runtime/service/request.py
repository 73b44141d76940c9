"""A request's bytes read into input values and options; nothing is judged but their form."""

from __future__ import annotations

import json
import mmap
import re
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from pesto_runtime.client.multipart import FORM_TYPE, Part, is_form, read_parts
from pesto_runtime.contract import CallOptions, bad_fields
from pesto_runtime.errors import BadRequest, InvalidInput, UnsupportedMedia, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import NoReturn

    from pydantic import JsonValue

    Parse: TypeAlias = Callable[[bytes], JsonValue]
    from pesto_runtime.contract import Description, Port
    from pesto_runtime.service.problems import Faults
    from pesto_runtime.service.spool import Spool


JSON_TYPE = "application/json"
NPY_TYPE = "application/x-npy"
TIFF_TYPE = "image/tiff"
BYTES_TYPE = "application/octet-stream"
RESERVED = "pesto"

# PESTO never looks at the media type, and curl's default is a form: all of these carry its JSON.
_NO_OPTIONS = CallOptions()
_READ_AS_JSON = ("", JSON_TYPE, "text/plain", "text/json", "application/x-www-form-urlencoded")


@dataclass(frozen=True)
class RawImage:
    """An image as the body of a request."""

    data: bytes | mmap.mmap
    media_type: str


InputValue: TypeAlias = "JsonValue | RawImage | LongText | list[RawImage | LongText | JsonValue]"


@dataclass(frozen=True)
class Payload:
    """A request as it came.

    Attributes:
        body: All of it, unless it is in a spool.
        media_type: Of the body, lower case, without parameters but for a form's boundary.
        query: Query parameters.
        accept: The `Accept` header.
        spool: Where a large body is; None for others.
        trace: The `traceparent` that it came with; empty for none.
    """

    body: bytes
    media_type: str
    query: Mapping[str, str]
    accept: str
    spool: Spool | None = None
    trace: str = ""

    def let_go(self) -> None:
        """Need the body no more; what was read of it stays."""
        if self.spool is not None:
            self.spool.close()

    def whole(self) -> bytes:
        """The body, wherever it is."""
        return self.body if self.spool is None else self.spool.whole()


@dataclass(frozen=True)
class ParsedRequest:
    """What a request asks for: input values, not yet validated, and options."""

    values: Mapping[str, InputValue]
    options: CallOptions


def transports(description: Description) -> tuple[str, ...]:
    """Media types of bodies that the process takes, as `Accept-Post` tells them."""
    if raw_image_port(description) is None:
        return (JSON_TYPE, FORM_TYPE)
    return (JSON_TYPE, TIFF_TYPE, NPY_TYPE, FORM_TYPE)


def raw_image_port(description: Description) -> Port | None:
    """The one image input that a raw body is; None where there are none or several."""
    ports = description.image_inputs
    return ports[0] if len(ports) == 1 else None


def require_media_type(media_type: str, description: Description) -> None:
    """Look at the media type alone, before a byte of the body is read.

    Raises:
        UnsupportedMedia: the process takes no such body; names those that it takes.
    """
    if _is_json(media_type) or is_form(media_type):
        return
    if is_image_type(media_type) and raw_image_port(description) is not None:
        return
    raise UnsupportedMedia(
        f"{description.name} takes {', '.join(transports(description))}, "
        f"not {shortened(media_type)}"
    )


def read_payload(payload: Payload, description: Description, faults: Faults) -> ParsedRequest:
    """Read a request; what is wrong with its options goes to the faults.

    Raises:
        BadRequest: the body is not a JSON object.
        UnsupportedMedia: the process takes no such body.
    """
    require_media_type(payload.media_type, description)
    if is_form(payload.media_type):
        body = payload.whole()
        payload.let_go()
        return form_call(read_parts(body, payload.media_type), description, faults)
    port = raw_image_port(description)
    if port is None or not is_image_type(payload.media_type):
        if payload.spool is None:
            return json_call(read_json(payload.body, "the body"), faults)
        return _long_json_call(payload.spool, description, faults)
    values: dict[str, InputValue] = {
        name: _text_value(description.input(name), text)
        for name, text in payload.query.items()
        if name != RESERVED
    }
    values[port.name] = _raw_image(payload)
    options = payload.query.get(RESERVED)
    return ParsedRequest(values, _options(options and read_json(options, "?pesto"), faults))


def _raw_image(payload: Payload) -> RawImage:
    """The body as an image; only .npy can stay where it is, other files are decoded anyway."""
    spool, media_type = payload.spool, payload.media_type
    if spool is not None and media_type == NPY_TYPE:
        return RawImage(spool.mapped(), media_type)
    image = RawImage(payload.whole(), media_type)
    payload.let_go()
    return image


def _long_json_call(spool: Spool, description: Description, faults: Faults) -> ParsedRequest:
    """What a large JSON object asks for; images in it are not copied."""
    document, texts = read_long_json(spool, partial(read_json, what="the body"))
    if not texts or not isinstance(document, dict):
        return json_call(restored(document, texts), faults)
    images = {port.name for port in description.inputs if port.kind in ("image", "images")}
    small = {name: restored(each, texts) for name, each in document.items() if name not in images}
    call = json_call(small, faults)
    large = {name: _with_texts(document[name], texts) for name in images if name in document}
    return ParsedRequest({**call.values, **large}, call.options)


def _with_texts(value: JsonValue, texts: Mapping[str, LongText]) -> InputValue:
    """An image, or a list of them, as it stands in the body."""
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
    """What a JSON object asks for.

    Raises:
        BadRequest: it is none.
    """
    if not isinstance(document, dict):
        raise BadRequest(
            f"the body is a JSON object with an input per key, not {shortened(document)}"
        )
    values = {name: each for name, each in document.items() if name != RESERVED}
    return ParsedRequest(values, _options(document.get(RESERVED), faults))


def form_call(parts: list[Part], description: Description, faults: Faults) -> ParsedRequest:
    """What a form asks for: parts of one name are the images of a list, in their order."""
    values: dict[str, InputValue] = {}
    lists: dict[str, list[RawImage | LongText | JsonValue]] = {}
    options: JsonValue = None
    for part in parts:
        port = description.input(part.name)
        if part.name == RESERVED:
            options = read_json(part.data, "the part 'pesto'")
        elif port is None:
            continue  # ignored, as in JSON
        elif port.kind == "images":
            value = _part_value(part, port, faults)
            lists.setdefault(part.name, []).extend(value if isinstance(value, list) else [value])
        elif part.name in values:
            faults.add(f"/{part.name}", "is there twice; only a list of images has several parts")
        else:
            values[part.name] = _part_value(part, port, faults)
    return ParsedRequest({**values, **lists}, _options(options, faults))


def _part_value(part: Part, port: Port, faults: Faults) -> RawImage | JsonValue:
    """An image where it says so, or is a file for an image; JSON where it says so; else text."""
    takes_images = port.kind in ("image", "images")
    is_bytes = part.media_type == BYTES_TYPE or bool(part.filename and not part.media_type)
    if takes_images and (is_bytes or is_image_type(part.media_type)):
        return RawImage(part.data, part.media_type or BYTES_TYPE)
    if part.media_type == JSON_TYPE:
        return read_json(part.data, f"the part {part.name!r}")
    try:
        text = part.data.decode()
    except UnicodeDecodeError:
        faults.add(f"/{part.name}", f"is no text, and {part.media_type or 'bytes'} is not taken")
        return None
    return text if takes_images else _text_value(port, text)


def _is_json(media_type: str) -> bool:
    return media_type in _READ_AS_JSON or media_type.endswith("+json")


def is_image_type(media_type: str) -> bool:
    """Whether a body of this type is an image."""
    return media_type == NPY_TYPE or media_type.startswith("image/")


def read_json(text: bytes | str, what: str) -> JsonValue:
    """Read JSON, and nothing beside it.

    Raises:
        BadRequest: it is none; `what` says what it is.
    """
    try:
        document: JsonValue = _DECODER.decode(_text(text))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} is not JSON: {error}; it begins {shortened(text)}") from error
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _text(data: bytes | str) -> str:
    """JSON is UTF-8; what else the standard library takes for it is taken here, too."""
    return data if isinstance(data, str) else data.decode(json.detect_encoding(data))


def _text_value(port: Port | None, text: str) -> JsonValue:
    """A string stays one where the schema says so; other values are JSON, else strings."""
    if port is not None and port.schema.get("type") == "string":
        return text
    try:
        value: JsonValue = _DECODER.decode(text)
    except ValueError:
        return text
    return value


def _options(document: JsonValue, faults: Faults) -> CallOptions:
    if document is None:
        return _NO_OPTIONS
    try:
        return CallOptions.model_validate(document)
    except ValidationError as error:
        for field in bad_fields(error, prefix=f"/{RESERVED}", value=document):
            faults.add_field(field)
    except InvalidInput as error:  # a window says itself what is wrong with it
        faults.add_error(f"/{RESERVED}", error)
    return _NO_OPTIONS


_STRIDE_BYTES = 64 << 10
_LOOK_BYTES = 64
_PLAIN = re.compile(rb"[A-Za-z0-9+/=]*+")
_PIECE_BYTES = 1 << 20  # a multiple of 4, so that every piece is base64 of its own
_SHOWN_BYTES = 200
_REMOVE: int | None = getattr(mmap, "MADV_REMOVE", None)


@dataclass(frozen=True, eq=False)
class LongText:
    """A long string of base64 in a body.

    Attributes:
        begins: Its first characters, for messages.
    """

    begins: str
    _source: mmap.mmap
    _begin: int
    _end: int

    def __len__(self) -> int:
        return self._end - self._begin

    def text(self) -> str:
        """A copy of all of it."""
        return self._source[self._begin : self._end].decode("ascii")

    def consumed(self) -> Iterator[bytes]:
        """All of it in pieces of 1 MiB, once: memory is given back as they are taken."""
        freed = self._begin + -self._begin % mmap.PAGESIZE
        for begin in range(self._begin, self._end, _PIECE_BYTES):
            end = min(begin + _PIECE_BYTES, self._end)
            yield self._source[begin:end]
            whole_pages = (end - freed) // mmap.PAGESIZE * mmap.PAGESIZE
            if _REMOVE is not None and whole_pages > 0:
                self._source.madvise(_REMOVE, freed, whole_pages)
                freed += whole_pages


def read_long_json(spool: Spool, parse: Parse) -> tuple[JsonValue, Mapping[str, LongText]]:
    """Parse a body whose long strings of base64 are replaced by short ones.

    Args:
        spool: The body; nobody else needs it any more.
        parse: Reads JSON; what it raises passes.

    Returns:
        The document, and for each string put into it the one that it stands for.
    """
    source = spool.shared()
    mark, texts = secrets.token_hex(16), dict[str, LongText]()
    pieces, at = [], 0
    for begin, end in _long_strings(source):
        name = f"{mark}{len(texts)}"
        shown = source[begin : min(end, begin + _SHOWN_BYTES)].decode("ascii")
        texts[name] = LongText(shown, source, begin, end)
        pieces += [source[at:begin], name.encode()]
        at = end
    return parse(b"".join((*pieces, source[at:]))), texts


def restored(value: JsonValue, texts: Mapping[str, LongText]) -> JsonValue:
    """A value with the strings that were in it."""
    if isinstance(value, str):
        return texts[value].text() if value in texts else value
    if isinstance(value, list):
        return [restored(each, texts) for each in value]
    if isinstance(value, dict):
        return {key: restored(each, texts) for key, each in value.items()}
    return value


def _long_strings(source: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where the inside of each long string of base64 begins and ends.

    One that is long enough covers a place where this looks. Between its quotes is no backslash,
    so the second one ends a string wherever the first begins one.
    """
    floor = at = 0
    while (at := at + _STRIDE_BYTES) + _LOOK_BYTES < len(source):
        if not _PLAIN.fullmatch(source, at, at + _LOOK_BYTES):
            continue
        begin, end = source.rfind(b'"', floor, at) + 1, source.find(b'"', at)
        if end < 0:
            return
        is_begun = begin > floor and source[begin - 2 : begin - 1] != b"\\"
        if is_begun and _PLAIN.fullmatch(source, begin, end):
            yield begin, end
        floor = at = end + 1
