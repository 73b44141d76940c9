"""Settings of the polls for one task type, with the variables that conductor-python reads.

`CONDUCTOR_WORKER_ALL_…` are of all types, and `CONDUCTOR_WORKER_<TYPE>_…` of one: `POLL_TIMEOUT`
and `POLL_INTERVAL` in ms, `THREAD_COUNT`, `DOMAIN`, `PAUSED`.
"""

from __future__ import annotations

from dataclasses import dataclass

_LONG_POLL_MS = 5000
"""The longest that a server permits."""
_MS = 1000.0


@dataclass(frozen=True)
class PollSettings:
    """How tasks of one type are taken.

    Attributes:
        wait_s: Time for which the server holds a poll open until there is a task.
        interval_s: Pause after a poll without a task; None for none after a long poll, and a short
            one after others.
        most: Tasks of the type at once.
        domain: Task domain to poll in.
        is_paused: Whether no task is taken.
    """

    wait_s: float = _LONG_POLL_MS / _MS
    interval_s: float | None = None
    most: int = 1
    domain: str | None = None
    is_paused: bool = False

    @classmethod
    def of(cls, task_type: str, *, concurrency: int, domain: str | None = None) -> PollSettings:
        """Return the settings of a type: those of the environment, or else of the arguments."""
        from conductor.client.worker.worker_config import resolve_worker_config

        found = resolve_worker_config(
            task_type, domain=domain, thread_count=concurrency, poll_timeout=_LONG_POLL_MS
        )
        interval_ms = found["poll_interval"]
        return cls(
            wait_s=min(max(int(found["poll_timeout"]), 0), _LONG_POLL_MS) / _MS,
            interval_s=None if interval_ms is None else max(float(interval_ms), 0.0) / _MS,
            most=max(int(found["thread_count"]), 1),
            domain=str(found["domain"]) if found["domain"] else None,
            is_paused=bool(found["paused"]),
        )
