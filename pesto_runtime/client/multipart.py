"""Read and write multipart/form-data as bytes (RFC 7578); python-multipart parses it.

This file knows nothing of inputs or images. The whole body is in memory before it is parsed, so the
parser receives it at once, and the content of each part is copied once.
"""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState

from pesto_runtime.errors import BadRequest, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from python_multipart.multipart import MultipartCallbacks

FORM_TYPE = "multipart/form-data"

_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')
_BOUNDARY_CHARS = 70
_MOST_PARTS = 1000
_HEADER_LIMITS = {"max_header_count": 64, "max_header_size": 8192}
_PADDING = re.compile(rb"[ \t]+(?=\r\n)")
_SILENT = logging.getLogger(__name__)
_SILENT.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Part:
    """One part of a body.

    Attributes:
        name: Of its `Content-Disposition`.
        data: Its content.
        media_type: Lower case, without parameters; empty if the part has none.
        filename: Empty if it has none; many servers accept bytes only in parts with a file name.
            One that is encoded (`filename*`, as older clients send it) stays so: nobody opens it.
    """

    name: str
    data: bytes
    media_type: str = ""
    filename: str = ""


def media_type_of(content_type: str) -> str:
    """Return the media type of a header; of its parameters, only the boundary of a form remains.

    >>> media_type_of("Image/TIFF; application=geotiff")
    'image/tiff'
    >>> media_type_of('multipart/form-data; charset=utf-8; boundary="Ab c"')
    'multipart/form-data; boundary="Ab c"'
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != FORM_TYPE:
        return media_type
    return f'{media_type}; boundary="{_parameter(content_type, "boundary")}"'


def is_form(media_type: str) -> bool:
    """Whether a media type, with or without its boundary, is that of a form."""
    return media_type.partition(";")[0] == FORM_TYPE


def read_parts(body: bytes, media_type: str) -> list[Part]:
    """Return the parts of a form.

    Args:
        body: The whole body.
        media_type: The result of `media_type_of`.

    Raises:
        BadRequest: there is no boundary, the body does not fit it, or a part has no name.
    """
    boundary = _parameter(media_type, "boundary")
    if not 0 < len(boundary) <= _BOUNDARY_CHARS:
        raise BadRequest(f"{FORM_TYPE} requires a boundary of 1 to {_BOUNDARY_CHARS} characters")
    reader = _PartReader()
    try:
        parser = MultipartParser(boundary.encode(), reader.callbacks, **_HEADER_LIMITS)
        parser.logger = _SILENT  # it logs each invalid form, for which the caller gets an error
        parser.write(_from_first_delimiter(body, b"--" + boundary.encode()))
    except FormParserError as error:
        raise BadRequest(f"a part of the form has no headers that can be read: {error}") from error
    if parser.state != MultipartState.END:
        raise BadRequest("the form does not end with its boundary; it is truncated")
    if not reader.parts:
        raise BadRequest("the form has no parts; it requires one per input, named like the input")
    return reader.parts


def write_parts(parts: Iterable[Part]) -> tuple[bytes, str]:
    """Return a form as bytes, and its media type with the boundary."""
    several = list(parts)
    # 128 random bits: no content of a part has them, so the parts are not searched.
    boundary = secrets.token_hex(16)
    delimiter = b"--" + boundary.encode()
    pieces = []
    for part in several:
        head = f'Content-Disposition: form-data; name="{_escaped(part.name)}"'
        head += f'; filename="{_escaped(part.filename)}"\r\n' if part.filename else "\r\n"
        if part.media_type:
            head += f"Content-Type: {part.media_type}\r\n"
        pieces += [delimiter, b"\r\n", head.encode(), b"\r\n", part.data, b"\r\n"]
    return b"".join((*pieces, delimiter, b"--\r\n")), f"{FORM_TYPE}; boundary={boundary}"


def _escaped(text: str) -> str:
    # Browsers write line ends in a name as %0D and %0A (HTML standard).
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(char, escape)
    return text


class _PartReader:
    """Collects the parts of a form from the callbacks of the parser.

    The parser receives the whole body at once, so each header and content is one callback.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._headers: dict[str, str] = {}
        self._header, self._data = "", b""
        self.callbacks: MultipartCallbacks = {
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
        }

    def _add_header(self, body: bytes, start: int, stop: int) -> None:
        self._header = body[start:stop].decode().lower()

    def _add_value(self, body: bytes, start: int, stop: int) -> None:
        self._headers[self._header] = body[start:stop].decode("utf-8", "replace").strip()

    def _add_data(self, body: bytes, start: int, stop: int) -> None:
        self._data = body[start:stop]

    def _end_part(self) -> None:
        if len(self.parts) == _MOST_PARTS:
            raise BadRequest(f"the form has over {_MOST_PARTS} parts, the largest permitted number")
        self.parts.append(_part(self._headers, self._data))
        self._headers, self._data = {}, b""


def _from_first_delimiter(body: bytes, delimiter: bytes) -> bytes:
    """Remove a preamble, and blanks after the first delimiter, which the parser rejects."""
    # RFC 2046, 5.1.1 permits both.
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start == 1:
        raise BadRequest(f"the form's boundary is not in it; it begins {shortened(body[:60])}")
    padding = _PADDING.match(body, start + len(delimiter))
    return body[start:] if padding is None else delimiter + body[padding.end() :]


def _part(headers: Mapping[str, str], data: bytes) -> Part:
    if not headers:
        raise BadRequest(f"a part of the form has no headers; it begins {shortened(data[:60])}")
    disposition = headers.get("content-disposition", "")
    name = _parameter(disposition, "name")
    if not name:
        raise BadRequest(
            "each part of a form requires the name of its input: "
            'Content-Disposition: form-data; name="…"'
        )
    return Part(
        name=name,
        data=data,
        media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        filename=_parameter(disposition, "filename") or _parameter(disposition, "filename*"),
    )


def _parameter(header: str, name: str) -> str:
    """Return a parameter of a header without quotes; empty if the header does not have it."""
    found = next((each for each in _PARAMETER.finditer(header) if each[1].lower() == name), None)
    if found is None:
        return ""
    quoted, bare = found[2], found[3]
    return bare.strip() if quoted is None else _ESCAPED.sub(r"\1", quoted)
