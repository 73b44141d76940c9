"""One attempt at one task: its verb in a thread, and around it what keeps Conductor informed.

While the verb works, the lease is renewed, progress is logged, and the server is asked whether the
task is still wanted: a terminated workflow tells nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_conductor.errors import Report, report_of
from pesto_conductor.verbs import Errand
from pesto_conductor.watch import Lookout
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from pesto_conductor.bindings import Binding
    from pesto_conductor.taskqueue import Assignment, TaskQueue

_LOG = logging.getLogger(__name__)
_LOOK_S = 3.0
_TELL_S = 5.0
_RENEWALS = 3
"""Renewals within the response timeout of a task: two may be lost."""


@dataclass
class Attempt:
    """An attempt, while it goes.

    Attributes:
        assignment: The task.
        binding: What serves it.
        queue: Where it came from.
        is_unwanted: Whether the server says that nobody waits for it.
        ended: Set when the verb has returned.
    """

    assignment: Assignment
    binding: Binding
    queue: TaskQueue
    is_unwanted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lookout: Lookout = field(default_factory=Lookout)

    def stop(self) -> None:
        """Ask the verb to end."""
        self.lookout.stop()

    async def run(self, pool: Executor) -> Report:
        """Perform it to its end, whatever that is."""
        caring = asyncio.create_task(self._care())
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._perform)
        finally:
            self.ended.set()
            caring.cancel()

    def _perform(self) -> Report:
        task = self.assignment
        errand = Errand(self.queue.url, task.workflow, self.lookout.watch, self.lookout.say)
        try:
            output = self.binding.run(task.input, errand)
        except Exception as error:  # noqa: BLE001  # the author's code may raise anything
            report = report_of(error)
        else:
            report = Report("COMPLETED", output)
        told = self.lookout.progress()
        lines = (*self.lookout.lines(), *([told] if told else ()), *report.lines)
        return Report(report.status, report.output, report.reason, report.again_after_s, lines)

    async def _care(self) -> None:
        timeout_s = self.assignment.response_timeout_s
        renew_s = timeout_s / (_RENEWALS + 1) if timeout_s else float("inf")
        renewed = told = time.monotonic()
        while not self.is_unwanted:
            await asyncio.sleep(min(_LOOK_S, renew_s))
            now = time.monotonic()
            try:
                if now - renewed >= renew_s:
                    await self.queue.renew(self.assignment)
                    renewed = now
                if now - told >= _TELL_S:
                    await self._tell()
                    told = now
                await self._look()
            except PestoError as error:  # the server is away: the work goes on without it
                _LOG.debug("task %s: %s", self.assignment.identity, error)

    async def _tell(self) -> None:
        told = self.lookout.progress()
        for line in (*self.lookout.lines(), *([told] if told else ())):
            await self.queue.log(self.assignment, line)

    async def _look(self) -> None:
        if not await self.queue.is_wanted(self.assignment):
            self.is_unwanted = True
            _LOG.info("task %s is no longer wanted: stopping", self.assignment.identity)
            self.stop()
