"""Identify the content of a raster, and require that it is still the one that was planned.

A local file is identified by its size, modification time and inode, and by those of the files
beside it that state facts of it; a remote one by what its server states. The content is not read.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pesto_runtime.contract.band_files import files_of, stacked_bands
from pesto_runtime.errors import NotFound, RasterUnreadable, SceneChanged, StoreFailed
from pesto_runtime.raster.side_files import side_files
from pesto_runtime.remote import stated_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def identity_of(href: str, beside: Mapping[str, Path] | None = None) -> str:
    """Return the identity of a raster; empty if its server states none or refuses to.

    Args:
        href: The raster.
        beside: Name -> path of the files beside it; None to look them up.

    To be requested before the raster is opened: a raster that is replaced in between then has
    another identity than the plan, and the first chunk reports it.

    Raises:
        RasterUnreadable: a local file does not exist, or may not be read.
        Unreachable: the server is away.
    """
    if stacked_bands(href):
        found = [identity_of(each) for each in files_of(href)]
        return " ".join(found) if all(found) else ""
    path = _file_of(href)
    if path is not None:
        try:
            return _local_identity(path, beside)
        except FileNotFoundError as error:
            raise RasterUnreadable(f"{href} does not exist") from error
        except OSError as error:
            raise RasterUnreadable(f"{href} cannot be read: {error.strerror or error}") from error
    try:
        return stated_identity(href)
    except (NotFound, StoreFailed):  # GDAL may read it, by GET or with other credentials
        return ""


def require_unchanged(
    href: str, planned: str | None, beside: Mapping[str, Path] | None = None
) -> None:
    """Require that a raster has the planned identity; nothing is compared if that is empty.

    Raises:
        SceneChanged: it was replaced, overwritten or deleted; names both identities.
        RasterUnreadable: a local file may not be read.
        Unreachable: the server does not state the identity now.
    """
    if not planned:
        return
    now = _present(href, beside)
    if now == planned:
        return
    found = "it no longer exists" if now is None else f"it is now {now or 'without identity'}"
    raise SceneChanged(
        f"{href} is not the scene that was planned: its identity was {planned}, {found}; run again "
        "to plan with the scene as it is"
    )


@contextmanager
def unchanged(
    href: str, planned: str | None, beside: Mapping[str, Path] | None = None
) -> Iterator[None]:
    """Require the planned identity around reading: before of a local file, after always.

    Raises:
        SceneChanged: it was replaced, overwritten or deleted, also if reading failed.
        RasterUnreadable: a local file may not be read.
        Unreachable: the server does not state the identity now.
    """
    if is_local(href):
        require_unchanged(href, planned, beside)
    try:
        yield
    except RasterUnreadable:
        require_unchanged(href, planned, beside)
        raise
    require_unchanged(href, planned, beside)


def is_local(href: str) -> bool:
    """Whether an href is that of a local file, whose identity costs microseconds."""
    return all(_file_of(each) is not None for each in files_of(href))


@lru_cache(maxsize=64)  # most of the cost of a comparison
def local_path(href: str) -> Path | None:
    """Return the path of a local file; None for a remote href."""
    parts = urlsplit(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in href else Path(href)


def _file_of(href: str) -> Path | None:
    """Return the local file that contains a raster, also an archive; None for a remote href."""
    if href.startswith("zip:///"):
        return Path(href.removeprefix("zip://").partition("!")[0])
    return local_path(href)


def _present(href: str, beside: Mapping[str, Path] | None) -> str | None:
    """Return the identity now; None if the raster no longer exists."""
    if stacked_bands(href):
        found = [_present(each, None) for each in files_of(href)]
        return None if None in found else " ".join(each or "" for each in found)
    path = _file_of(href)
    try:
        return stated_identity(href) if path is None else _local_identity(path, beside)
    except (NotFound, FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RasterUnreadable(f"{href} cannot be read: {error.strerror or error}") from error


def _local_identity(path: Path, beside: Mapping[str, Path] | None) -> str:
    """Return the identity of a file: `SIZE-TIME-INODE`, and `+NAME:…` for each one beside it."""
    own = _status(path)
    files = side_files(path) if beside is None else beside
    return "".join([own, *(f"+{name}:{_status(each)}" for name, each in files.items())])


def _status(path: Path) -> str:
    # The inode too: a file that replaces another may have its size and, if it was copied with its
    # times or made within one tick of the clock, its modification time.
    status = os.stat(path)  # noqa: PTH116  # Path.stat takes twice as long
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
