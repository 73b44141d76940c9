"""Exchange messages between a service and a worker: frames, their socket, a shared counter.

A frame is a JSON head and some bytes. Nothing is pickled: unpickling runs code, and a worker runs
that of an author, which the service does not trust.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import socket
import struct
import tempfile
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pesto_runtime.errors import BadField, PestoError, error_from_problem
from pesto_runtime.service.runner import Payload, Spool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.service.runner import CallResponse

    _Ancillary = tuple[int, int, bytes]

_SIZES = struct.Struct("!III")
_ENCODER = json.JSONEncoder(check_circular=False)
_SHORT_BYTES = 1024

_READ_BYTES = 128 << 10
# A frame without a spool has at most 64 KiB and its head. It must fit beside what is unread: a full
# buffer makes the event loop wait for the worker. The default of Linux is 208 KiB.
_BUFFER_BYTES = 1 << 20
_INT_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(_INT_BYTES)
# A program that an algorithm starts must not inherit a spool: its memory would not be freed.
_CLOSED_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

_NUMBER = struct.Struct("=Q")


class Frame(NamedTuple):
    """One message.

    Attributes:
        head: A JSON object; it always has a `kind`.
        body: Bytes after it.
        number: Of the call that it belongs to; 0 for none.
    """

    head: Mapping[str, JsonValue]
    body: bytes
    number: int = 0

    @property
    def kind(self) -> str:
        """The kind of message."""
        return str(self.head["kind"])


def encode_frame(
    kind: str, head: Mapping[str, JsonValue], body: bytes = b"", *, number: int = 0
) -> bytes:
    """Return the bytes of a frame."""
    return _joined(_ENCODER.encode({"kind": kind, **head}).encode(), body, number)


def _joined(head: bytes, body: bytes, number: int) -> bytes:
    return b"".join((_SIZES.pack(len(head), len(body), number), head, body))


class FrameDecoder:
    """Divides a stream of bytes into frames."""

    def __init__(self) -> None:
        """Start without bytes."""
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes, and return the frames that are complete now."""
        # One small frame per read is the rule: it is decoded where it lies, without a copy.
        if not self._bytes and (first := _first(data)) is not None and first[1] == len(data):
            return [first[0]]
        self._bytes += data
        frames = []
        while (first := _first(self._bytes)) is not None:
            frames.append(first[0])
            del self._bytes[: first[1]]
        return frames


def _first(data: bytes | bytearray) -> tuple[Frame, int] | None:
    """Decode the frame that these bytes begin with, and where it ends; None while incomplete."""
    if len(data) < _SIZES.size:
        return None
    head_size, body_size, number = _SIZES.unpack_from(data)
    middle = _SIZES.size + head_size
    end = middle + body_size
    if len(data) < end:
        return None
    head = bytes(data[_SIZES.size : middle])
    document = _known_head(head) if head_size <= _SHORT_BYTES else json.loads(head)
    return Frame(document, bytes(data[middle:end]), number), end


# Cached, as `_call_head` and `_response_head` are: 0.1 microseconds instead of 5.
@lru_cache(maxsize=256)
def _known_head(head: bytes) -> Mapping[str, JsonValue]:
    """Decode a short head; nearly all calls of a service have one of few heads."""
    document: Mapping[str, JsonValue] = json.loads(head)
    return document


def call_frame(payload: Payload, *, number: int, spilled: int | None) -> bytes:
    """Encode a request; `spilled` is the size of a body that goes as a spool, else None."""
    query = tuple(payload.query.items())
    head = _call_head(payload.media_type, query, payload.accept, payload.trace, spilled)
    return _joined(head, payload.body if spilled is None else b"", number)


@lru_cache(maxsize=256)
def _call_head(
    media_type: str,
    query: tuple[tuple[str, str], ...],
    accept: str,
    trace: str,
    spilled: int | None,
) -> bytes:
    head = {
        "kind": "call", "media_type": media_type, "query": dict(query), "accept": accept,
        "trace": trace, "spilled": spilled,
    }  # fmt: skip
    return _ENCODER.encode(head).encode()


