"""Temporary folders of jobs that killed services have left, deleted when the next one starts.

A folder is named by the process that made it. It goes where that process is gone, its lock is free,
and it is this user's: what looks like one and is somebody else's stays.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

LOCK = "lock"
_PREFIX = "pesto-jobs-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-.+")


def temporary_folder() -> Path:
    """Make a folder for the jobs of this process.

    Raises:
        OSError: it cannot be made.
    """
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def sweep_leftovers() -> None:
    """Delete the folders of services that are gone; what cannot be deleted stays."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        named = _NAME.fullmatch(folder.name)
        if named and _is_ours(folder) and not _runs(int(named[1])) and not _is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_locked(folder: Path) -> bool:
    """Whether a service has it: in a container, say, where processes have other numbers."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
