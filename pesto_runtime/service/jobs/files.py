"""Files of jobs: what each was asked and what it left; each is whole or not there.

Nothing here is named by a caller: a job's folder is its id, a result's file its number.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.errors import StoreFailed, StoreRefused
from pesto_runtime.service.jobs.results import JobRequest, Piece
from pesto_runtime.service.request import Payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import JsonValue

    JsonObject: TypeAlias = dict[str, JsonValue]
    from pesto_runtime.service.jobs.states import Result


_DATABASE = "jobs.sqlite"
_FILES = "files"
_REQUEST = "request"
_RESULTS = "results"


def default_folder(process: str, port: int) -> Path:
    """Where a service on this port keeps its jobs: in the state directory of its user."""
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "pesto-workflows" / "jobs" / f"{process}-{port}"


class JobFolder:
    """The files of one service's jobs; one service at a time has them."""

    def __init__(self, root: Path | None) -> None:
        """Take the folder, or a temporary one that `close` removes.

        Raises:
            StoreRefused: another service has it.
            StoreFailed: it cannot be made.
        """
        with _told(root):
            self._is_ours = root is None
            if root is None:
                sweep_leftovers()
            self.root = temporary_folder() if root is None else root
            self._files = self.root / _FILES
            self._files.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StoreRefused(
                f"{self.root} keeps the jobs of another service that runs now; name another folder"
            ) from error

    @property
    def database(self) -> Path:
        """Path of the records."""
        return self.root / _DATABASE

    def close(self) -> None:
        """Let go of the folder."""
        if self._is_ours:
            shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)

    def write_request(self, job_id: str, order: JobRequest) -> JsonObject:
        """Keep what was asked: its body here, the rest of it to be kept with the record.

        Raises:
            StoreFailed: it cannot be written.
        """
        with _told(self.root):
            folder = self._files / job_id
            folder.mkdir(mode=0o700)
            _write(folder / _REQUEST, order.payload.body)
            _sync(folder)
            _sync(self._files)
        payload: JsonObject = {
            name: each for name, each in vars(order.payload).items() if name != "body"
        }
        return {"payload": payload, "from_here": order.from_here}

    def read_request(self, job_id: str, rest: JsonObject) -> JobRequest:
        """What was asked.

        Raises:
            StoreFailed: its body is not there.
        """
        with _told(self.root):
            body = (self._files / job_id / _REQUEST).read_bytes()
        payload = Payload(body=body, **rest["payload"])  # type: ignore[arg-type]  # written above
        return JobRequest(payload, from_here=bool(rest["from_here"]))

    def write_results(self, job_id: str, pieces: Sequence[Piece]) -> None:
        """Keep what a job left, in the order of its results.

        Raises:
            StoreFailed: it cannot be written.
        """
        folder = self._files / job_id
        beside, target = folder / f".{_RESULTS}", folder / _RESULTS
        with _told(self.root):
            for stale in (beside, target):  # of a run that was interrupted
                shutil.rmtree(stale, ignore_errors=True)
            beside.mkdir(parents=True)
            for number, piece in enumerate(pieces):
                if piece.href is None:
                    _write(beside / str(number), piece.data)
            _sync(beside)
            beside.rename(target)
            _sync(folder)

    def result_path(self, job_id: str, number: int) -> Path:
        """Where one result is."""
        return self._files / job_id / _RESULTS / str(number)

    def read_result(self, job_id: str, number: int) -> bytes:
        """One result's bytes.

        Raises:
            StoreFailed: they are not there.
        """
        with _told(self.root):
            return self.result_path(job_id, number).read_bytes()

    def read_results(self, job_id: str, results: Sequence[Result]) -> tuple[Piece, ...]:
        """All that a job left.

        Raises:
            StoreFailed: some of it is not there.
        """
        return tuple(
            Piece(
                each.output,
                b"" if each.href is not None else self.read_result(job_id, number),
                each.media_type,
                each.index,
                each.href,
            )
            for number, each in enumerate(results)
        )

    def delete_result(self, job_id: str, number: int) -> None:
        """Delete one result's file."""
        with _told(self.root):
            self.result_path(job_id, number).unlink(missing_ok=True)

    def delete_request(self, job_id: str) -> None:
        """Delete what is not needed once a job is over."""
        with _told(self.root):
            (self._files / job_id / _REQUEST).unlink(missing_ok=True)

    def delete(self, job_id: str) -> None:
        """Delete all files of a job."""
        shutil.rmtree(self._files / job_id, ignore_errors=True)

    def sweep(self, kept: Iterable[str]) -> None:
        """Delete the files of jobs that no record tells of: the service died before it did."""
        known = set(kept)
        for folder in self._files.iterdir():
            if folder.is_dir() and folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(root: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or root or "a temporary folder"
        raise StoreFailed(f"jobs cannot be kept in {where}: {error.strerror or error}") from error


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
