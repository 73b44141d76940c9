"""Store the objects of a run under one base href, on a local disk or in a bucket.

Each object is written atomically, and ends with a checksum of its name and its bytes, which every
reader verifies. A damaged object is deleted: it counts as missing, and is made again. Packs of
blocks, which are read in parts, have checksums of their own: `run/packs.py`. The names of the
objects are in `run/context.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from obstore.exceptions import BaseError
from obstore.store import LocalStore

from pesto_runtime.errors import Damaged, NotFound, StoreRefused
from pesto_runtime.hrefs import path_of
from pesto_runtime.places import place_of
from pesto_runtime.remote import failure_of, open_bucket, reason_of, store_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from obstore.store import ObjectStore
    from pydantic import JsonValue

    from pesto_runtime.places import AnyPath


_SEAL = b"\nsha256:"
_SEAL_BYTES = len(_SEAL) + 64
_BUFFER_BYTES = 1 << 20


class Store:
    """Objects by name under a base href: `file:///…`, `s3://…`, `gs://…`, `az://…`, `memory:///`."""

    def __init__(self, base: str) -> None:
        """Open a store; a missing local folder is created.

        Raises:
            StoreRefused: the scheme is unknown, or the folder cannot be created.
        """
        self.base = base.rstrip("/")
        try:
            self._objects: ObjectStore = (
                LocalStore(path_of(base), mkdir=True)
                if base.startswith("file:")
                else open_bucket(base)
            )
        except (BaseError, OSError, ValueError) as error:
            raise StoreRefused(f"{base} cannot be a run store: {reason_of(error)}") from error

    def href(self, name: str) -> str:
        """Return the href of an object."""
        return f"{self.base}/{name}"

    def place(self, name: str) -> AnyPath:
        """Return the place of an object, for a file without the checksum of this store.

        Raises:
            InvalidInput: the store is neither a local folder nor in a bucket.
        """
        return place_of(self.href(name))

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole with its checksum, or not at all.

        Raises:
            StoreFailed: disk full, no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        self.before_put(name)
        try:
            self._objects.put(name, data + _seal(name, data))
        except (BaseError, OSError) as error:
            raise failure_of(error, self.href(name)) from error

    def before_put(self, name: str) -> None:
        """Do nothing; a store that is guarded checks here whether it may write an object."""

    def begin(self, name: str) -> NewObject:
        """Begin an object that is written in pieces, without the checksum of this store.

        Args:
            name: A name that nobody else uses: a file of a local folder has it while it is written.
        """
        if self.base.startswith("file:"):
            return _NewFile(self, name)
        return _NewUpload(self)

    def put_bare(self, name: str, parts: Sequence[bytes]) -> None:
        """Write an object whole, without a checksum, or not at all.

        Raises:
            StoreFailed: as for `put`.
            Unreachable: as for `put`.
        """
        self.before_put(name)
        try:
            self._objects.put(name, b"".join(parts))
        except (BaseError, OSError) as error:
            raise failure_of(error, self.href(name)) from error

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Read parts of an object without verifying them.

        Args:
            name: Its name.
            ranges: First byte, and the byte after the last one, of each part.

        Raises:
            NotFound: it does not exist, or is shorter.
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        try:
            found = self._objects.get_ranges(name, starts=starts, ends=ends)
        except FileNotFoundError as error:
            raise NotFound(f"{self.href(name)} does not exist") from error
        except (BaseError, OSError) as error:
            raise failure_of(error, self.href(name)) from error
        return [memoryview(each) for each in found]

    def get(self, name: str) -> bytes:
        """Read an object, and verify its checksum.

        Raises:
            NotFound: it does not exist.
            Damaged: it was cut, changed, or written under another name; it has been deleted.
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        try:
            stored = bytes(self._objects.get(name).bytes())
        except FileNotFoundError as error:
            raise NotFound(f"{self.href(name)} does not exist") from error
        except (BaseError, OSError) as error:
            raise failure_of(error, self.href(name)) from error
        data = stored[:-_SEAL_BYTES]
        if stored[-_SEAL_BYTES:] != _seal(name, data):
            self.delete([name])
            raise Damaged(
                f"{self.href(name)} was damaged: its checksum differs; it has been deleted, and "
                "the same command or a retry makes it again"
            )
        return data

    def has(self, name: str) -> bool:
        """Whether an object exists undamaged; reads all of it.

        Raises:
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        try:
            self.get(name)
        except NotFound:
            return False
        return True

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all non-empty objects below a folder, in any order.

        Raises:
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        return (name for name, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield name and bytes, with the checksum, of all non-empty objects below a folder.

        Raises:
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        return ((name, size) for name, size, _ in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[tuple[str, int, datetime]]:
        """Yield name, bytes and time of writing of all non-empty objects below a folder.

        Raises:
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        try:
            for batch in self._objects.list(prefix.rstrip("/") + "/"):
                for entry in batch:
                    if entry["size"]:
                        yield entry["path"], entry["size"], entry["last_modified"]
        except (BaseError, OSError) as error:
            raise failure_of(error, self.href(prefix)) from error

    def delete(self, names: list[str]) -> None:
        """Delete objects; names that do not exist are ignored.

        Raises:
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        try:
            if names:
                self._objects.delete(names)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise failure_of(error, self.base) from error

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects below a folder; of a local one also what a killed writer has left.

        Raises:
            StoreFailed: no permission, no such bucket.
            Unreachable: the store is away for longer than a minute.
        """
        path = path_of(self.href(prefix)) if self.base.startswith("file:") else None
        if path is not None and not path.exists():
            return
        self.delete(list(self.names(prefix)))
        if path is not None:
            with suppress(OSError):  # what remains is of no run
                shutil.rmtree(path)
            with suppress(OSError):  # other keys are still in it
                path.parent.rmdir()

    def put_json(self, name: str, document: JsonValue | dict[str, object]) -> None:
        """Write a JSON document as an object.

        Raises:
            StoreFailed: as for `put`.
        """
        self.put(name, json.dumps(document, allow_nan=False).encode())

    def get_json(self, name: str) -> JsonValue:
        """Read an object as a JSON document.

        Raises:
            NotFound: it does not exist.
            Damaged: as for `get`.
            StoreFailed: as for `get`.
        """
        document: JsonValue = json.loads(self.get(name))
        return document


