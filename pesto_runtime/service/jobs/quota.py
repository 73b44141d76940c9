"""Limit the jobs of each caller: how many are not over, and how many bytes are stored."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.errors import OverQuota

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pesto_runtime.service.jobs.states import JobOptions

    Usage: TypeAlias = Callable[[str], Awaitable[tuple[int, int]]]
    """Returns the jobs of a caller that are not over, and the bytes that its jobs store."""

_RETRY_S = 5.0


class JobQuota:
    """The quota of each caller over all processes; callers without a name have none."""

    def __init__(self, options: JobOptions) -> None:
        """Start without jobs."""
        self._most_jobs, self._most_bytes = options.caller_jobs, options.caller_bytes
        self._jobs: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._usages: list[Usage] = []

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

    def add(self, usage: Usage) -> None:
        """Count the jobs of one more process, too."""
        self._usages.append(usage)

    async def require(self, caller: str) -> None:
        """Do nothing if the jobs of a caller, with those reserved, are within its quota.

        Raises:
            OverQuota: they are not.
        """
        if not caller or (self._most_jobs is None and self._most_bytes is None):
            return
        found = [await each(caller) for each in self._usages]
        jobs = self._jobs[caller] + sum(jobs for jobs, _ in found)
        stored = self._bytes[caller] + sum(stored for _, stored in found)
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
