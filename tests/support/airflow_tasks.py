"""A task instance and its DAG run, as far as operators read them, without a scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from types import SimpleNamespace

    from airflow.sdk import Asset, Context
    from pydantic import JsonValue


@dataclass
class Run:
    """The fields of a task instance and its run that are read, and what tasks push.

    `bundle_instance.path` is the folder of the DAG bundle on this worker.
    """

    run_id: str = "r"
    dag_id: str = "d"
    task_id: str = "t"
    try_number: int = 1
    note: str | None = None
    bundle_instance: SimpleNamespace | None = None
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))
    pushed: dict[str, JsonValue] = field(default_factory=dict)
    events: dict[Asset, SimpleNamespace] = field(default_factory=dict)

    def xcom_push(self, key: str, value: JsonValue) -> None:
        """Keep it."""
        self.pushed[key] = value

    @property
    def context(self) -> Context:
        """The context of each of its tasks."""
        return cast("Context", {"ti": self, "dag_run": self, "outlet_events": self.events})