class NewObject(Protocol):
    """An object that is written in pieces, and appears whole at its end."""

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StoreFailed: disk full, no permission.
        """

    def finish(self, name: str) -> None:
        """Make the object appear under its final name.

        Raises:
            Damaged: another run has deleted its folder meanwhile.
            StoreFailed: as for `Store.put`.
            Unreachable: as for `Store.put`.
        """

    def discard(self) -> None:
        """Drop what was written."""


class _NewFile:
    """A file beside its final place. Its name ends with `#0`: such files are not listed."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        final = path_of(store.href(name))
        self._path = final.with_name(f"{final.name}#0")
        with self._translated():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb", buffering=_BUFFER_BYTES)

    def write(self, data: bytes) -> None:
        with self._translated():
            self._file.write(data)

    def finish(self, name: str) -> None:
        self._store.before_put(name)
        with self._translated():
            self._file.close()
            try:
                self._path.replace(path_of(self._store.href(name)))
            except FileNotFoundError as error:
                raise Damaged(
                    f"{self._store.href(name)} was deleted while it was written: another run that "
                    "used this store has ended; the same command or a retry makes it again"
                ) from error

    def discard(self) -> None:
        with suppress(OSError):  # a full disk: closing writes what is still in memory
            self._file.close()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failure_of(error, self._store.href(self._name)) from error


class _NewUpload:
    """Pieces in memory, which become an object at the end: a bucket has no unfinished objects."""

    def __init__(self, store: Store) -> None:
        self._store, self._parts = store, list[bytes]()

    def write(self, data: bytes) -> None:
        self._parts.append(data)

    def finish(self, name: str) -> None:
        self._store.put_bare(name, self._parts)

    def discard(self) -> None:
        self._parts.clear()


def open_store(base: str) -> Store:
    """Open a store, once per process, base, and settings of the environment.

    Raises:
        StoreRefused: as for `Store`.
    """
    # A folder has no variables; reading them takes longer than opening it.
    return _opened_store(base, () if base.startswith("file:") else store_variables())


@lru_cache(maxsize=8)
def _opened_store(base: str, _variables: tuple[tuple[str, str], ...]) -> Store:
    return Store(base)


def _seal(name: str, data: bytes) -> bytes:
    """Return the end of a stored object."""
    # With the name, the object of another block or of another run is recognised in its place.
    return _SEAL + hashlib.sha256(name.encode() + b"\0" + data).hexdigest().encode()
