"""The workers of one service: which is free, which must be replaced, when all are ready.

A call that is cancelled, or runs too long, is ended by killing its worker; another one starts in
its place. Workers that die are replaced; when none can be started any more, the service says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from pesto_runtime.errors import AlgorithmFailed, Busy, PestoError
from pesto_runtime.service.workers.deadlines import Deadlines
from pesto_runtime.service.workers.fate import NotBegun, told
from pesto_runtime.service.workers.handle import Handle
from pesto_runtime.service.workers.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.admission import Limits
    from pesto_runtime.service.request import Payload
    from pesto_runtime.service.runs import CallResponse, OnLog, OnProgress, ProcessFacts, State

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MOST_FAILURES = 3  # in a row, of a service that was ready before
_MOST_LINES = 200
_MOST_HANDOVERS = 3


class Workers:
    """Performs calls in worker processes; implements `Runs`."""

    def __init__(
        self, target: str, profiles: Sequence[str] = (), *, gate: Gate, limits: Limits
    ) -> None:
        """Start the processes; they load while the service gets ready itself.

        Args:
            target: What each of them loads.
            profiles: Of a PESTO project.
            gate: What hrefs pass.
            limits: Number of workers, time and memory of a call.
        """
        self._setting = Setting(target, tuple(profiles), gate, limits)
        self._limits = limits
        self._deadlines = Deadlines(limits.timeout_s)
        self._all = {Handle(self._setting) for _ in range(limits.workers)}
        self._ready: list[Handle] = []
        self._waiting: deque[asyncio.Future[Handle]] = deque()
        self._running: set[Handle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._facts: ProcessFacts | None = None
        self._error: PestoError | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self._failures = 0
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
        """What happened during set-up, and what the algorithm told then."""
        return tuple(self._lines)

    @property
    def busy(self) -> int:
        """Number of calls that run."""
        return len(self._running)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that live."""
        return tuple(sorted(each.process_id for each in self._all if each.is_alive))

    @property
    def running_process_ids(self) -> tuple[int, ...]:
        """Of the processes that have a call."""
        return tuple(sorted(each.process_id for each in self._running))

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs; asking again helps.
            AlgorithmFailed: the set-up failed.
        """
        if self._state == "STARTING":
            raise Busy("the service is still starting", retry_after_s=1)
        if self._error is not None:
            raise AlgorithmFailed(f"the set-up of the service failed: {self._error.detail}")

    async def load(self) -> ProcessFacts:
        """Wait until the first worker has loaded the target.

        Raises:
            PestoError: the target cannot be loaded; no worker is left then.
        """
        first = next(iter(self._all))
        try:
            self._facts = await first.loaded(self._tell)
        except PestoError:
            await self.close()
            raise
        return self._facts

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin the set-up in all workers; `on_ready` is called once the first is done."""
        self._on_ready = on_ready
        for each in self._all:
            _begun(self._set_up(each), self._tasks)

    async def run(
        self, payload: Payload, *, from_here: bool, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Perform a call in the next free worker; cancelling it kills that worker.

        A call that a dead worker never began is handed to the next one.

        Raises:
            PestoError: the request, the algorithm or the answer is at fault.
            Busy: one worker after the other died before it began.
            AlgorithmFailed: the worker died, or took longer than it may.
        """
        died = 0
        while True:
            handle = await self._take()
            try:
                return await self._run_in(
                    handle, payload, from_here=from_here, on_progress=on_progress, on_log=on_log
                )
            except NotBegun as error:
                died += 1
                if died == _MOST_HANDOVERS:
                    raise Busy(str(error), retry_after_s=1) from error
                _LOG.warning("%s; another one is handed it", error)

    async def _run_in(
        self,
        handle: Handle,
        payload: Payload,
        *,
        from_here: bool,
        on_progress: OnProgress,
        on_log: OnLog,
    ) -> CallResponse:
        self._running.add(handle)
        self._deadlines.watch(handle)
        try:
            return await handle.call(
                payload, from_here=from_here, on_progress=on_progress, on_log=on_log
            )
        except TimeoutError as error:
            raise AlgorithmFailed(
                f"{self.facts.description.name}: no answer within {self._limits.timeout_s} s, "
                "which is the most that a call may take here; it was stopped"
            ) from error
        finally:
            self._running.discard(handle)
            self._deadlines.forget(handle)
            if handle.is_busy or handle.is_lost:
                self._replace(handle)
            else:
                self._give(handle)

    async def close(self) -> None:
        """Kill all workers; calls that still run fail."""
        leaving, self._all = self._all, set()
        self._deadlines.close()
        for task in self._tasks:
            task.cancel()
        for each in leaving:
            each.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(each.gone() for each in leaving), *self._burials)

    async def _take(self) -> Handle:
        """The next free worker; callers are served in the order they came."""
        self.require()
        while self._ready:
            handle = self._ready.pop()
            if not handle.is_lost:
                return handle
        waiter: asyncio.Future[Handle] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._give(waiter.result())
            raise

    def _give(self, handle: Handle) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(handle)
                return
        self._ready.append(handle)

    def _replace(self, handle: Handle) -> None:
        """End a worker and start another, unless somebody did so already."""
        if handle not in self._all:
            return
        self._drop(handle)
        _begun(self._start_another(), self._tasks)

    def _drop(self, handle: Handle) -> None:
        self._all.discard(handle)
        if handle in self._ready:
            self._ready.remove(handle)
        handle.kill()
        _begun(_gone(handle), self._burials)

    async def _start_another(self) -> None:
        if self._failures:
            pause_s = _FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10)
            await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
        handle = Handle(self._setting)
        self._all.add(handle)
        await self._set_up(handle)

    async def _set_up(self, handle: Handle) -> None:
        try:
            await handle.loaded(self._tell)
            await handle.ready()
        except PestoError as error:
            self._failed(handle, error)
            return
        self._error, self._failures = None, 0
        handle.on_lost = partial(self._replace, handle)
        self._give(handle)
        if self._state != "OK":
            self._state = "OK"
            self._tell_end("set-up done")
            self._on_ready()
            self._on_ready = lambda: None

    def _failed(self, handle: Handle, error: PestoError) -> None:
        """A service that was never ready stays as it is; one that was tries again, later."""
        was_ready = self._state == "OK" or self._failures > 0
        if handle in self._all:
            self._drop(handle)
        if was_ready:
            self._failures += 1
            _begun(self._start_another(), self._tasks)
        is_hopeful = self._failures < _MOST_FAILURES if was_ready else bool(self._all)
        if self._ready or self._running or is_hopeful:
            return
        self._state, self._error = "FAILED", error
        self._tell_end(f"set-up failed: {error}")
        _LOG.error("%s", self._lines[-1], exc_info=error)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(AlgorithmFailed(f"no worker can be started: {error.detail}"))

    def _tell(self, line: str) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append(line)

    def _tell_end(self, line: str) -> None:
        self._tell(f"{line} after {time.monotonic() - self._began:.2f} s")


def _begun(work: Coroutine[object, object, None], among: set[asyncio.Task[None]]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    among.add(task)
    task.add_done_callback(among.discard)


async def _gone(handle: Handle) -> None:
    code = await handle.gone()
    _LOG.debug("worker %d %s", handle.process_id, told(code))
