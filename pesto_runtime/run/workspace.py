"""Manage the output folder of a run: its lock, and its run store.

A folder of a disk has a lock; a folder of a bucket has only its owner's record, which a thread
renews. Which run owns the folder is in `run/ownership.py`, what is published into it in
`run/publishing.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.errors import PestoError, StoreFailed, StoreRefused
from pesto_runtime.hrefs import file_href
from pesto_runtime.places import WRITABLE, RemotePath
from pesto_runtime.run.context import forget_run, load_context
from pesto_runtime.run.owner_records import OWNER, WORKSPACE, record_of
from pesto_runtime.run.ownership import BEAT_S, in_use, owner_of, working_owner
from pesto_runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pesto_runtime.contract import Plan
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.owner_records import Owner


_LOCK = "lock"
_STORES = ("file:///", *(f"{each}://" for each in WRITABLE), "memory:///")
_POLL_S = 0.1
_REMOTE_POLL_S = 1.0
_UNOWNED_S = 60.0
"""How long a lock may exist without an owner: at the start of a run, and while one cleans up."""


def run_store(folder: AnyPath, store: str | None = None) -> str:
    """Return the base href of a run store: `store`, or the one in the output folder.

    Raises:
        StoreRefused: `store` is empty, or its scheme cannot be written.
    """
    if store is None:
        if isinstance(folder, RemotePath):
            return RemoteWorkspace(folder).store
        return Workspace(folder).store
    if not store.startswith(_STORES):
        known = ", ".join(f"{each}…" for each in _STORES[:-1])
        raise StoreRefused(f"{store!r} cannot be a run store (store): write one of {known}")
    return store


class Workspace:
    """The folder `DIR/.pesto`: locked by one run at a time, deleted when it is empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / WORKSPACE

    @property
    def store(self) -> str:
        """Base href of the run store inside it."""
        return file_href(self.path)

    @property
    def parts(self) -> Path:
        """Where an output is completed before it is moved into the folder."""
        return self.path

    def clear(self) -> None:
        """Delete everything except the lock and the owner.

        Raises:
            StoreFailed: the disk refuses; the same command goes on.
        """
        with _refusals_of(self.path):
            for entry in self.path.iterdir():
                if entry.name in (_LOCK, OWNER):
                    continue
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    @property
    def is_empty(self) -> bool:
        """Whether it contains only the lock."""
        return all(entry.name == _LOCK for entry in self.path.iterdir())

    def forget(self, plan: Plan) -> None:
        """Delete the objects of one run, and clear the folder if it has no other files.

        Raises:
            StoreFailed: the run store cannot be written.
        """
        forget_run(plan)
        with _refusals_of(self.path):
            files = [path.name for path in self.path.rglob("*") if path.is_file()]
        if set(files) <= {_LOCK, OWNER}:
            self.clear()

    def remove(self) -> None:
        """Delete the folder, while this process still has the lock.

        Without its lock, another run may have the folder at once: then it stays.
        """
        (self.path / _LOCK).unlink(missing_ok=True)
        try:
            self.path.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise


class RemoteWorkspace:
    """The objects `PREFIX/.pesto/…` of an output folder in a bucket; has no lock."""

    def __init__(self, folder: RemotePath) -> None:
        self.folder = folder
        self.store = (folder / WORKSPACE).href

    @property
    def parts(self) -> RemotePath:
        """Where an output is completed: in the folder, since readers see whole objects only."""
        return self.folder

    def clear(self) -> None:
        """Delete everything except the owner.

        Raises:
            PestoError: the store is away, or refuses; the same command goes on.
        """
        store = open_store(self.store)
        store.delete([name for name in store.names("") if name != OWNER])

    def forget(self, plan: Plan) -> None:
        """Delete the objects of one run in a store elsewhere; here, `clear` has deleted them.

        Raises:
            PestoError: the store is away, or refuses.
        """
        if plan.store != self.store:
            forget_run(plan)
        load_context.cache_clear()  # as `forget_run` does


AnyWorkspace: TypeAlias = Workspace | RemoteWorkspace


