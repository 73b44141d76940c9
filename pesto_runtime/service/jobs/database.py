"""Store the records of jobs in SQLite, so that they survive kill -9 and a power cut.

It blocks, and one thread owns it. Bodies and results are files beside the database, never rows.
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

P = ParamSpec("P")
T = TypeVar("T")


class JobStore:
    """The jobs of one service; the column `key` is set only while the key refers to the job."""

    def __init__(self, path: Path, *, process: str) -> None:
        """Open or create the store.

        Args:
            path: Of the database.
            process: Name of the process of these jobs.

        Raises:
            StoreRefused: it has the jobs of another process, or another version wrote it.
            StoreFailed: it cannot be opened.
        """
        with _store_errors(path):
            self._path = path
            path.touch(mode=0o600)
            path.chmod(0o600)  # it has hrefs, keys and log lines; its journal gets the same mode
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            # With NORMAL, a power cut may undo the last commits in WAL mode: accepted jobs would be
            # lost, https://www.sqlite.org/pragma.html#pragma_synchronous
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        try:
            self._require("format", _FORMAT)
            self._require("process", process)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, record: Record, request: dict[str, JsonValue]) -> Record:
        """Add a job, unless its key refers to one already; return the job of the key.

        Raises:
            KeyConflict: the key refers to a job with another request.
            StoreFailed: it cannot be written.
        """
        known = None if record.key is None else self.find_by_key(record.key, record.caller)
        if known is not None:
            return same_request(known, record.digest)
        with _store_errors(self._path):
            self._db.execute(
                "INSERT INTO jobs (id, key, state, is_kept, expires, record, request) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (record.id, *_columns(record), json.dumps(request)),
            )
        return record

    def put(self, record: Record) -> None:
        """Update the record of a job.

        Raises:
            StoreFailed: it cannot be written.
        """
        with _store_errors(self._path):
            self._db.execute(
                "UPDATE jobs SET key = ?, state = ?, is_kept = ?, expires = ?, record = ? "
                "WHERE id = ?",
                (*_columns(record), record.id),
            )

    def change(self, job_id: str, event: Event, ttl_s: float) -> Record | None:
        """Apply an event to a job, and store the result; return None if there is no such job.

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
        """Return the job of this id."""
        return next(self._records("id = ?", job_id), None)

    def find_by_key(self, key: str, caller: str = "") -> Record | None:
        """Return the job that a key of a caller refers to."""
        return next(self._records("key = ?", _key_of(key, caller)), None)

    def unfinished(self) -> list[Record]:
        """Return the jobs that are not over, in the order of their creation."""
        return list(self._records("state IN ('accepted', 'running')"))

    def ids(self, caller: str | None = None) -> list[str]:
        """Return the ids of jobs that have files, of one caller or of all, oldest first."""
        query = (
            "SELECT id FROM jobs WHERE is_kept "
            "AND (?1 IS NULL OR coalesce(json_extract(record, '$.caller'), '') = ?1) "
            "ORDER BY number"
        )
        with _store_errors(self._path):
            return [str(row[0]) for row in self._db.execute(query, (caller,))]

    def bytes_of(self, caller: str) -> int:
        """Return the bytes of requests and results that are stored for a caller."""
        query = (
            "SELECT coalesce(sum(json_extract(record, '$.size')), 0) FROM jobs "
            "WHERE is_kept AND json_extract(record, '$.caller') = ?"
        )
        with _store_errors(self._path):
            return int(self._db.execute(query, (caller,)).fetchone()[0])

    def expired(self, now: float) -> list[Record]:
        """Return the jobs whose time to live has passed, and whose results are still stored."""
        return list(self._records("expires <= ? AND is_kept", now))

    def delete_expired(self, before: float) -> None:
        """Delete the records of jobs that expired before this time, and have no files."""
        with _store_errors(self._path):
            self._db.execute("DELETE FROM jobs WHERE expires < ? AND NOT is_kept", (before,))

    def request(self, job_id: str) -> dict[str, JsonValue]:
        """Return the request of a job, without its body."""
        with _store_errors(self._path):
            row = self._db.execute("SELECT request FROM jobs WHERE id = ?", (job_id,)).fetchone()
        found: dict[str, JsonValue] = json.loads(row[0])
        return found

    def _records(self, condition: str, *values: object) -> Iterator[Record]:
        query = f"SELECT record FROM jobs WHERE {condition} ORDER BY number"  # noqa: S608  # ours
        with _store_errors(self._path):
            rows = self._db.execute(query, values).fetchall()
        return (_read(row[0]) for row in rows)

    def _require(self, name: str, value: str) -> None:
        with _store_errors(self._path):
            self._db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
            query = "SELECT value FROM facts WHERE name = ?"
            found = self._db.execute(query, (name,)).fetchone()[0]
        if found != value:
            raise StoreRefused(
                f"{self._path} has jobs of {name} {found!r}, not {value!r}; use another folder"
            )


def same_request(known: Record, digest: str) -> Record:
    """Return the job that a key refers to, if its request is the same.

    Raises:
        KeyConflict: it is another one.
    """
    if known.digest != digest:
        raise KeyConflict(
            f"the Idempotency-Key {known.key!r} was used before with another request (job "
            f"{known.id}, {known.state}); use a new key for each request"
        )
    return known


def _columns(record: Record) -> tuple[str | None, str, bool, float | None, str]:
    key = _key_of(record.key, record.caller) if record.key and record.holds_key else None
    return key, record.state, record.is_kept, record.expires, json.dumps(asdict(record))


def _key_of(key: str, caller: str) -> str:
    """Return the text of a key in the database: callers do not know each other's keys."""
    return f"{caller}\0{key}" if caller else key


def _read(text: str) -> Record:
    document = json.loads(text)
    document["results"] = tuple(Result(**each) for each in document["results"])
    document["log"] = tuple(document["log"])
    return Record(**document)


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(f"the jobs in {path} cannot be stored: {error}") from error


class AsyncJobStore:
    """A store and its thread, which does one thing after the other."""

    def __init__(self, thread: ThreadPoolExecutor, store: JobStore) -> None:
        """Store both; `open` creates them."""
        self._thread = thread
        self._store = store

    @classmethod
    async def open(cls, path: Path, *, process: str) -> Self:
        """Open the store in a thread of its own.

        Raises:
            StoreRefused: as `JobStore`.
            StoreFailed: as `JobStore`.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="pesto-jobs")
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(thread, lambda: JobStore(path, process=process))
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(thread, store)

    async def close(self) -> None:
        """Close the store after all that was submitted before is written."""
        await self(JobStore.close)
        self._thread.shutdown()

    async def __call__(
        self, work: Callable[Concatenate[JobStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a method of the store in its thread; its errors are raised here."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(self._store, *args, **kwargs))
