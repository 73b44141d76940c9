"""Writes to the database of a Conductor, as a server that is killed between two leaves it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.postgres import postgres_commands

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Protocol

    from pydantic import JsonValue

    class Database(Protocol):
        """A database of a Conductor."""

        @property
        def in_an_hour(self) -> str:
            """The time in an hour, as an expression."""

        def first(self, statement: str) -> str:
            """Run a statement; return the first value that it selects, else an empty text."""


_HELD_S = 3601  # no server writes this number


@dataclass(frozen=True)
class SqliteDatabase:
    """That of a server in a data folder."""

    folder: Path
    in_an_hour: str = "strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 hour')"

    def first(self, statement: str) -> str:
        """Run a statement; return the first value that it selects."""
        with closing(sqlite3.connect(self.folder / "conductor.db", timeout=30)) as database:
            with database:
                row = database.execute(statement).fetchone()
            return str(row[0]) if row else ""

    def change_task(self, task: str, changes: Mapping[str, JsonValue]) -> None:
        """Write fields of a task."""
        text = self.first(f"SELECT json_data FROM task WHERE task_id = '{task}'")  # noqa: S608
        changed = json.dumps({**json.loads(text), **changes}).replace("'", "''")
        self.first(f"UPDATE task SET json_data = '{changed}' WHERE task_id = '{task}'")  # noqa: S608


@dataclass(frozen=True)
class PostgresDatabase:
    """That of servers over a Postgres, at a port."""

    port: int
    in_an_hour: str = "now() + interval '1 hour'"

    def first(self, statement: str) -> str:
        """Run a statement; return the first value that it selects."""
        commands = postgres_commands()
        assert commands is not None
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "conductor", "postgres")
        words = (commands / "psql", "-q", "-t", "-A", "-c", statement, *address)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return done.stdout.strip()


def lose_join(database: Database, join: str) -> None:
    """Leave a JOIN to a server that has taken it from its queue and does not return it.

    A server that evaluates it just now writes the queue once more.
    """
    own = f"queue_name = 'JOIN' AND message_id = '{join}'"
    held = f"SELECT COUNT(*) FROM queue_message WHERE {own} AND offset_time_seconds = {_HELD_S}"  # noqa: S608
    hold = (
        f"UPDATE queue_message SET popped = true, offset_time_seconds = {_HELD_S},"  # noqa: S608
        f" deliver_on = {database.in_an_hour} WHERE {own}"
    )
    kept = 0
    while kept < 10:
        kept = kept + 1 if database.first(held) == "1" else 0
        database.first(hold)
        time.sleep(0.05)
