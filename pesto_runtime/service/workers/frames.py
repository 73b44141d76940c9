"""What a service and its workers say to each other: a JSON head and some bytes, framed.

Nothing is pickled: a worker runs code that the service does not trust with its memory.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadField, PestoError, error_from_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

_SIZES = struct.Struct("!II")
_ENCODER = json.JSONEncoder(check_circular=False)


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
        head: What it is about; `kind` is always there.
        body: Bytes that go with it.
    """

    head: dict[str, JsonValue]
    body: bytes

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.head["kind"])


def pack(kind: str, head: Mapping[str, JsonValue], body: bytes = b"") -> bytes:
    """Write a frame."""
    text = _ENCODER.encode({"kind": kind, **head}).encode()
    return b"".join((_SIZES.pack(len(text), len(body)), text, body))


class Unpacker:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        """Start without bytes."""
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take more bytes, and give the frames that are whole now."""
        self._bytes += data
        while len(self._bytes) >= _SIZES.size:
            head_size, body_size = _SIZES.unpack_from(self._bytes)
            middle = _SIZES.size + head_size
            end = middle + body_size
            if len(self._bytes) < end:
                return
            head = json.loads(self._bytes[_SIZES.size : middle])
            body = bytes(self._bytes[middle:end])
            del self._bytes[:end]
            yield Frame(head, body)


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
