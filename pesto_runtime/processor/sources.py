"""Compile an author's modules from their sources, and hash the bytes that were compiled.

Each loader keeps the bytes that it has read: a file that is edited while an import takes its time
is then not taken for the code that runs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

_PIECE_BYTES = 1 << 20
_roots: set[str] = set()
_single_folders: set[str] = set()


@dataclass(frozen=True)
class Source:
    """A file as it was when it was read.

    Attributes:
        file: Its path.
        content: Its bytes.
        stamp: Modification time in nanoseconds, size in bytes, and inode, before it was read.
    """

    file: Path
    content: bytes
    stamp: tuple[int, int, int]


def read_source(file: Path) -> Source:
    """Read a file; an edit during the read gives it another stamp than that of the result."""
    with file.open("rb") as opened:
        stamp = _stamp(os.fstat(opened.fileno()))
        return Source(file, opened.read(), stamp)


def is_unchanged(file: Path, stamp: tuple[int, int, int]) -> bool:
    """Return whether a file still has this stamp; false if it was deleted."""
    try:
        return _stamp(file.stat()) == stamp
    except FileNotFoundError:
        return False


def source_of(module: ModuleType) -> Source | None:
    """Return the file of a module as it was loaded; None if it has no file.

    What a foreign loader has read cannot be known: then it is the file as it is now.
    """
    loader = _loader(module)
    if isinstance(loader, _ReadOnce):
        return loader.source
    file = getattr(module, "__file__", None)
    return read_source(Path(file)) if isinstance(file, str) else None


def sources_of(package: str) -> list[Source]:
    """Return the sources of the imported modules of a package that were compiled by this file."""
    modules = sys.modules.copy()  # other threads import meanwhile
    names = [name for name in modules if f"{name}.".startswith(f"{package}.")]
    loaders = [_loader(modules[name]) for name in names]
    return [loader.source for loader in loaders if isinstance(loader, UncachedLoader)]


def modules_below(folder: Path) -> Iterator[Path]:
    """Yield the files of the modules of a package; `.venv` is no name of a package in it."""
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each.isidentifier()]
        yield from (Path(place, each) for each in files if each.endswith(".py"))


def sources_digest(
    root: Path,
    files: Iterable[Path] = (),
    *,
    sources: Iterable[Source] = (),
    profiles: Sequence[str] = (),
) -> str:
    """Return `sha256:…` of profiles in order, and of sorted files, each with its relative path.

    Args:
        root: The paths are relative to this directory.
        files: Read now, unless they are in `sources`.
        sources: Files as they were read before.
        profiles: Profiles of a project.
    """
    total = hashlib.sha256()
    for profile in profiles:
        total.update(f"profile\0{profile}\0".encode())
    read = {(each.file, each.content) for each in sources}
    others = set(files) - {file for file, _ in read}
    for file, content in sorted([*read, *((file, None) for file in others)], key=_in_order):
        size = file.stat().st_size if content is None else len(content)
        total.update(f"file\0{file.relative_to(root).as_posix()}\0{size}\0".encode())
        for piece in _pieces(file) if content is None else (content,):
            total.update(piece)
    return "sha256:" + total.hexdigest()


def _loader(module: ModuleType) -> object:
    return getattr(getattr(module, "__spec__", None), "loader", None)


def _in_order(entry: tuple[Path, bytes | None]) -> tuple[Path, bytes]:
    return entry[0], entry[1] or b""


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(_PIECE_BYTES):  # data files of a project may be large
            yield piece


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


class _ReadOnce:
    """A loader that keeps the file as it has read it; each import has a new loader."""

    path: str

    @cached_property
    def source(self) -> Source:
        return read_source(Path(self.path))


class UncachedLoader(_ReadOnce, SourceFileLoader):  # type: ignore[misc]  # bases of typeshed
    """Compiles the source on every load.

    A bytecode cache is valid if size and modification time in whole seconds are equal
    (https://docs.python.org/3/reference/import.html#cached-bytecode-invalidation), so a quick edit
    of the same size would not be noticed.
    """

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # importlib's signature
        """Return the code, compiled from the source."""
        return self.source_to_code(self.source.content, self.path)


class _ExtensionLoader(_ReadOnce, ExtensionFileLoader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _ = self.source  # read before the library is mapped
        return super().create_module(spec)


def import_from_source(root: Path, *, below: bool = True) -> None:
    """Have the modules of a directory compiled from their sources, also those they import.

    With bytecode, the old code could run under the digest of the new source: see `UncachedLoader`.

    Args:
        root: The directory.
        below: Whether this holds for the directories below it, too.
    """
    if _path_hook not in sys.path_hooks:
        sys.path_hooks.insert(0, _path_hook)
    (_roots if below else _single_folders).add(str(root))
    for folder in [each for each in sys.path_importer_cache if _is_source_folder(each)]:
        if not isinstance(sys.path_importer_cache[folder], _SourceFinder):
            del sys.path_importer_cache[folder]


def _is_source_folder(folder: str) -> bool:
    # Packages that are installed below a root, as in `.venv`, do not change between calls.
    if "site-packages" in folder:
        return False
    below = any(folder == root or folder.startswith(f"{root}{os.sep}") for root in _roots)
    return below or folder in _single_folders


class _SourceFinder(FileFinder):
    """Finds the modules of an author's folder."""


def _path_hook(folder: str) -> _SourceFinder:
    if not _is_source_folder(folder):
        raise ImportError(f"{folder} is not a folder of an author")
    return _SourceFinder(
        folder, (_ExtensionLoader, EXTENSION_SUFFIXES), (UncachedLoader, SOURCE_SUFFIXES)
    )
