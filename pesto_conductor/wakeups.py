"""Have the server decide the next tasks of a workflow after its tasks have ended.

A server decides when a result arrives, but not while it decides the same workflow for another
result: then the workflow waits for the next sweep, up to a minute. A machine that dies leaves its
task open until somebody asks for a decision after the end of its lease. A server that is killed
while it evaluates a JOIN, or fails to write its queue then, leaves the JOIN for an hour: it is
completed from here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from pesto_conductor.errors import Report
from pesto_conductor.joins import dead_end, wedged_joins
from pesto_conductor.taskqueue import Assignment
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from pesto_conductor.taskqueue import TaskQueue

_LOG = logging.getLogger(__name__)
_AFTER_S = (1.0, 4.0, 10.0, 35.0, 75.0)
"""After the last result of a workflow; 35 s is after the lease of a dead machine."""
_CHECK_S = 0.25


class Wakeups:
    """Requests a decision some times after the last result of each workflow."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._due: dict[str, tuple[float, int]] = {}

    def reported(self, workflow: str) -> None:
        """Plan the decisions of a workflow after a result; those planned before are dropped."""
        # Many workers report the end of a fan-out at once: they need not ask at once.
        self._due[workflow] = (time.monotonic() + _AFTER_S[0] * random.uniform(0.5, 1.5), 0)  # noqa: S311

    def forget(self, workflow: str) -> None:
        """Drop the planned decisions of a workflow."""
        self._due.pop(workflow, None)

    async def run(self) -> None:
        """Request decisions when they are due, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_S)
            now = time.monotonic()
            for workflow, (at, step) in list(self._due.items()):
                if at <= now:
                    await self._decide(workflow, step)

    async def _decide(self, workflow: str, step: int) -> None:
        planned = self._due.get(workflow)
        try:
            is_running = await self._queue.decide(workflow)
        except PestoError as error:
            _LOG.debug("decision of workflow %s: %s", workflow, error)
            is_running = True
        if self._due.get(workflow) != planned:
            return  # a result came meanwhile, which has planned its own
        if is_running and step + 1 < len(_AFTER_S):
            pause_s = _AFTER_S[step + 1] - _AFTER_S[step]
            self._due[workflow] = (time.monotonic() + pause_s, step + 1)
            return
        del self._due[workflow]
        if is_running and await self._complete_joins(workflow):
            # The lost server may still write the JOIN as it was: look at it once more.
            self.reported(workflow)

    async def _complete_joins(self, workflow: str) -> bool:
        """Complete JOINs that no server evaluates any more; return whether there was one."""
        try:
            found = await self._queue.workflow(workflow, tasks=True)
            if (why := dead_end(found)) is not None:
                _LOG.warning("workflow %s: %s", workflow, why)
            for join in (joins := wedged_joins(found)):
                if not join.is_ours:
                    _LOG.warning(
                        "workflow %s: %s; `pesto conductor wake %s` completes it",
                        workflow, join.message, workflow,
                    )  # fmt: skip
                    continue
                task = Assignment(join.task, "JOIN", workflow, {}, 0.0)
                await self._queue.report(task, Report("COMPLETED", join.output), and_next=False)
                _LOG.warning("workflow %s: completed %s", workflow, join.message)
        except PestoError as error:
            _LOG.debug("JOINs of workflow %s: %s", workflow, error)
            return True
        return any(join.is_ours for join in joins)