def response_frame(
    response: CallResponse, *, content: bytes, spilled: int | None, is_body_free: bool = False
) -> bytes:
    """Encode a response.

    Args:
        response: The response.
        content: Of it, unless it goes as a spool.
        spilled: Size of content that goes as a spool, else None.
        is_body_free: Whether nothing in the worker has the body of the call any more.
    """
    head = _response_head(response.media_type, spilled, response.ignored, is_body_free)
    return _joined(head, content, 0)


@lru_cache(maxsize=256)
def _response_head(
    media_type: str, spilled: int | None, ignored: tuple[str, ...], is_body_free: bool
) -> bytes:
    head = {
        "kind": "answer", "media_type": media_type, "spilled": spilled, "ignored": ignored,
        "body_free": is_body_free,
    }  # fmt: skip
    return _ENCODER.encode(head).encode()


def decode_payload(frame: Frame, spool: Spool | None) -> Payload:
    """Decode a request."""
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


def encode_error(error: PestoError, trace: str = "") -> dict[str, JsonValue]:
    """Return an error as a JSON document; the trace is for the service's log, not its caller."""
    return {
        "slug": _slug(error),
        "detail": error.detail,
        "fields": [[each.pointer, each.detail, each.value] for each in error.fields],
        "retryable": error.retryable,
        "retry_after_s": error.retry_after_s,
        "trace": trace,
    }


def decode_error(document: Mapping[str, JsonValue]) -> PestoError:
    """Decode an error; one that an author derived becomes the one that it was derived from."""
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
    """Return the slug of the nearest class that the other side has, too."""
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, PestoError)]
    return next(kind.slug for kind in kinds if kind.__module__ == PestoError.__module__)


def _fields(rows: list[JsonValue]) -> Iterator[BadField]:
    for row in rows:
        if isinstance(row, list):
            pointer, detail, value = row
            yield BadField(str(pointer), str(detail), None if value is None else str(value))


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new socket; its buffers take the frame of a small call at once."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


def send(channel: socket.socket, frame: bytes, spool: Spool | None = None) -> int:
    """Send a frame, and a spool with its first byte; return how many bytes were sent.

    Raises:
        ConnectionError: the other end is closed.
    """
    if spool is None:
        return channel.send(frame)
    numbers = array.array("i", [spool.descriptor])
    return channel.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


def receive(channel: socket.socket) -> tuple[bytes, Spool | None]:
    """Return some bytes, none at the end, and the spool that came with them.

    Raises:
        BlockingIOError: there is nothing yet.
        ConnectionError: the other end is closed.
    """
    data, ancillary, _, _ = channel.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, _CLOSED_ON_EXEC)
    return data, _spool(ancillary) if ancillary else None


def _spool(ancillary: Iterable[_Ancillary]) -> Spool | None:
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return Spool(numbers[0]) if numbers else None


class StartedCallCounter:
    """Shared counter: the number of the call that a worker has started last; 0 at first.

    Writing it needs no message, and it outlives the worker. So the service knows whether a worker
    that died had started its call; a call that was not started may go to another worker.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the memory behind a descriptor, and take the descriptor over."""
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _NUMBER.size)

    @classmethod
    def create(cls) -> StartedCallCounter:
        """Create a counter in an anonymous memory file, which a child process may inherit."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("pesto-started-call")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _NUMBER.size)
        return cls(descriptor)

    @property
    def number(self) -> int:
        """The call that was started last."""
        found: int = _NUMBER.unpack_from(self._memory)[0]
        return found

    def set(self, number: int) -> None:
        """Store the call that starts now."""
        _NUMBER.pack_into(self._memory, 0, number)

    def close(self) -> None:
        """Unmap the memory, and close its descriptor."""
        self._memory.close()
        os.close(self.descriptor)
