"""An answer taken apart into the things a job leaves, and put together again. Pure bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.client.multipart import Part, is_form, read_parts, write_parts
from pesto_runtime.hrefs import looks_like_href
from pesto_runtime.service.jobs.states import Result
from pesto_runtime.service.request import JSON_TYPE, NPY_TYPE, TIFF_TYPE
from pesto_runtime.service.runs import CallResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.service.request import Payload


@dataclass(frozen=True)
class JobRequest:
    """What a job is made of.

    Attributes:
        payload: The request.
        from_here: Whether its caller is on this machine.
        key: Never two executions of one key.
        lease_s: Seconds without anybody asking after which it is dismissed.
    """

    payload: Payload
    from_here: bool
    key: str | None = None
    lease_s: float | None = None

    def digest(self) -> str:
        """What tells this request from another one with the same key.

        A form's boundary differs each time that it is written, so it is not part of it.
        """
        payload = self.payload
        media_type, _, boundary = payload.media_type.partition('; boundary="')
        body = payload.body
        if boundary:
            body = body.replace(boundary.rstrip('"').encode(), b"")
        head = json.dumps([media_type, sorted(payload.query.items()), payload.accept])
        digest = hashlib.sha256(head.encode() + b"\0")
        digest.update(body)
        return digest.hexdigest()


_SLICE_CHARS = 1 << 20  # a multiple of four
_TEXT_TYPE = "text/plain"
_PNG_TYPE = "image/png"
_MAGIC = {b"\x89PNG": _PNG_TYPE, b"\x93NUM": NPY_TYPE}


@dataclass(frozen=True)
class Piece:
    """One output of an answer, or one image of a list.

    Attributes:
        data: What it is: JSON, or an image file; empty where it was written to an href.
        media_type: Of the data.
        index: Place in a list of images.
        href: Where it was written instead.
    """

    output: str
    data: bytes
    media_type: str
    index: int | None = None
    href: str | None = None


def taken_apart(answer: CallResponse, description: Description) -> tuple[Piece, ...]:
    """The pieces of an answer, in its order."""
    if answer.media_type == JSON_TYPE:
        document: dict[str, JsonValue] = json.loads(answer.whole())
        found = (_pieces(name, each, description) for name, each in document.items())
        return tuple(piece for pieces in found for piece in pieces)
    if is_form(answer.media_type):
        parts = read_parts(answer.whole(), answer.media_type)
        return tuple(_of_parts(parts, description))
    images = [port.name for port in description.outputs if port.kind == "image"]
    return (Piece(images[0], answer.whole(), answer.media_type),)


def put_together(pieces: Sequence[Piece], media_type: str) -> CallResponse:
    """The answer that pieces came from."""
    if media_type == JSON_TYPE:
        document: dict[str, JsonValue] = {}
        for piece in pieces:
            if piece.index is None:
                document[piece.output] = _json_of(piece)
            else:
                several = document.setdefault(piece.output, [])
                several.append(_json_of(piece))  # type: ignore[union-attr]  # of an index: a list
        return CallResponse(json_bytes(document), JSON_TYPE)
    if is_form(media_type):
        parts = (Part(piece.output, piece.data, piece.media_type) for piece in pieces)
        return CallResponse(*write_parts(parts))
    return CallResponse(pieces[0].data, media_type)


def results_of(pieces: Sequence[Piece]) -> tuple[Result, ...]:
    """What a job's record says of the pieces; each has an address of its own."""
    taken = {piece.output for piece in pieces if piece.index is None}
    results = []
    for piece in pieces:
        part = piece.output
        if piece.index is not None:
            part = f"{piece.output}{piece.index}"
            while part in taken:  # an output is already called so
                part = f"{piece.output}.{part.removeprefix(piece.output)}"
            taken.add(part)
        results.append(Result(piece.output, part, piece.media_type, piece.index, piece.href))
    return tuple(results)


def shown(data: bytes, result: Result, *, as_json: bool) -> tuple[bytes, str]:
    """A result as it is sent: numbers and strings as text, as PESTO does, unless JSON is wanted."""
    if as_json or result.media_type != JSON_TYPE:
        return data, result.media_type
    value = json.loads(data)
    if isinstance(value, (str, float)):
        return str(value).encode(), _TEXT_TYPE
    return data, JSON_TYPE


def listed(results: Sequence[Result], hrefs: Mapping[str, str]) -> dict[str, str | list[str]]:
    """Output name -> href, or hrefs in their order for a list; what was deleted is left out."""
    document: dict[str, str | list[str]] = {}
    for result in results:
        if result.is_deleted:
            continue
        href = result.href or hrefs[result.part]
        if result.index is None:
            document[result.output] = href
        else:
            several = document.setdefault(result.output, [])
            several.append(href)  # type: ignore[union-attr]  # of an index: a list
    return document


def _pieces(name: str, value: JsonValue, description: Description) -> Iterator[Piece]:
    port = description.output(name)
    kind = None if port is None else port.kind
    if kind == "images" and isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield _image(name, each, index)
    elif kind == "image":
        yield _image(name, value, None)
    else:
        yield Piece(name, json_bytes(value), JSON_TYPE)


def _of_parts(parts: Sequence[Part], description: Description) -> Iterator[Piece]:
    counts: dict[str, int] = {}
    for part in parts:
        port = description.output(part.name)
        is_image = part.media_type != JSON_TYPE
        if port is not None and port.kind == "images" and is_image:
            index = counts[part.name] = counts.get(part.name, -1) + 1
            yield Piece(part.name, part.data, part.media_type, index)
        else:
            yield Piece(part.name, part.data, part.media_type)


def _image(name: str, value: JsonValue, index: int | None) -> Piece:
    """base64 of an image, or the href that it was written to; base64 never looks like one."""
    if isinstance(value, str) and looks_like_href(value):
        return Piece(name, b"", JSON_TYPE, index, value)
    data = _decoded(value) if isinstance(value, str) else b""
    if not data:
        return Piece(name, json_bytes(value), JSON_TYPE, index)
    return Piece(name, data, _MAGIC.get(data[:4], TIFF_TYPE), index)


def _decoded(text: str) -> bytes:
    """base64 decoded in slices, so that other threads get a word in; empty where it is none."""
    slices = range(0, len(text), _SLICE_CHARS)
    try:
        return b"".join(binascii.a2b_base64(text[at : at + _SLICE_CHARS]) for at in slices)
    except binascii.Error:
        return b""


def _json_of(piece: Piece) -> JsonValue:
    if piece.href is not None:
        return piece.href
    if piece.media_type != JSON_TYPE:
        return base64.b64encode(piece.data).decode("ascii")
    value: JsonValue = json.loads(piece.data)
    return value


def json_bytes(value: JsonValue) -> bytes:
    """Write JSON as answers do."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
