"""Store the files of jobs: the body of each request, and its results; each complete, or absent.

No path contains text of a caller: the folder of a job is its id, the file of a result its number.
Records are in `database`.
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
from pesto_runtime.service.runner import Payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import JsonValue

    from pesto_runtime.service.jobs.states import Result

    JsonObject: TypeAlias = dict[str, JsonValue]


LOCK = "lock"
_DATABASE = "jobs.sqlite"
_FILES = "files"
_REQUEST = "request"
_RESULTS = "results"
_PREFIX = "pesto-jobs-"


def default_folder(process: str, port: int) -> Path:
    """Return the folder for jobs of a service on this port, in the state directory of the user."""
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "pesto-workflows" / "jobs" / f"{process}-{port}"


class JobFolder:
    """The files of the jobs of one service; a lock excludes other services."""

    def __init__(self, root: Path | None) -> None:
        """Create and lock the folder, or a temporary one that `close` deletes.

        Raises:
            StoreRefused: another service uses it.
            StoreFailed: it cannot be created.
        """
        with _store_errors(root):
            self._is_temporary = root is None
            if root is None:
                sweep_leftovers(_PREFIX)
            self.root = temporary_folder(_PREFIX) if root is None else root
            self._files = self.root / _FILES
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._files.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StoreRefused(
                f"{self.root} has the jobs of another service that runs now; name another folder"
            ) from error

    @property
    def database(self) -> Path:
        """Path of the database."""
        return self.root / _DATABASE

    def close(self) -> None:
        """Release the folder."""
        if self._is_temporary:
            shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)

    def write_request(self, job_id: str, request: JobRequest) -> JsonObject:
        """Write the body of a request; return the rest of it, to be stored with the record.

        Raises:
            StoreFailed: it cannot be written.
        """
        with _store_errors(self.root):
            folder = self._files / job_id
            folder.mkdir(mode=0o700)
            _write(folder / _REQUEST, request.payload.body)
            # fsync(2) of a file does not store its name: that needs one of each folder above.
            _sync(folder)
            _sync(self._files)
        payload: JsonObject = {
            name: each for name, each in vars(request.payload).items() if name != "body"
        }
        return {"payload": payload}

    def read_request(self, job_id: str, rest: JsonObject) -> JobRequest:
        """Read a request; `rest` is what `write_request` returned.

        Raises:
            StoreFailed: its body cannot be read.
        """
        with _store_errors(self.root):
            body = (self._files / job_id / _REQUEST).read_bytes()
        payload = Payload(body=body, **rest["payload"])  # type: ignore[arg-type]  # written above
        return JobRequest(payload)

    def write_results(self, job_id: str, pieces: Sequence[Piece]) -> None:
        """Write the results of a job, in their order.

        Raises:
            StoreFailed: it cannot be written.
        """
        folder = self._files / job_id
        beside, target = folder / f".{_RESULTS}", folder / _RESULTS
        with _store_errors(self.root):
            for stale in (beside, target):  # of an interrupted execution
                shutil.rmtree(stale, ignore_errors=True)
            beside.mkdir(parents=True)
            for number, piece in enumerate(pieces):
                if piece.href is None:
                    _write(beside / str(number), piece.data)
            _sync(beside)
            beside.rename(target)
            _sync(folder)

    def result_path(self, job_id: str, number: int) -> Path:
        """Return the path of one result."""
        return self._files / job_id / _RESULTS / str(number)

    def read_result(self, job_id: str, number: int) -> bytes:
        """Return the bytes of one result.

        Raises:
            StoreFailed: they cannot be read.
        """
        with _store_errors(self.root):
            return self.result_path(job_id, number).read_bytes()

    def read_results(self, job_id: str, results: Sequence[Result]) -> tuple[Piece, ...]:
        """Read all results of a job.

        Raises:
            StoreFailed: one of them cannot be read.
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
        """Delete the file of one result.

        Raises:
            StoreFailed: it cannot be deleted.
        """
        with _store_errors(self.root):
            self.result_path(job_id, number).unlink(missing_ok=True)

    def delete_request(self, job_id: str) -> None:
        """Delete the body of a request, which is not needed once its job is over.

        Raises:
            StoreFailed: it cannot be deleted.
        """
        with _store_errors(self.root):
            (self._files / job_id / _REQUEST).unlink(missing_ok=True)

    def delete(self, job_id: str) -> None:
        """Delete all files of a job."""
        shutil.rmtree(self._files / job_id, ignore_errors=True)

    def sweep(self, job_ids: Iterable[str]) -> None:
        """Delete the files of all other jobs: a service that died left them without a record."""
        known = set(job_ids)
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
def _store_errors(root: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or root or "a temporary folder"
        raise StoreFailed(f"jobs cannot be stored in {where}: {error.strerror or error}") from error


@contextmanager
def locked_temporary_folder(prefix: str) -> Iterator[Path]:
    """Use a temporary folder in a block, and delete those that killed processes have left.

    Raises:
        StoreFailed: it cannot be created.
    """
    sweep_leftovers(prefix)
    with _store_errors(None):
        folder = temporary_folder(prefix)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def temporary_folder(prefix: str) -> Path:
    """Create a folder of this process.

    Raises:
        OSError: it cannot be created.
    """
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def sweep_leftovers(prefix: str) -> None:
    """Delete the temporary folders of processes that have ended, as far as possible."""
    name = re.compile(rf"{prefix}(\d+)-.+")
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        match = name.fullmatch(folder.name)
        if match and _is_own(folder) and not _runs(int(match[1])) and not _is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
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
    """Return whether a service uses a folder; one in a container has another process id there."""
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
