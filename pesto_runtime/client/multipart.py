"""multipart/form-data read and written as bytes; it knows nothing of inputs or images.

A body is in memory already when it is read, so parts are found by searching for the boundary: 3 MiB
take 0.4 ms, where a streaming parser that looks at every carriage return takes 4 ms.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadRequest, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORM_TYPE = "multipart/form-data"

_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')
_BOUNDARY_CHARS = 70
_MOST_PARTS = 1000
_HEAD_BYTES = 8192


@dataclass(frozen=True)
class Part:
    """One part of a body.

    Attributes:
        name: Of its `Content-Disposition`.
        data: Its content.
        media_type: Lower case, without parameters; empty where the part does not say.
        filename: Empty where it has none; readers of forms take bytes only of files.
    """

    name: str
    data: bytes
    media_type: str = ""
    filename: str = ""


def media_type_of(content_type: str) -> str:
    """The media type of a header, without parameters but for the boundary of a multipart.

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
    """Whether a media type, with or without its boundary, is a form's."""
    return media_type.partition(";")[0] == FORM_TYPE


def read_parts(body: bytes, media_type: str) -> list[Part]:
    """Take a form apart.

    Args:
        body: All of it.
        media_type: As `media_type_of` gave it.

    Raises:
        BadRequest: no boundary, a body that does not keep to it, or a part without a name.
    """
    boundary = _parameter(media_type, "boundary")
    if not 0 < len(boundary) <= _BOUNDARY_CHARS:
        raise BadRequest(f"{FORM_TYPE} needs a boundary of 1 to {_BOUNDARY_CHARS} characters")
    parts = [_part(body, *each) for each in _sections(body, b"--" + boundary.encode())]
    if not parts:
        raise BadRequest("the form has no parts; it takes one per input, named as the input")
    return parts


def write_parts(parts: Iterable[Part]) -> tuple[bytes, str]:
    """Write a form: its bytes, and the media type with the boundary that none of them holds."""
    several = list(parts)
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
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(char, escape)
    return text


def _sections(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Where the content between two delimiters begins and ends."""
    ended = BadRequest("the form does not end with its boundary; it was cut short")
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start == 1:
        raise BadRequest(f"the form's boundary is not in it; it begins {shortened(body[:60])}")
    start += len(delimiter)
    for _ in range(_MOST_PARTS):
        if body.startswith(b"--", start):
            return
        begin = body.find(b"\r\n", start, start + _HEAD_BYTES)  # past blanks that may pad it
        stop = body.find(b"\r\n" + delimiter, max(begin, start))
        if begin < 0 or stop < 0:
            raise ended
        yield begin + 2, stop
        start = stop + 2 + len(delimiter)
    raise BadRequest(f"the form has over {_MOST_PARTS} parts, which is the most taken")


def _part(body: bytes, start: int, stop: int) -> Part:
    head_stop = body.find(b"\r\n\r\n", start, min(stop, start + _HEAD_BYTES))
    if head_stop < 0:
        begins = shortened(body[start : start + 60])
        raise BadRequest(f"a part of the form has no headers; it begins {begins}")
    headers = _headers(body[start:head_stop])
    disposition = headers.get("content-disposition", "")
    name = _parameter(disposition, "name")
    if not name:
        raise BadRequest(
            'each part of a form is named as its input: Content-Disposition: form-data; name="…"'
        )
    return Part(
        name=name,
        data=body[head_stop + 4 : stop],
        media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        filename=_parameter(disposition, "filename"),
    )


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _parameter(header: str, name: str) -> str:
    """A parameter of a header, unquoted; empty where it is not there."""
    found = next((each for each in _PARAMETER.finditer(header) if each[1].lower() == name), None)
    if found is None:
        return ""
    quoted, bare = found[2], found[3]
    return bare.strip() if quoted is None else _ESCAPED.sub(r"\1", quoted)
