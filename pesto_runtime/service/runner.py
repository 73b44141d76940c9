"""Define the interface between a service and the code that performs its calls.

A `CallRunner` turns a `Payload` into a `CallResponse`; large bytes of both are in a `Spool`. Bodies
are parsed in `request`. Worker processes import this file, so it does not load FastAPI.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl

from pesto_runtime.client.multipart import FORM_TYPE, is_form
from pesto_runtime.errors import BadField, BadRequest, InvalidInput, UnsupportedMedia, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port


State: TypeAlias = Literal["STARTING", "OK", "FAILED"]
OnProgress: TypeAlias = "Callable[[float, float], None]"
OnLog: TypeAlias = "Callable[[str], None]"

JSON_TYPE = "application/json"
NPY_TYPE = "application/x-npy"
TIFF_TYPE = "image/tiff"
BYTES_TYPE = "application/octet-stream"
QUOTE_TYPE = "application/vnd.pesto.quote+json"
"""Of a call that a pipeline plans, and does not run."""

RESERVED = "pesto"
"""Key of a request's options."""

INLINE_BYTES = 64 << 10
"""Fewer bytes are not worth a file."""

KEPT_BYTES = 4 << 20
"""Largest memory file that is kept for the next body or answer."""

# PESTO does not read the media type, and curl's default is a form: all of these carry its JSON.
_READ_AS_JSON = ("", JSON_TYPE, "text/plain", "text/json", "application/x-www-form-urlencoded")
_PIECE_BYTES = 1 << 20
_PROBED_BYTES = 1024
_NOT_OPEN = -1


@dataclass(frozen=True)
class ProcessFacts:
    """The facts about a process that its service needs, without the code of the process.

    Attributes:
        description: The contract.
        build: `sha256:…` of the sources.
        version_document: The body of `/version`.
        is_placeless: Whether the process certainly does not receive the place of its pixels.
    """

    description: Description
    build: str
    version_document: Mapping[str, JsonValue]
    is_placeless: bool = False


