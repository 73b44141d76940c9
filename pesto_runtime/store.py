"""The run store: small objects under one base href, local or in a bucket; each put is atomic."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from pesto_runtime.errors import NotFound, StoreFailed, StoreRefused, shortened
from pesto_runtime.hrefs import path_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from obstore.store import ObjectStore
    from pydantic import JsonValue


class Store:
    """Objects by name under a base href: `file:///…`, `s3://…`, `gs://…`, `az://…`, `memory:///`."""

    def __init__(self, base: str) -> None:
        """Open a store; a local folder is made where it is missing.

        Raises:
            StoreRefused: no such scheme, or the folder cannot be made.
        """
        self.base = base.rstrip("/")
        try:
            self._objects: ObjectStore = (
                LocalStore(path_of(base), mkdir=True)
                if base.startswith("file:")
                else from_url(base)
            )
        except (BaseError, OSError, ValueError) as error:
            raise StoreRefused(f"{base} cannot be a run store: {_reason(error)}") from error

    def href(self, name: str) -> str:
        """The href of an object."""
        return f"{self.base}/{name}"

    def path(self, name: str) -> Path:
        """The local path of an object.

        Raises:
            InvalidInput: the store is not a local folder.
        """
        return path_of(self.href(name))

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole, or not at all.

        Raises:
            StoreFailed: disk full, permission, or the store does not answer.
        """
        try:
            self._objects.put(name, data)
        except (BaseError, OSError) as error:
            raise StoreFailed(f"{self.href(name)}: {_reason(error)}") from error

    def get(self, name: str) -> bytes:
        """Read an object.

        Raises:
            NotFound: it is not there.
            StoreFailed: the store does not answer.
        """
        try:
            return bytes(self._objects.get(name).bytes())
        except FileNotFoundError as error:
            raise NotFound(f"{self.href(name)} is not there") from error
        except (BaseError, OSError) as error:
            raise StoreFailed(f"{self.href(name)}: {_reason(error)}") from error

    def names(self, prefix: str) -> Iterator[str]:
        """Names of the objects below a folder that hold anything; order unspecified.

        Raises:
            StoreFailed: the store does not answer.
        """
        try:
            for batch in self._objects.list(prefix.rstrip("/") + "/"):
                yield from (entry["path"] for entry in batch if entry["size"])
        except (BaseError, OSError) as error:
            raise StoreFailed(f"{self.href(prefix)}: {_reason(error)}") from error

    def delete(self, names: list[str]) -> None:
        """Delete objects; one that is not there is no error.

        Raises:
            StoreFailed: permission, or the store does not answer.
        """
        try:
            if names:
                self._objects.delete(names)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StoreFailed(f"{self.base}: {_reason(error)}") from error

    def put_json(self, name: str, document: JsonValue | dict[str, object]) -> None:
        """Write a JSON object; raises as `put` does."""
        self.put(name, json.dumps(document, allow_nan=False).encode())

    def get_json(self, name: str) -> JsonValue:
        """Read a JSON object; raises as `get` does."""
        document: JsonValue = json.loads(self.get(name))
        return document


@lru_cache(maxsize=8)
def open_store(base: str) -> Store:
    """Open a store, once per process and base; raises as `Store` does."""
    return Store(base)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, and the operating system's word for it."""
    text = str(error)
    for known in ("No space left on device", "Permission denied", "Not a directory",
                  "Read-only file system", "File name too long"):  # fmt: skip
        if known in text:
            return known
    return shortened(text.strip().partition("\n")[0]).strip("'\"")
