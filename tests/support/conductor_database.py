"""Writes to the database of a Conductor that a killed server leaves half-done."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

_LOSE = """UPDATE queue_message SET popped = 1,
    deliver_on = strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 hour')
    WHERE queue_name = 'JOIN' AND message_id = ?"""
_IS_LOST = """SELECT COUNT(*) FROM queue_message WHERE queue_name = 'JOIN' AND message_id = ?
    AND deliver_on > strftime('%Y-%m-%d %H:%M:%f', 'now', '+50 minutes')"""


def change_task(folder: Path, task: str, changes: Mapping[str, JsonValue]) -> None:
    """Write fields of a task, as the server in a data folder has stored it."""
    with closing(sqlite3.connect(folder / "conductor.db", timeout=30)) as database, database:
        (text,) = database.execute(
            "SELECT json_data FROM task WHERE task_id = ?", (task,)
        ).fetchone()
        database.execute(
            "UPDATE task SET json_data = ? WHERE task_id = ?",
            (json.dumps({**json.loads(text), **changes}), task),
        )


def lose_join(folder: Path, join: str) -> None:
    """Leave a JOIN to a server that has taken it from its queue and does not return it.

    A server that evaluates it just now writes the queue once more.
    """
    with closing(sqlite3.connect(folder / "conductor.db", timeout=30)) as database:
        kept = 0
        while kept < 10:
            with database:
                is_lost = database.execute(_IS_LOST, (join,)).fetchone()[0]
                database.execute(_LOSE, (join,))
            kept = kept + 1 if is_lost else 0
            time.sleep(0.05)