class CallRunner(Protocol):
    """Performs calls; all methods are called on the event loop, and none of them blocks it."""

    @property
    def facts(self) -> ProcessFacts:
        """Facts about the process; known once `load` has returned."""

    @property
    def state(self) -> State:
        """OK once calls can run."""

    @property
    def setup_log(self) -> tuple[str, ...]:
        """Steps of the set-up, one line each."""

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs; a later request may succeed.
            AlgorithmFailed: the set-up failed.
        """

    async def load(self) -> ProcessFacts:
        """Load the target, and return the facts about it.

        Raises:
            PestoError: it cannot be loaded.
        """

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin the set-up; `on_ready` is called once it is done."""

    async def run(
        self, payload: Payload, *, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Perform a call as soon as there is room; cancelling it stops its work.

        Args:
            payload: The request.
            on_progress: Called with `done` and `total` when the algorithm reports them.
            on_log: Called with every line that the algorithm logs.

        Raises:
            PestoError: the request, the algorithm or its outputs are wrong.
        """

    async def close(self) -> None:
        """Stop; calls that still run are lost."""


def no_progress(_done: float, _total: float) -> None:
    """Ignore the progress of an algorithm."""


def no_log(_line: str) -> None:
    """Ignore a log line of an algorithm."""


@dataclass(frozen=True)
class Payload:
    """A request, before its body is parsed.

    Attributes:
        body: All bytes, unless they are in a spool.
        media_type: Of the body, lower case, without parameters except the boundary of a form.
        query: Query parameters.
        accept: The `Accept` header.
        spool: Contains a large body; None for others.
        trace: The `traceparent` header; empty for none.
    """

    body: bytes
    media_type: str
    query: Mapping[str, str]
    accept: str
    spool: Spool | None = None
    trace: str = ""

    def release(self) -> None:
        """Release a large body; maps of it stay valid."""
        if self.spool is not None:
            self.spool.close()

    def whole(self) -> bytes:
        """Return the body as bytes."""
        return self.body if self.spool is None else self.spool.whole()


@dataclass(frozen=True)
class CallResponse:
    """The body of a response.

    Attributes:
        content: All bytes, unless they are in a spool.
        media_type: Of these bytes.
        spool: Contains a large body; None for others.
        ignored: Names in the request that are not inputs of the process.
    """

    content: bytes
    media_type: str
    spool: Spool | None = None
    ignored: tuple[str, ...] = ()

    def whole(self) -> bytes:
        """Return the body as bytes."""
        return self.content if self.spool is None else self.spool.whole()


def transports(description: Description) -> tuple[str, ...]:
    """Return the media types of bodies that the process accepts, for `Accept-Post`."""
    if raw_image_port(description) is None:
        return (JSON_TYPE, FORM_TYPE)
    return (JSON_TYPE, TIFF_TYPE, NPY_TYPE, FORM_TYPE)


def raw_image_port(description: Description) -> Port | None:
    """Return the image input that a body can be; None unless there is exactly one."""
    ports = description.data_inputs
    return ports[0] if len(ports) == 1 else None


def parse_query(text: bytes, description: Description) -> dict[str, str]:
    """Parse a query string.

    Raises:
        BadRequest: it is not UTF-8.
        InvalidInput: a parameter of an input is given twice.
    """
    if not text:
        return {}
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the query {shortened(text)} is not UTF-8: {error}") from error
    names = [name for name, _ in pairs]
    known = [*(port.name for port in description.inputs), RESERVED]
    twice = sorted({name for name in names if names.count(name) > 1 and name in known})
    if twice:
        faults = (BadField(f"/{name}", "is given twice in the query") for name in twice)
        raise InvalidInput.of(f"inputs of {description.name!r}", faults)
    return dict(pairs)


def require_media_type(media_type: str, description: Description) -> None:
    """Check the media type alone, before a byte of the body is read.

    Raises:
        UnsupportedMedia: the process accepts no such body; lists the accepted types.
    """
    is_json = media_type in _READ_AS_JSON or media_type.endswith("+json")
    if is_json or is_form(media_type):
        return
    if is_image_type(media_type) and raw_image_port(description) is not None:
        return
    raise UnsupportedMedia(
        f"{description.name} accepts {', '.join(transports(description))}, "
        f"not {shortened(media_type)}"
    )


def is_image_type(media_type: str) -> bool:
    """Return whether a body of this type is an image."""
    return media_type == NPY_TYPE or media_type.startswith("image/")


def is_batch(payload: Payload) -> bool:
    """Return whether a request has several payloads; only its first bytes are examined."""
    spool = payload.spool
    head = payload.body if spool is None else next(spool.pieces(_PROBED_BYTES), b"")
    if is_form(payload.media_type):
        return b'name="/0/' in head[:_PROBED_BYTES]
    is_array = head[:_PROBED_BYTES].lstrip().startswith(b"[")
    return is_array and not is_image_type(payload.media_type)


class SpoolPool:
    """Memory files that are used again.

    To allocate and to free the pages of a new one takes 2.2 ms for 3 MiB, to write into pages that
    are there 0.35 ms.
    """

    def __init__(self, most: int) -> None:
        """Keep at most so many files, each of up to `KEPT_BYTES`."""
        self._most, self._kept = most, list[int]()

    def __del__(self) -> None:
        for descriptor in self._kept:
            os.close(descriptor)

    def take(self) -> Spool:
        """Return an empty file."""
        try:
            return Spool(self._kept.pop(), home=self)
        except IndexError:
            return Spool(Spool.create().detached(), home=self)

    def keep(self, descriptor: int) -> bool:
        """Keep a file, and return True, unless there are enough."""
        if len(self._kept) >= self._most:
            return False
        self._kept.append(descriptor)
        return True


class Spool:
    """Bytes in an anonymous memory file: written once, read any number of times.

    The kernel frees such a file when the last process that has it open ends, even by kill -9.
    `multiprocessing.shared_memory` has names, which would stay behind then.
    """

    def __init__(self, descriptor: int, size: int = 0, *, home: SpoolPool | None = None) -> None:
        """Take over the descriptor of a file with so many bytes; it is closed with this object.

        Args:
            descriptor: Of the file.
            size: Bytes of the content.
            home: Where the file is kept for other content once nobody uses this one.
        """
        self.descriptor, self.size = descriptor, size
        self._home = home
        self._maps: list[weakref.ref[mmap.mmap]] = []

    @classmethod
    def create(cls) -> Spool:
        """Create an empty one."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("pesto-spool"))
        # memfd_create(2) is Linux's; elsewhere a file on disk whose name is deleted already
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    @classmethod
    def of(cls, data: bytes, pool: SpoolPool | None = None) -> Spool:
        """Create one that contains these bytes, in a file of a pool if there is one."""
        spool = cls.create() if pool is None else pool.take()
        spool.write(data)
        return spool

    def __len__(self) -> int:
        return self.size

    def __del__(self) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view[:_PIECE_BYTES], self.size)
            self.size += written
            view = view[written:]

    def pieces(self, piece_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
        """Yield all bytes, in pieces of this size.

        Raises:
            EOFError: another process has truncated the file.
        """
        for begin in range(0, self.size, piece_bytes):
            wanted = min(piece_bytes, self.size - begin)
            piece = os.pread(self.descriptor, wanted, begin)
            if len(piece) != wanted:
                raise EOFError(f"a spool of {self.size} bytes ends at {begin + len(piece)}")
            yield piece

    def whole(self) -> bytes:
        """Return a copy of all bytes."""
        if 0 < self.size <= KEPT_BYTES:
            return next(self.pieces(self.size))
        copy = io.BytesIO()  # its getvalue() does not copy the bytes again
        for piece in self.pieces():
            copy.write(piece)
        return copy.getvalue()

    def shared(self) -> mmap.mmap:
        """Map the bytes; writing to the map changes the file."""
        return self._noted(mmap.mmap(self.descriptor, self.size))

    def mapped(self) -> mmap.mmap:
        """Map the bytes; the memory is freed after the map, and arrays over it, are deleted.

        Writing to the map does not change the file: the pages are copied on write.
        """
        return self._noted(mmap.mmap(self.descriptor, self.size, access=mmap.ACCESS_COPY))

    def _noted(self, found: mmap.mmap) -> mmap.mmap:
        self._maps.append(weakref.ref(found))
        return found

    @property
    def is_mapped(self) -> bool:
        """Whether a map of it lives, or an array over one: then its bytes must not change."""
        return any(each() is not None for each in self._maps)

    def give_back(self) -> None:
        """Keep the file for other content; close it if it has no home, or is too large to keep."""
        descriptor = self.detached()
        if descriptor == _NOT_OPEN:
            return
        if self._home is None or self.size > KEPT_BYTES or not self._home.keep(descriptor):
            os.close(descriptor)

    def detached(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        descriptor, self.descriptor = self.descriptor, _NOT_OPEN
        return descriptor

    def close(self) -> None:
        """Close the file; maps of it stay valid."""
        if self.descriptor != _NOT_OPEN:
            os.close(self.descriptor)
            self.descriptor = _NOT_OPEN