@contextmanager
def locked_workspace(
    folder: AnyPath,
    *,
    run: str,
    patience_s: float = 0,
    on_wait: Callable[[str], None] = lambda _text: None,
) -> Iterator[AnyWorkspace]:
    """Enter an output folder until the block ends: locked on a disk, with a beat in a bucket.

    Args:
        folder: The output folder.
        run: Key of the run that wants the folder.
        patience_s: Seconds to wait for another run that has the lock of a folder of a disk.
        on_wait: Receives a text for the user before the first wait for the same run.

    Raises:
        StoreRefused: not a directory, or not writable.
        FolderInUse: another run uses it; names it.
        StoreFailed: the disk refuses to delete what is not needed any more.
        PestoError: the store is away, or refuses.
    """
    if isinstance(folder, RemotePath):
        with _kept_owner(folder, run, on_wait) as workspace:
            yield workspace
    else:
        with _locked_folder(folder, run, patience_s, on_wait) as locked:
            yield locked


@contextmanager
def _kept_owner(
    folder: RemotePath, run: str, on_wait: Callable[[str], None]
) -> Iterator[RemoteWorkspace]:
    """Wait for a process of the same run; then renew the record of the run until the block ends."""
    is_waiting = False
    while (owner := working_owner(folder, run)) is not None:
        if not is_waiting:
            on_wait(f"{_at_work(owner)}: waiting until it ends, or is silent for 10 minutes")
        is_waiting = True
        time.sleep(_REMOTE_POLL_S)
    ended = threading.Event()
    # A thread, because an upload or a single tile may take longer than an owner may be silent.
    beat = threading.Thread(target=_renew, args=(folder, run, ended), daemon=True)
    beat.start()
    try:
        yield RemoteWorkspace(folder)
    finally:
        ended.set()
        beat.join()


def _renew(folder: RemotePath, run: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(PestoError):  # the next one may succeed
            record = record_of(folder)
            owner = record.read()
            if owner is not None and owner.run == run:
                record.beat(owner)


@contextmanager
def _locked_folder(
    folder: Path, run: str, patience_s: float, on_wait: Callable[[str], None]
) -> Iterator[Workspace]:
    """Lock an output folder until the block ends; then delete empty folders.

    The operating system releases the lock when the process is killed. A process of the same run is
    waited for without an end: its result is the one that is wanted.
    """
    workspace = Workspace(folder)
    is_new = not folder.exists()
    handle = _locked(workspace, run, patience_s, on_wait)
    try:
        yield workspace
    finally:
        try:
            with _refusals_of(folder):
                if workspace.is_empty:
                    workspace.remove()
                if is_new:
                    with suppress(FileNotFoundError):
                        if not any(folder.iterdir()):
                            folder.rmdir()
        finally:
            os.close(handle)


@contextmanager
def _refusals_of(path: Path) -> Iterator[None]:
    """Raise what the operating system refuses as an error of this package."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}; the same command goes on") from error


def _locked(
    workspace: Workspace, run: str, patience_s: float, on_wait: Callable[[str], None]
) -> int:
    """Open and lock the lock file, and return its descriptor."""
    begun, is_waiting = time.monotonic(), False
    while True:
        handle = _opened(workspace)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and flock, the previous owner may have deleted the file. A lock on the
            # deleted file does not exclude a run that creates a new one: compare the inodes.
            if (workspace.path / _LOCK).stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)
        owner = owner_of(workspace.folder)
        if owner is not None and owner.run == run:
            if not is_waiting:
                on_wait(f"{_at_work(owner)}: waiting")
            is_waiting = True
        elif time.monotonic() - begun >= (patience_s if owner else max(patience_s, _UNOWNED_S)):
            raise in_use(workspace.folder)
        time.sleep(_POLL_S)


def _at_work(owner: Owner) -> str:
    process = f", process {owner.pid}" if owner.pid else ""
    return f"the same run is at work already (on {owner.host}{process})"


def _opened(workspace: Workspace, tries: int = 20) -> int:
    if workspace.path.is_symlink():
        raise StoreRefused(
            f"{workspace.path} is a symbolic link, and everything in it would be deleted at the "
            "end of a run: delete the link"
        )
    try:
        workspace.path.mkdir(parents=True, exist_ok=True)
        return os.open(workspace.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        # Another run may delete the empty folder at this moment.
        if isinstance(error, (FileNotFoundError, FileExistsError)) and tries:
            time.sleep(_POLL_S / 10)
            return _opened(workspace, tries - 1)
        raise StoreRefused(
            f"{workspace.folder} cannot be an output folder: {error.strerror}; choose a directory "
            "that is writable"
        ) from error
