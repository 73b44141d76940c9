"""Limit the jobs of each caller: how many are not over, and how many bytes are stored."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pesto_runtime.errors import OverQuota

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.service.jobs.states import JobOptions

_RETRY_S = 5.0


class JobQuota:
    """The quota of each caller; callers without a name have none."""

    def __init__(self, options: JobOptions) -> None:
        """Start without jobs."""
        self._most_jobs, self._most_bytes = options.caller_jobs, options.caller_bytes
        self._jobs: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def limits(self, caller: str) -> bool:
        """Return whether a caller has a quota."""
        return bool(caller) and not (self._most_jobs is None and self._most_bytes is None)

    @contextmanager
    def reserved(self, caller: str, size: int) -> Iterator[None]:
        """Count a job that is being stored, so that two at once do not both take the last place."""
        self._jobs[caller] += 1
        self._bytes[caller] += size
        try:
            yield
        finally:
            self._jobs[caller] -= 1
            self._bytes[caller] -= size

    def require(self, caller: str, *, jobs: int, stored_bytes: int) -> None:
        """Do nothing if the jobs of a caller, with those reserved, are within its quota.

        Args:
            caller: Its name.
            jobs: Of its jobs, those that are not over.
            stored_bytes: Of requests and results of its jobs.

        Raises:
            OverQuota: they are not.
        """
        jobs, stored = jobs + self._jobs[caller], stored_bytes + self._bytes[caller]
        if self._most_jobs is not None and jobs > self._most_jobs:
            raise OverQuota(
                f"{caller} has {jobs - 1} jobs that are not over, and may have {self._most_jobs} "
                "(--caller-jobs); wait for one, or dismiss it",
                retry_after_s=_RETRY_S,
            )
        if self._most_bytes is not None and stored > self._most_bytes:
            raise OverQuota(
                f"the jobs of {caller} would store {stored} bytes, and may store "
                f"{self._most_bytes} (--caller-mib); dismiss jobs whose results are not needed",
                retry_after_s=_RETRY_S,
            )
