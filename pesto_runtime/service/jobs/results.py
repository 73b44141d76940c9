"""Divide the response of a call into the results of a job, and join them again.

It works on bytes in memory; `files` stores them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pesto_runtime.client.multipart import Part, is_form, read_parts, write_parts
from pesto_runtime.hrefs import looks_like_href
from pesto_runtime.service.jobs.states import Result
from pesto_runtime.service.runner import JSON_TYPE, NPY_TYPE, TIFF_TYPE, CallResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.service.runner import Payload

_SLICE_CHARS = 1 << 20  # a multiple of four
_TEXT_TYPE = "text/plain"
_PNG_TYPE = "image/png"
_MAGIC = {b"\x89PNG": _PNG_TYPE, b"\x93NUM": NPY_TYPE}


@dataclass(frozen=True)
class JobRequest:
    """A request that becomes a job.

    Attributes:
        payload: The request.
        key: Idempotency key: one key is executed at most once.
        lease_s: Seconds without a request for the job after which it is dismissed.
        caller: Name of the caller; empty if the service does not know callers.
        choice: As of `Record`.
    """

    payload: Payload
    key: str | None = None
    lease_s: float | None = None
    caller: str = ""
    choice: dict[str, JsonValue] | None = None

    def digest(self) -> str:
        """Return a sha256 that differs for another request with the same key.

        The boundary of a form is not part of it: a client that retries writes a new one.
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


@dataclass(frozen=True)
class Piece:
    """One output of a response, or one image of a list.

    Attributes:
        data: JSON, or an image file; empty if it was written to an href.
        media_type: Of the data.
        index: Index in a list of images.
        href: The href that it was written to.
    """

    output: str
    data: bytes
    media_type: str
    index: int | None = None
    href: str | None = None


def split_response(response: CallResponse, description: Description) -> tuple[Piece, ...]:
    """Return the pieces of a response, in its order."""
    if response.media_type == JSON_TYPE:
        document: dict[str, JsonValue] = json.loads(response.whole())
        outputs = (_pieces(name, each, description) for name, each in document.items())
        return tuple(piece for pieces in outputs for piece in pieces)
    if is_form(response.media_type):
        parts = read_parts(response.whole(), response.media_type)
        return tuple(_of_parts(parts, description))
    images = [port.name for port in description.outputs if port.kind == "image"]
    return (Piece(images[0], response.whole(), response.media_type),)


def join_response(pieces: Sequence[Piece], media_type: str) -> CallResponse:
    """Return the response that was divided into the pieces."""
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
    """Return the results for the record of a job; each has a URL of its own."""
    used = {piece.output for piece in pieces if piece.index is None}
    results = []
    for piece in pieces:
        part = piece.output
        if piece.index is not None:
            part = f"{piece.output}{piece.index}"
            while part in used:  # `tiles0` may be another output, beside the list `tiles`
                part = f"{piece.output}.{part.removeprefix(piece.output)}"
            used.add(part)
        is_none = piece.data == b"null" and piece.media_type == JSON_TYPE and piece.index is None
        found = Result(piece.output, part, piece.media_type, piece.index, piece.href)
        results.append(replace(found, is_none=is_none))
    return tuple(results)


def result_body(data: bytes, result: Result, *, as_json: bool) -> tuple[bytes, str]:
    """Return body and media type of a result: numbers and strings as text, as PESTO, or as JSON."""
    if as_json or result.media_type != JSON_TYPE:
        return data, result.media_type
    value = json.loads(data)
    if isinstance(value, (str, float)):
        return str(value).encode(), _TEXT_TYPE
    return data, JSON_TYPE


def output_hrefs(results: Sequence[Result], hrefs: Mapping[str, str]) -> dict[str, str | list[str]]:
    """Return output name -> href, or hrefs in order for a list; without those deleted or None."""
    document: dict[str, str | list[str]] = {}
    for result in results:
        if result.is_deleted or result.is_none:
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
    """Return the piece of a base64 image, or of an href: base64 never contains `:`."""
    if isinstance(value, str) and looks_like_href(value):
        return Piece(name, b"", JSON_TYPE, index, value)
    data = _decoded(value) if isinstance(value, str) else b""
    if not data:
        return Piece(name, json_bytes(value), JSON_TYPE, index)
    return Piece(name, data, _MAGIC.get(data[:4], TIFF_TYPE), index)


def _decoded(text: str) -> bytes:
    """Decode base64 in slices, between which other threads can run; empty if it is not base64."""
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
    """Encode JSON as in responses."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
