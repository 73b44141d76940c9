"""Assign calls to idle workers of one service, replace lost workers, and stop late calls.

A call that is cancelled, or runs too long, is ended by killing its worker; another one starts in
its place. Workers that die are replaced; if none can be started, the state is FAILED.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from pesto_runtime.errors import AlgorithmFailed, Busy, PestoError, ProcessChanged, Unreachable
from pesto_runtime.service.workers.deadlines import CallDeadlines
from pesto_runtime.service.workers.handle import WorkerHandle, WorkerSettings
from pesto_runtime.service.workers.lifecycle import CallNotStarted, StartKilled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.runner import (
        CallResponse,
        OnLog,
        OnProgress,
        Payload,
        ProcessFacts,
        State,
    )

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MOST_FAILURES = 3  # in a row, of a service that was ready before
_MOST_KILLS = 6  # of workers that load, in a row, before the calls that wait fail
_MOST_LINES = 200
_MOST_HANDOVERS = 3


class WorkerPool:
    """Performs calls in worker processes; implements `CallRunner`."""

    def __init__(
        self, target: str, profiles: Sequence[str] = (), *, gate: Gate, limits: Limits
    ) -> None:
        """Start the processes; they load while the service gets ready itself.

        Args:
            target: What each of them loads.
            profiles: Of a PESTO project.
            gate: Which hrefs they may read and write.
            limits: Number of workers, time and memory of a call.
        """
        self._settings = WorkerSettings(target, tuple(profiles), gate, limits)
        self._limits = limits
        self._deadlines = CallDeadlines(limits.timeout_s)
        self._all = {WorkerHandle(self._settings, self._lost) for _ in range(limits.workers)}
        self._serving: set[WorkerHandle] = set()  # those of all that have been ready
        self._idle: list[WorkerHandle] = []
        self._waiting: deque[asyncio.Future[WorkerHandle]] = deque()
        self._starts: set[asyncio.Task[None]] = set()
        self._exits: set[asyncio.Task[None]] = set()
        self._facts: ProcessFacts | None = None
        self._error: PestoError | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self._failures = self._kills = 0
        self._was_ready = False
        self._began = time.monotonic()
        self._lines = ["set-up began"]
        self._state: State = "STARTING"

    @property
    def facts(self) -> ProcessFacts:
        """What is served.

        Raises:
            Busy: `load` has not returned yet.
        """
        if self._facts is None:
            raise Busy("the service is still loading its process", retry_after_s=1)
        return self._facts

    @property
    def state(self) -> State:
        """OK once one worker is ready; FAILED while none can be started."""
        return self._state

    @property
    def setup_log(self) -> tuple[str, ...]:
        """Steps of the set-up, and the lines that the algorithm logged during it."""
        return tuple(self._lines)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that live."""
        return tuple(sorted(each.process_id for each in self._all if each.is_alive))

    @property
    def running_process_ids(self) -> tuple[int, ...]:
        """Of the processes that have a call."""
        return tuple(sorted(each.process_id for each in self._all if each.has_call))

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs; asking again helps.
            AlgorithmFailed: the set-up failed.
            ProcessChanged: the files of the process were changed; a restart helps.
            Unreachable: workers are killed before they are ready; another one is started.
        """
        if self._state == "STARTING":
            raise Busy("the service is still starting", retry_after_s=1)
        if self._error is not None:
            raise _refusal(self._error, "the set-up of the service failed")

    async def load(self) -> ProcessFacts:
        """Wait until the first worker has loaded the target.

        Raises:
            PestoError: the target cannot be loaded; all workers are killed then.
        """
        while self._facts is None:
            first = next(iter(self._all))
            try:
                self._facts = await first.loaded(self._log)
            except StartKilled as error:
                self._kills += 1
                if self._kills == _MOST_KILLS:
                    await self.close()
                    raise _killed_often(error) from error
                _LOG.warning("%s while it loaded; another one is started", error)
                self._remove(first)
                await self._pause()
                self._all.add(WorkerHandle(self._settings, self._lost))
            except PestoError:
                await self.close()
                raise
        return self._facts

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin the set-up in all workers; `on_ready` is called once the first is done."""
        self._on_ready = on_ready
        for each in self._all:
            _start_task(self._set_up(each), self._starts)

    async def run(
        self, payload: Payload, *, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Perform a call in the next idle worker; cancelling it kills that worker.

        A call that a dead worker never started is assigned to the next one.

        Raises:
            PestoError: the request, the algorithm or its outputs are wrong.
            Busy: one worker after the other died before it started the call.
            AlgorithmFailed: the worker died, or took longer than it may.
        """
        died = 0
        while True:
            self.require()
            # The one that worked last comes first: its caches are the warmest.
            handle = self._idle.pop() if self._idle else await self._next_idle()
            try:
                return await self._run_in(handle, payload, on_progress=on_progress, on_log=on_log)
            except CallNotStarted as error:
                died += 1
                if died == _MOST_HANDOVERS:
                    raise Busy(str(error), retry_after_s=1) from error
                _LOG.warning("%s; the call is sent to another one", error)

    async def _run_in(
        self,
        handle: WorkerHandle,
        payload: Payload,
        *,
        on_progress: OnProgress,
        on_log: OnLog,
    ) -> CallResponse:
        deadline = self._deadlines.watch(handle)
        try:
            return await handle.call(
                payload,
                deadline=deadline,
                on_progress=on_progress,
                on_log=on_log,
            )
        except TimeoutError as error:
            raise AlgorithmFailed(
                f"{self.facts.description.name}: no response within {self._limits.timeout_s} s, "
                "which is the most that a call may take here; it was stopped"
            ) from error
        finally:
            self._deadlines.forget(handle)
            self._release(handle)

    async def close(self) -> None:
        """Kill all workers; calls that still run fail."""
        leaving, self._all = self._all, set()
        self._serving.clear()
        self._deadlines.close()
        # First the starts: one that continued would add a worker after all others are killed.
        for task in self._starts:
            task.cancel()
        for each in leaving:
            each.kill()
        await asyncio.gather(*self._starts, return_exceptions=True)
        await asyncio.gather(*(each.exited() for each in leaving), *self._exits)

    async def _next_idle(self) -> WorkerHandle:
        """Wait for an idle worker; callers are served in the order they came."""
        waiter: asyncio.Future[WorkerHandle] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # Cancelled in the turn in which it got a worker: the next caller gets it, else the pool
            # would have one worker fewer from now on.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    def _release(self, handle: WorkerHandle) -> None:
        """Give an idle worker to the caller that waits longest; a lost one is replaced already."""
        if handle.state != "idle":
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(handle)
                return
        self._idle.append(handle)

    def _lost(self, handle: WorkerHandle) -> None:
        """Replace a worker that is lost; `_set_up` does so for one that it still waits for."""
        if handle in self._serving:
            self._replace(handle)

    def _replace(self, handle: WorkerHandle) -> None:
        self._remove(handle)
        _start_task(self._start_another(), self._starts)

    def _remove(self, handle: WorkerHandle) -> None:
        self._all.discard(handle)
        self._serving.discard(handle)
        if handle in self._idle:
            self._idle.remove(handle)
        _start_task(handle.exited(), self._exits)

    async def _start_another(self) -> None:
        await self._pause()
        handle = WorkerHandle(self._settings, self._lost)
        self._all.add(handle)
        await self._set_up(handle)

    async def _pause(self) -> None:
        # A worker that failed in its set-up may fail again at once. Without pauses, a service whose
        # model is broken would use a whole core: the imports of one start take 0.7 s of CPU.
        if bad := self._failures + self._kills:
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** min(bad - 1, 10), _LONGEST_PAUSE_S))

    async def _set_up(self, handle: WorkerHandle) -> None:
        try:
            self._require_same_code(await handle.loaded(self._log))
            await handle.ready(self._log)
        except StartKilled as error:
            self._killed(handle, error)
            return
        except PestoError as error:
            self._failed(handle, error)
            return
        if handle.state == "lost":  # it died between its set-up and this turn of the loop
            self._replace(handle)
            return
        self._error, self._failures, self._kills = None, 0, 0
        self._serving.add(handle)
        self._release(handle)
        self._was_ready = True
        if self._state != "OK":
            self._state = "OK"
            self._log_end("set-up done")
            self._on_ready()
            self._on_ready = lambda: None

    def _require_same_code(self, loaded: ProcessFacts) -> None:
        """Check that a worker has the code of the first one, which all responses state.

        Raises:
            ProcessChanged: the files were changed in the meantime.
        """
        served = self.facts
        if (loaded.build, loaded.description) != (served.build, served.description):
            raise ProcessChanged(
                f"the files of {served.description.name} were changed while the service runs: a "
                f"new worker has loaded build {loaded.build}, and the service serves "
                f"{served.build}; restart the service"
            )

    def _killed(self, handle: WorkerHandle, error: StartKilled) -> None:
        """Start another worker; calls that wait fail only after several kills in a row."""
        _LOG.warning("%s before it was ready; another one is started", error)
        self._kills += 1
        if handle in self._all:
            self._remove(handle)
        _start_task(self._start_another(), self._starts)
        if not self._serving and self._kills >= _MOST_KILLS:
            self._refuse_calls(_killed_often(error))

    def _failed(self, handle: WorkerHandle, error: PestoError) -> None:
        """Try again later, if the service was ready before; a first set-up is not repeated."""
        handle.kill()
        if handle in self._all:
            self._remove(handle)
        if self._was_ready:
            self._failures += 1
            _start_task(self._start_another(), self._starts)
        is_changed = isinstance(error, ProcessChanged)
        if is_changed:
            _LOG.warning("%s", error)
        is_hopeful = self._failures < _MOST_FAILURES if self._was_ready else bool(self._all)
        if not self._serving and (is_changed or not is_hopeful):
            self._refuse_calls(error)

    def _refuse_calls(self, error: PestoError) -> None:
        """Fail the calls that wait, and those that come until a worker is ready."""
        self._state, self._error = "FAILED", error
        self._log_end(f"set-up failed: {error}")
        _LOG.error("%s", self._lines[-1], exc_info=error)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(_refusal(error, "no worker can be started"))

    def _log(self, line: str) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append(line)

    def _log_end(self, line: str) -> None:
        self._log(f"{line} after {time.monotonic() - self._began:.2f} s")


def _refusal(error: PestoError, what: str) -> PestoError:
    """Return the error of calls while no worker can be started."""
    if isinstance(error, (ProcessChanged, Unreachable)):
        return type(error)(error.detail)
    return AlgorithmFailed(f"{what}: {error.detail}")


def _killed_often(error: StartKilled) -> Unreachable:
    return Unreachable(
        f"no worker can be started, {_MOST_KILLS} in a row were killed before they were ready: "
        f"{error}"
    )


def _start_task(work: Coroutine[object, object, None], among: set[asyncio.Task[None]]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    among.add(task)
    task.add_done_callback(among.discard)
