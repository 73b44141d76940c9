"""Read and write what a cache has of runs: sealed objects, and packs of sealed blocks.

A cache is optional: where it fails, a run computes, and reports the failure once. Everything in it
is sealed with its name, which has its key: what is damaged, or lies in the place of something else,
is deleted, and counts as missing. With `PESTO_CACHE_SECRET` only holders of the secret can seal;
runs with other secrets have other folders.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Window
from pesto_runtime.contract.band_files import files_of
from pesto_runtime.errors import Damaged, NotFound, PestoError, StoreRefused
from pesto_runtime.hrefs import path_of
from pesto_runtime.places import WRITABLE, href_of, output_place
from pesto_runtime.raster.identity import is_local
from pesto_runtime.run.packs import PackWriter, StoredBlocks
from pesto_runtime.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.tiling import BlockIndex

LAYOUT = "pesto-cache-1"
"""Folder of everything in a cache; increase its number with the layout."""
_SECRET = "PESTO_CACHE_SECRET"  # noqa: S105  # the name of a variable
_SEAL_BYTES = 32
_SAMPLES, _SAMPLE_BYTES = 128, 64 << 10
_LOG = logging.getLogger(__name__)
_reported: set[tuple[str, type]] = set()


def cache_base(text: str) -> str:
    """Return the base href of a cache, which is a folder, or a prefix of a bucket.

    Raises:
        StoreRefused: its scheme is not known or cannot be written, or it cannot be opened.
        PestoError: the bucket cannot be read.
    """
    if text.startswith("memory:///"):
        return text
    if not text:
        raise StoreRefused("the cache is empty (cache): write its place, or leave it out")
    try:
        base = href_of(output_place(text))
        next(open_store(base).names(LAYOUT), None)
    except StoreRefused as error:
        schemes = ", ".join(f"{each}://…" for each in WRITABLE)
        raise StoreRefused(
            f"{text!r} cannot be a cache (cache): {error.detail}; write a folder, or {schemes}"
        ) from error
    except PestoError as error:
        raise error.prefixed("the cache") from error
    return base


def content_digest(href: str) -> str:
    """Return a digest of some of the bytes of a local scene; empty for a remote one."""
    digest = hashlib.sha256()
    for each in files_of(href):
        if not is_local(each):
            return ""
        path = path_of(each)
        size = path.stat().st_size
        step = max(_SAMPLE_BYTES, size // _SAMPLES)
        with path.open("rb") as file:
            for start in range(0, size, step):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


@dataclass(frozen=True)
class CacheStore:
    """A cache as a run uses it; no method fails because of the cache.

    Attributes:
        store: The objects.
    """

    store: Store

    @property
    def root(self) -> str:
        """Folder of the objects that are sealed with the secret of this process."""
        return f"{LAYOUT}/{_seal('', b'')[:4].hex()}"

    def get(self, name: str) -> bytes | None:
        """Return an object; None if it is not there, or was not sealed under this name."""
        with _forgiven(self.store), suppress(NotFound):
            data = _opened(name, self.store.get(f"{self.root}/{name}"))
            if data is None:
                self.store.delete([f"{self.root}/{name}"])
            return data
        return None

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        with _forgiven(self.store):
            self.store.put(f"{self.root}/{name}", _sealed(name, data))
            self._share(f"{self.root}/{name}".rpartition("/")[0])

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects below a folder."""
        with _forgiven(self.store):
            names = self.store.names(f"{self.root}/{folder}")
            return [name[len(self.root) + 1 :] for name in names]
        return []

    def windows(self, key: str) -> list[Window]:
        """Return the windows of the runs with blocks of a key; pixels of the first scene."""
        found = {name.split("/")[2] for name in self.names(f"blocks/{key}")}
        return [Window(*map(int, each.split("-"))) for each in sorted(found)]

    def blocks(self, folder: str, window: Window) -> StoredBlocks | None:
        """Return the blocks of a part of a grid that are stored; None if the cache fails."""
        with _forgiven(self.store):
            found = StoredBlocks.of(self.store, f"{self.root}/{folder}", window)
            self._touch(found.packs)
            return found
        return None

    def read(self, folder: str, stored: StoredBlocks, index: BlockIndex) -> bytes | None:
        """Return a block (row, col); None if it is damaged or not there any more."""
        with _forgiven(self.store), suppress(NotFound, Damaged):
            data = _opened(_block_name(folder, index), stored.read(index))
            if data is None:
                self.store.delete([stored.pack_of(index)])
            return data
        return None

    def write(self, folder: str, blocks: Iterator[tuple[BlockIndex, bytes]]) -> None:
        """Write blocks (row, col) into packs."""
        writer = PackWriter(self.store, f"{self.root}/{folder}")
        with _forgiven(self.store):
            try:
                for index, data in blocks:
                    writer.add(index, _sealed(_block_name(folder, index), data))
                writer.flush()
            finally:
                writer.discard()
            self._share(f"{self.root}/{folder}")

    def describe(self, key: str, facts: Mapping[str, JsonValue]) -> None:
        """Write once what `pesto cache ls` shows of a key."""
        name = f"about/{key}.json"
        if self.get(name) is None:
            self.put(name, json.dumps(facts).encode())

    def described(self, key: str) -> tuple[str, str]:
        """Return process and scene of a key, as `describe` wrote them; empty texts without."""
        data = self.get(f"about/{key}.json")
        facts = json.loads(data) if data else {}
        return str(facts.get("process", "")), str(facts.get("scene", ""))

    def _touch(self, packs: tuple[str, ...]) -> None:
        """Give packs the time of their use; in a bucket, they keep the time of their writing."""
        if self.store.base.startswith("file:"):
            for name in packs:
                with suppress(OSError):
                    os.utime(path_of(self.store.href(name)))

    def _share(self, folder: str) -> None:
        """Give own files and folders the permissions of the cache's folder: it may be shared."""
        if not self.store.base.startswith("file:"):
            return
        root = path_of(self.store.base)
        mode, path = stat.S_IMODE(root.stat().st_mode), path_of(self.store.href(folder))
        own = [each for each in path.iterdir() if each.is_file() and not each.name.endswith("#0")]
        for each in own:
            _permit(each, mode & 0o666)
        while path not in (root, path.parent):
            _permit(path, mode)
            path = path.parent


