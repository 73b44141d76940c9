"""What a service and its workers say to each other: a JSON head and some bytes, framed.

Nothing is pickled: a worker runs code that the service does not trust with its memory.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadField, PestoError, error_from_problem
from pesto_runtime.service.request import Payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.service.runs import CallResponse
    from pesto_runtime.service.spool import Spool

_SIZES = struct.Struct("!III")
_ENCODER = json.JSONEncoder(check_circular=False)
_SHORT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        head: What it is about; `kind` is always there.
        body: Bytes that go with it.
        number: Of the call that it is about; 0 for none.
    """

    head: Mapping[str, JsonValue]
    body: bytes
    number: int = 0

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.head["kind"])


def pack(kind: str, head: Mapping[str, JsonValue], body: bytes = b"", *, number: int = 0) -> bytes:
    """Write a frame."""
    return packed(_ENCODER.encode({"kind": kind, **head}).encode(), body, number)


def packed(head: bytes, body: bytes, number: int) -> bytes:
    """Write a frame whose head is written already."""
    return b"".join((_SIZES.pack(len(head), len(body), number), head, body))


class Unpacker:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        """Start without bytes."""
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes, and give the frames that are whole now."""
        if not self._bytes and (frame := _first(data)) is not None and len(data) == _end(data):
            return [frame]  # neither more nor less, as nearly always
        self._bytes += data
        frames = []
        while (frame := _first(self._bytes)) is not None:
            frames.append(frame)
            del self._bytes[: _end(self._bytes)]
        return frames


def _end(data: bytes | bytearray) -> int:
    """Where the first frame ends."""
    head_size, body_size, _ = _SIZES.unpack_from(data)
    end: int = _SIZES.size + head_size + body_size
    return end


def _first(data: bytes | bytearray) -> Frame | None:
    """The frame that these bytes begin with; None where it is not whole yet."""
    if len(data) < _SIZES.size:
        return None
    head_size, body_size, number = _SIZES.unpack_from(data)
    middle = _SIZES.size + head_size
    if len(data) < middle + body_size:
        return None
    head = bytes(data[_SIZES.size : middle])
    document = _known_head(head) if head_size <= _SHORT_BYTES else json.loads(head)
    return Frame(document, bytes(data[middle : middle + body_size]), number)


@lru_cache(maxsize=256)
def _known_head(head: bytes) -> Mapping[str, JsonValue]:
    """Read a short head; one call has nearly always the head of another."""
    document: Mapping[str, JsonValue] = json.loads(head)
    return document


def call_frame(payload: Payload, *, from_here: bool, number: int, spilled: int | None) -> bytes:
    """Write a request; `spilled` is how much of its body goes by another way."""
    query = tuple(payload.query.items())
    head = _call_head(payload.media_type, query, payload.accept, payload.trace, from_here, spilled)
    return packed(head, payload.body if spilled is None else b"", number)


@lru_cache(maxsize=256)
def _call_head(
    media_type: str,
    query: tuple[tuple[str, str], ...],
    accept: str,
    trace: str,
    from_here: bool,  # cached by its place
    spilled: int | None,
) -> bytes:
    head = {
        "kind": "call", "media_type": media_type, "query": dict(query), "accept": accept,
        "trace": trace, "from_here": from_here, "spilled": spilled,
    }  # fmt: skip
    return _ENCODER.encode(head).encode()


def answer_frame(answer: CallResponse, *, content: bytes, spilled: int | None) -> bytes:
    """Write an answer; `spilled` is how much of its content goes by another way."""
    return packed(_answer_head(answer.media_type, spilled), content, 0)


@lru_cache(maxsize=256)
def _answer_head(media_type: str, spilled: int | None) -> bytes:
    head = {"kind": "answer", "media_type": media_type, "spilled": spilled}
    return _ENCODER.encode(head).encode()


def payload_of(frame: Frame, spool: Spool | None) -> Payload:
    """Read a request."""
    head = frame.head
    query, size = head["query"], head["spilled"]
    if spool is not None and isinstance(size, int):
        spool.size = size
    return Payload(
        body=frame.body,
        media_type=str(head["media_type"]),
        query=query if isinstance(query, dict) else {},  # type: ignore[arg-type]  # of strings
        accept=str(head["accept"]),
        spool=spool,
        trace=str(head["trace"]),
    )


def error_document(error: PestoError, trace: str = "") -> dict[str, JsonValue]:
    """Write an error whole; the trace is for the service's log, never for its caller."""
    return {
        "slug": _slug(error),
        "detail": error.detail,
        "fields": [[each.pointer, each.detail, each.value] for each in error.fields],
        "retryable": error.retryable,
        "retry_after_s": error.retry_after_s,
        "trace": trace,
    }


def error_of(document: Mapping[str, JsonValue]) -> PestoError:
    """Read an error back; one that an author derived becomes the one it was derived from."""
    slug, retryable = str(document["slug"]), bool(document["retryable"])
    problem: dict[str, JsonValue] = {"type": f":{slug}", "retryable": retryable}
    error = error_from_problem(problem, status=500)
    error.detail = str(document["detail"])
    error.args = (error.detail,)
    fields = document["fields"]
    error.fields = tuple(_fields(fields if isinstance(fields, list) else []))
    after = document["retry_after_s"]
    error.retry_after_s = float(after) if isinstance(after, (int, float)) else None
    if document["trace"]:
        error.add_note(str(document["trace"]))
    return error


def _slug(error: PestoError) -> str:
    """That of the nearest kind which the other side has, too."""
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, PestoError)]
    return next(kind.slug for kind in kinds if kind.__module__ == PestoError.__module__)


def _fields(rows: list[JsonValue]) -> Iterator[BadField]:
    for row in rows:
        if isinstance(row, list):
            pointer, detail, value = row
            yield BadField(str(pointer), str(detail), None if value is None else str(value))
