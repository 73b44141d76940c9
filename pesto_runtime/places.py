"""Name files on this machine and objects of buckets and web servers in one way.

A place is a `Path`, or a `RemotePath` with those methods of a path that a run uses. Objects are
written whole or not at all. How stores are opened is in `remote.py`; the objects of a run with
their checksums are in `store.py`.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from pesto_runtime.errors import InvalidInput, StoreRefused
from pesto_runtime.hrefs import file_href, path_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from datetime import datetime

    from obstore import GetOptions, ListResult, ObjectMeta
    from obstore.store import ObjectStore

WRITABLE = ("s3", "gs", "az")
_READABLE = (*WRITABLE, "http", "https")
_PART_BYTES = 8 << 20
_MOST_PARTS = 9_000  # S3 accepts 10 000
_CHUNKS_AHEAD = 16
_POLL_S = 0.05


class Status(NamedTuple):
    """The size of an object, bytes, under the name that it has for files; and its ETag."""

    st_size: int
    tag: str | None


class Version(NamedTuple):
    """One version of an object: its bytes, its ETag, and the time of its writing."""

    data: bytes
    tag: str | None
    modified: datetime


@dataclass(frozen=True)
class RemotePath:
    """An object, or the folder of objects with this prefix, in a bucket or on a web server.

    Every method raises `Unreachable` if the store is away, and `StoreFailed` for a missing
    permission or bucket.

    Attributes:
        href: `s3://…`, `gs://…`, `az://…`; for reading also a URL of a web server.
    """

    href: str

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.href}/{name}")

    def __str__(self) -> str:
        return self.href

    @property
    def name(self) -> str:
        """The last part of the path."""
        return urlsplit(self.href).path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, as `.tif`."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder of the object."""
        return RemotePath(self.href.rpartition("/")[0])

    def absolute(self) -> RemotePath:
        """Return the same place: an href is absolute."""
        return self

    resolve = absolute

    def as_uri(self) -> str:
        """Return the href."""
        return self.href

    def stat(self) -> Status:
        """Return the size.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with _opened(self.href) as (objects, name):
            facts = objects.head(name)
        return Status(facts["size"], facts["e_tag"])

    def exists(self) -> bool:
        """Whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    is_file = exists

    def is_dir(self) -> bool:
        """Return False: an object and a folder may have the same name."""
        return False

    def read_bytes(self) -> bytes:
        """Read the object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with _opened(self.href) as (objects, name):
            return bytes(objects.get(name).bytes())

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the object as text.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.read_bytes().decode(encoding)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the object in pieces of some MiB, each by a request of its own.

        One request for a large object would exceed the time limit of a request.

        Raises:
            FileNotFoundError: there is no such object.
            StoreFailed: it was changed meanwhile.
        """
        with _opened(self.href) as (objects, name):
            facts = objects.head(name)
            for start in range(0, facts["size"], _PART_BYTES):
                part = (start, min(start + _PART_BYTES, facts["size"]))
                options: GetOptions = {"range": part}
                if facts["e_tag"]:
                    options["if_match"] = facts["e_tag"]
                yield bytes(objects.get(name, options=options).bytes())

    def sha256(self) -> tuple[str, int]:
        """Return the sha256 (hexadecimal) and the number of the object's bytes.

        Raises:
            FileNotFoundError: there is no such object.
        """
        digest, count = hashlib.sha256(), 0
        for chunk in self.chunks():
            digest.update(chunk)
            count += len(chunk)
        return digest.hexdigest(), count

    def write_bytes(self, data: bytes) -> None:
        """Write the object; readers see all of it or what was there before."""
        self._put(data, len(data))

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Write the object as text."""
        self.write_bytes(text.encode(encoding))

    def write_chunks(
        self, chunks: Iterable[bytes | memoryview], *, size: int = 0
    ) -> tuple[str, int]:
        """Write the object from pieces by a multipart upload, without a copy on this machine.

        If the pieces fail, the upload is ended, and readers see what was there before.

        Args:
            chunks: The bytes in order, in pieces of any size.
            size: Bytes of all pieces, if they are more than 70 GiB; they decide the size of a part.

        Returns:
            sha256 (hexadecimal) and number of the bytes.
        """
        digest, count = hashlib.sha256(), 0

        def counted() -> Iterator[bytes | memoryview]:
            nonlocal count
            for chunk in chunks:
                digest.update(chunk)
                count += len(chunk)
                yield chunk

        with closing(_ahead(counted())) as made:
            self._put(made, size)
        return digest.hexdigest(), count

    def _put(self, data: bytes | Iterator[bytes | memoryview], size: int) -> None:
        with _opened(self.href, missing="bucket") as (objects, name):
            objects.put(
                name,
                data,
                use_multipart=not isinstance(data, bytes),
                chunk_size=max(_PART_BYTES, -(-size // _MOST_PARTS)),
                max_concurrency=4,
            )

    def read_version(self) -> Version | None:
        """Read the object with its version; None without one."""
        try:
            with _opened(self.href) as (objects, name):
                found = objects.get(name)
                data = bytes(found.bytes())
        except FileNotFoundError:
            return None
        return Version(data, found.meta["e_tag"], found.meta["last_modified"])

    def write_version(self, data: bytes, *, over: str | None) -> str | None:
        """Write the object if its version is the one that was read.

        Args:
            data: Its bytes.
            over: The ETag of that version; None if there was no object.

        Returns:
            The new ETag; None if the object has another version.

        Raises:
            StoreRefused: the store has no conditional writes.
        """
        from pesto_runtime.remote import write_version  # loads obstore

        return write_version(self.href, data, over=over)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete the object.

        Raises:
            FileNotFoundError: there is no such object, and `missing_ok` is False.
        """
        if not missing_ok:
            self.stat()
        with suppress(FileNotFoundError), _opened(self.href) as (objects, name):
            objects.delete(name)

    def names(self) -> list[str]:
        """Return the names of the objects directly in this folder, sorted."""
        return sorted(each["path"].rpartition("/")[2] for each in self._listed()["objects"])

    def folders(self) -> list[str]:
        """Return the names of the folders directly in this folder, sorted."""
        return sorted(each.rpartition("/")[2] for each in self._listed()["common_prefixes"])

    def _listed(self) -> ListResult[Sequence[ObjectMeta]]:
        with _opened(self.href, missing="bucket") as (objects, name):
            return objects.list_with_delimiter(name.rstrip("/") + "/" if name else None)


