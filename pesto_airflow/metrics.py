"""Send the figures of a mapped task to Airflow's metrics: StatsD, Datadog or OpenTelemetry.

Tags are `dag_id` and `task_id`. Without metrics in Airflow's configuration, nothing is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.observability.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context
    from pydantic import JsonValue

COUNTERS = {
    "tiles": "pesto.tiles.computed",
    "reused": "pesto.tiles.reused",
    "holes": "pesto.tiles.holes",
    "blocks": "pesto.blocks",
    "bytes_read": "pesto.bytes_read",
}
"""Count of a chunk -> name of its counter."""
RATE, RETRIES = "pesto.tiles_per_second", "pesto.task_retries"


def send_counts(context: Context, counts: Mapping[str, JsonValue], seconds: float) -> None:
    """Send the counts of a task that has ended.

    Args:
        context: Airflow's context of the task.
        counts: Counts of a chunk, or their sums.
        seconds: Time of its work.
    """
    task = context["ti"]
    tags = {"dag_id": task.dag_id, "task_id": task.task_id}
    for key, name in COUNTERS.items():
        count = counts.get(key)
        if isinstance(count, int) and count:
            Stats.incr(name, count, tags=tags)
    computed = counts.get("tiles")
    if isinstance(computed, int) and computed and seconds > 0:
        Stats.gauge(RATE, computed / seconds, tags=tags)
    if task.try_number > 1:
        Stats.incr(RETRIES, tags=tags)