def open_cache(href: str) -> CacheStore | None:
    """Open a cache; None, and a line in the log, if that fails."""
    with _forgiven(href):
        return CacheStore(open_store(href))
    return None


def _permit(path: Path, mode: int) -> None:
    with suppress(OSError):  # of another user, who has done so
        if path.stat().st_uid == os.getuid() and stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


@contextmanager
def _forgiven(cache: Store | str) -> Iterator[None]:
    """Log an error of the cache instead of raising it, once per place and process."""
    try:
        yield
    except (PestoError, OSError) as error:
        base = cache.base if isinstance(cache, Store) else cache
        if (base, type(error)) not in _reported:
            _reported.add((base, type(error)))
            _LOG.warning("the cache %s is left out: %s", base, error)


def _block_name(folder: str, index: BlockIndex) -> str:
    return f"{folder}/{index[0]}/{index[1]}"


def _sealed(name: str, data: bytes) -> bytes:
    return _seal(name, data) + data


def _opened(name: str, stored: bytes) -> bytes | None:
    data = stored[_SEAL_BYTES:]
    return data if hmac.compare_digest(stored[:_SEAL_BYTES], _seal(name, data)) else None


def _seal(name: str, data: bytes) -> bytes:
    # Without a secret it is a checksum.
    secret = os.environ.get(_SECRET, "").encode()
    return hmac.digest(secret, name.encode() + b"\0" + data, "sha256")