AnyPath: TypeAlias = Path | RemotePath
"""A file or folder on this machine, or an object or a folder of objects elsewhere."""


def place_of(text: str | Path | RemotePath) -> AnyPath:
    """Return the place that a path or href names.

    >>> place_of("s3://bucket/a/b.json").name, place_of("file:///data/a.json").name
    ('b.json', 'a.json')

    Raises:
        InvalidInput: the scheme is not known.
    """
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text)
    scheme = urlsplit(text).scheme
    if scheme == "file":
        return path_of(text)
    if scheme not in _READABLE:
        raise InvalidInput(f"{text} has the scheme {scheme!r}; {_SCHEMES}")
    return RemotePath(text.rstrip("/"))


def output_place(text: str | Path | RemotePath) -> AnyPath:
    """Return the place of an output folder, absolute.

    Raises:
        StoreRefused: it is empty, or its scheme is not known or cannot be written.
    """
    if not str(text):
        raise StoreRefused("the output folder is empty: write its path, `.` for this one")
    try:
        place = place_of(text)
    except InvalidInput as error:
        raise StoreRefused(f"{text} cannot be an output folder; {_SCHEMES}") from error
    if isinstance(place, RemotePath):
        parts = urlsplit(place.href)
        if parts.scheme not in WRITABLE or not parts.netloc or parts.query or parts.fragment:
            raise StoreRefused(
                f"{place} cannot be an output folder: it cannot be written; {_SCHEMES}"
            )
    # The author's code may change the working directory.
    return place.absolute()


def href_of(place: AnyPath) -> str:
    """Return the href of a place."""
    return place.href if isinstance(place, RemotePath) else file_href(place)


def _ahead(chunks: Iterable[bytes | memoryview]) -> Generator[bytes | memoryview]:
    """Yield what another thread makes: obstore panics if it is called while it takes a chunk."""
    made: Queue[bytes | memoryview | None] = Queue(_CHUNKS_AHEAD)
    is_ended = threading.Event()

    def make() -> None:
        try:
            for chunk in chunks:
                made.put(chunk)
                if is_ended.is_set():
                    return
        finally:
            made.put(None)

    with ThreadPoolExecutor(1, "pesto-upload") as pool:
        making = pool.submit(copy_context().run, make)
        try:
            while (chunk := made.get()) is not None:
                yield chunk
            making.result()
        finally:
            is_ended.set()
            while not making.done():  # it may wait for room
                with suppress(Empty):
                    made.get(timeout=_POLL_S)


@contextmanager
def _opened(href: str, *, missing: str = "object") -> Iterator[tuple[ObjectStore, str]]:
    """Yield the store of an object and its name there; translates errors of obstore."""
    from pesto_runtime.remote import open_object, translated  # loads obstore

    with translated(href, missing=missing):
        yield open_object(href)


_SCHEMES = (
    "write a folder of this machine, file:///folder, s3://bucket/prefix, gs://bucket/prefix or "
    "az://container/prefix"
)
