"""Records of jobs in SQLite: what is written here is there after kill -9 and after a power cut.

It blocks; one thread owns it. Bodies and results are files beside it, never rows.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from pesto_runtime.errors import KeyConflict, StoreFailed, StoreRefused
from pesto_runtime.service.jobs.states import Record, Result, advance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.service.jobs.states import Event


_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT,
    state TEXT NOT NULL,
    is_kept INTEGER NOT NULL,
    expires REAL,
    record TEXT NOT NULL,
    request TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_job_per_key ON jobs (key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS unfinished ON jobs (state) WHERE state IN ('accepted', 'running');
CREATE INDEX IF NOT EXISTS expiring ON jobs (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
_FORMAT = "1"


class JobStore:
    """The jobs of one service; `key` of a row is there only while it holds that key."""

    def __init__(self, path: Path, *, process: str) -> None:
        """Open or make the store.

        Args:
            path: Of the database.
            process: Name of the process whose jobs these are.

        Raises:
            StoreRefused: it keeps the jobs of another process, or was written by another version.
            StoreFailed: it cannot be opened.
        """
        with _told(path):
            self._path = path
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        try:
            self._require("format", _FORMAT)
            self._require("process", process)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def add(self, record: Record, request: dict[str, JsonValue]) -> Record:
        """Add a job, unless its key already stands for one; the job that the key stands for.

        Raises:
            KeyConflict: the key stands for a job with another request.
            StoreFailed: it cannot be written.
        """
        known = self.holding(record.key) if record.key is not None else None
        if known is not None:
            return same_request(known, record.digest)
        with _told(self._path):
            self._db.execute(
                "INSERT INTO jobs (id, key, state, is_kept, expires, record, request) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (record.id, *_columns(record), json.dumps(request)),
            )
        return record

    def put(self, record: Record) -> None:
        """Write what became of a job.

        Raises:
            StoreFailed: it cannot be written.
        """
        with _told(self._path):
            self._db.execute(
                "UPDATE jobs SET key = ?, state = ?, is_kept = ?, expires = ?, record = ? "
                "WHERE id = ?",
                (*_columns(record), record.id),
            )

    def change(self, job_id: str, event: Event, ttl_s: float) -> Record | None:
        """Let something happen to a job, and write what became of it; None where there is none.

        Raises:
            StoreFailed: it cannot be written.
        """
        record = self.find(job_id)
        if record is None:
            return None
        changed = advance(record, event, ttl_s)
        if changed != record:
            self.put(changed)
        return changed

    def find(self, job_id: str) -> Record | None:
        """The job of this id."""
        return next(self._records("id = ?", job_id), None)

    def holding(self, key: str) -> Record | None:
        """The job that a key stands for."""
        return next(self._records("key = ?", key), None)

    def unfinished(self) -> list[Record]:
        """Jobs that are not over, in the order in which they came."""
        return list(self._records("state IN ('accepted', 'running')"))

    def kept(self) -> list[str]:
        """Ids of jobs whose files are there, in the order in which they came."""
        with _told(self._path):
            rows = self._db.execute("SELECT id FROM jobs WHERE is_kept ORDER BY number")
            return [str(row[0]) for row in rows]

    def expired(self, now: float) -> list[Record]:
        """Jobs whose results have been kept for long enough, and are still there."""
        return list(self._records("expires <= ? AND is_kept", now))

    def forget(self, before: float) -> None:
        """Drop the records of jobs that have been gone since before then."""
        with _told(self._path):
            self._db.execute("DELETE FROM jobs WHERE expires < ? AND NOT is_kept", (before,))

    def request(self, job_id: str) -> dict[str, JsonValue]:
        """What was given with a job."""
        with _told(self._path):
            row = self._db.execute("SELECT request FROM jobs WHERE id = ?", (job_id,)).fetchone()
        found: dict[str, JsonValue] = json.loads(row[0])
        return found

    def _records(self, condition: str, *values: object) -> Iterator[Record]:
        query = f"SELECT record FROM jobs WHERE {condition} ORDER BY number"  # noqa: S608  # ours
        with _told(self._path):
            rows = self._db.execute(query, values).fetchall()
        return (_read(row[0]) for row in rows)

    def _require(self, name: str, value: str) -> None:
        with _told(self._path):
            self._db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
            query = "SELECT value FROM facts WHERE name = ?"
            found = self._db.execute(query, (name,)).fetchone()[0]
        if found != value:
            raise StoreRefused(
                f"{self._path} keeps jobs of {name} {found!r}, not {value!r}; take another folder"
            )


def same_request(known: Record, digest: str) -> Record:
    """The job that a key stands for, if it was asked for in the same words.

    Raises:
        KeyConflict: it was not.
    """
    if known.digest != digest:
        raise KeyConflict(
            f"the Idempotency-Key {known.key!r} came before with another request (job {known.id}, "
            f"{known.state}); a key stands for one request"
        )
    return known


def _columns(record: Record) -> tuple[str | None, str, bool, float | None, str]:
    key = record.key if record.holds_key else None
    return key, record.state, record.is_kept, record.expires, json.dumps(asdict(record))


def _read(text: str) -> Record:
    document = json.loads(text)
    document["results"] = tuple(Result(**each) for each in document["results"])
    document["log"] = tuple(document["log"])
    return Record(**document)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreFailed(f"the jobs in {path} cannot be kept: {error}") from error


P = ParamSpec("P")
T = TypeVar("T")


class AsyncJobStore:
    """A store and its thread; what is asked is done one after the other."""

    def __init__(self, thread: ThreadPoolExecutor, store: JobStore) -> None:
        """Take both; see `open`."""
        self._thread = thread
        self._store = store

    @classmethod
    async def open(cls, path: Path, *, process: str) -> Self:
        """Open the store on a thread of its own; raises as `JobStore` does."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="pesto-jobs")
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(thread, lambda: JobStore(path, process=process))
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(thread, store)

    async def close(self) -> None:
        """Close the store, once all is written."""
        await self(JobStore.close)
        self._thread.shutdown()

    async def __call__(
        self, work: Callable[Concatenate[JobStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do something with the store; raises as it does."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(self._store, *args, **kwargs))
