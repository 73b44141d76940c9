"""Read and write the record of the run that owns an output folder: `.pesto/owner.json`.

On a disk, its writer has the folder's lock, and the file's time is the owner's last sign. In a
bucket it is a lease: each write succeeds only if nobody else has written since it was read. Which
run may own a folder is decided in `run/ownership.py`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.errors import StoreFailed
from pesto_runtime.places import RemotePath

if TYPE_CHECKING:
    from datetime import datetime

    from pesto_runtime.places import AnyPath

WORKSPACE = ".pesto"
OWNER = "owner.json"
EXPIRES_S = 600.0
_ABANDONED = "abandoned"
_PROCESS = re.compile(r" in process (?P<pid>\d+) of (?P<machine>.+)$")


@dataclass(frozen=True)
class Owner:
    """The run that owns a folder.

    Attributes:
        run: Key of the run.
        pipeline: Name of its pipeline.
        host: Machine that planned it.
        pid: Process that the whole run depends on; None if it has tasks of an orchestrator.
        since: Time of the first claim, ISO 8601.
        members: Identical runs that share the folder, each by its engine's id.
        machine: In a bucket, the boot and the PID namespace in which `pid` counts.
        beat: In a bucket, another text with every sign of life.
    """

    run: str
    pipeline: str
    host: str
    pid: int | None
    since: str
    members: tuple[str, ...] = ()
    machine: str = ""
    beat: str = ""


class LocalOwner:
    """The record of a folder on a disk; to be written under the folder's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / WORKSPACE / OWNER

    def read(self) -> Owner | None:
        """Return the owner, even if it is silent; None without a readable one."""
        try:
            return _owner(self._path.read_bytes())
        except OSError:
            return None

    def write(self, owner: Owner) -> bool:
        """Write the owner, and return True: the lock excludes other writers.

        Raises:
            StoreFailed: disk full, or not writable.
        """
        path = self._path
        part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        try:
            part.write_text(json.dumps(asdict(owner)) + "\n")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreFailed(f"{path}: {error.strerror or error}") from error
        return True

    def age_s(self) -> float:
        """Return the seconds since the last sign of the owner, by the clock of the disk."""
        # The workers' clocks may differ; both times are written by the same file system.
        clock = self._folder / WORKSPACE / "lock"
        with suppress(OSError):
            os.utime(clock)
        try:
            now = clock.stat().st_mtime if clock.exists() else time.time()
            # A sign from the future is none: it would never expire.
            return abs(now - self._path.stat().st_mtime)
        except OSError:
            return EXPIRES_S

    def is_gone(self, owner: Owner) -> bool:
        """Whether the process of the run has ended, for a caller that has the folder's lock."""
        # Such a process has the lock as long as it lives.
        return owner.pid is not None and owner.host == socket.gethostname()

    def beat(self, _owner: Owner) -> None:
        """Give a sign of life."""
        with suppress(OSError):  # the run has just been published by another task
            os.utime(self._path)

    def abandon(self, _owner: Owner) -> None:
        """Let the owner count as silent."""
        with suppress(OSError):
            os.utime(self._path, (0, 0))

    def delete(self) -> None:
        """Delete the record.

        Raises:
            StoreFailed: the disk refuses; the ownership ends by itself.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreFailed(f"{self._path}: {error.strerror or error}") from error


class RemoteOwner:
    """The record of a folder in a bucket, as it was when it was last read."""

    def __init__(self, folder: RemotePath) -> None:
        self._folder = folder
        self._place = folder / WORKSPACE / OWNER
        self._tag: str | None = None
        self._modified: datetime | None = None
        self._is_abandoned = False

    def read(self) -> Owner | None:
        """Return the owner, even if it is silent; None without a readable one.

        Raises:
            PestoError: the store is away, or refuses.
        """
        found = self._place.read_version()
        if found is None:
            self._tag = self._modified = None
            return None
        self._tag, self._modified = found.tag, found.modified
        owner = _owner(found.data)
        self._is_abandoned = owner is None or owner.beat == _ABANDONED
        return owner

    def write(self, owner: Owner) -> bool:
        """Write the owner if nobody else has written since the record was read.

        Returns:
            False if somebody has; then read it again.

        Raises:
            PestoError: the store is away, refuses, or has no conditional writes.
        """
        owner = replace(owner, machine=_machine(), beat=uuid.uuid4().hex)
        return self._put(owner)

    def _put(self, owner: Owner) -> bool:
        data = json.dumps(asdict(owner)).encode()
        tag = self._place.write_version(data, over=self._tag)
        if tag is not None:
            self._tag = tag
            return True
        # The answer of a successful write may have been lost, and the write repeated.
        return self.read() == owner

    def age_s(self) -> float:
        """Return the seconds since the last sign of the owner, by the clock of the store."""
        if self._modified is None or self._is_abandoned:
            return EXPIRES_S
        clock = self._folder / WORKSPACE / f"clock-{uuid.uuid4().hex}"
        clock.write_bytes(b"now")
        try:
            found = clock.read_version()
        finally:
            clock.unlink(missing_ok=True)
        now = self._modified if found is None else found.modified
        return abs((now - self._modified).total_seconds())

    def is_gone(self, owner: Owner) -> bool:
        """Whether the process of the run was one of this machine, and has ended."""
        if owner.pid is None or owner.machine != _machine():
            return False
        return _is_gone(owner.pid)

    def beat(self, owner: Owner) -> None:
        """Give a sign of life, unless another task of the run gives one at this moment."""
        self.write(owner)

    def abandon(self, owner: Owner) -> None:
        """Let the owner count as silent."""
        self._put(replace(owner, beat=_ABANDONED))

    def delete(self) -> None:
        """Delete the record.

        Raises:
            PestoError: the store is away, or refuses.
        """
        self._place.unlink(missing_ok=True)


def record_of(folder: AnyPath) -> LocalOwner | RemoteOwner:
    """Return the record of a folder."""
    return RemoteOwner(folder) if isinstance(folder, RemotePath) else LocalOwner(folder)


def process_member(member: str) -> str:
    """Return a member of an owner that ends with this process.

    Args:
        member: The engine's id of its run.
    """
    return f"{member} in process {os.getpid()} of {_machine()}"


def has_ended(member: str) -> bool:
    """Whether a member has ended with its process, on this machine."""
    found = _PROCESS.search(member)
    return found is not None and found["machine"] == _machine() and _is_gone(int(found["pid"]))


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _owner(data: bytes) -> Owner | None:
    try:
        found = json.loads(data)
        return Owner(**{**found, "members": tuple(found["members"])})
    except (ValueError, TypeError, KeyError):
        return None


def _machine() -> str:
    """Return the boot and the PID namespace of this process: containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
