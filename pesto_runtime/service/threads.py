"""Calls in threads of this process: for tests, and for code that is known to behave.

A thread cannot be stopped: a call that is cancelled is dropped only while it still waits, and else
keeps its place until it ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from pesto_runtime.errors import AlgorithmFailed, Busy, PestoError
from pesto_runtime.processor.protocol import listening
from pesto_runtime.service.admission import Limits
from pesto_runtime.service.execution import Execution
from pesto_runtime.service.logs import also
from pesto_runtime.service.runs import ProcessFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor
    from pesto_runtime.service.request import Payload
    from pesto_runtime.service.runs import CallResponse, OnLog, OnProgress, State


_LOG = logging.getLogger(__name__)


class Readiness:
    """One set-up, run once in a thread of its own."""

    def __init__(self, setup: Callable[[], None], *, on_ready: Callable[[], None]) -> None:
        """Take what to run; nothing runs before `start`.

        Args:
            setup: The set-up; what it raises is kept, and told to every caller.
            on_ready: Called once after a set-up that did not fail.
        """
        self._setup = setup
        self._on_ready = on_ready
        self._began = time.monotonic()
        self.state: State = "STARTING"
        self.error: PestoError | None = None
        self.log: tuple[str, ...] = ("set-up began",)

    def start(self) -> None:
        """Begin the set-up; a daemon thread, so that Ctrl-C never waits for a model to load."""
        threading.Thread(target=self._run, name="pesto-setup", daemon=True).start()

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs; asking again helps.
            AlgorithmFailed: the set-up failed; asking again does not.
        """
        if self.state == "STARTING":
            raise Busy("the service is still starting", retry_after_s=1)
        if self.error is not None:
            raise AlgorithmFailed(f"the set-up of the service failed: {self.error.detail}")

    def _run(self) -> None:
        try:
            self._setup()
        except PestoError as error:
            self._ended("FAILED", f"set-up failed: {error}", error=error)
            return
        except Exception as error:  # the thread's edge: a service that cannot start says so
            failed = AlgorithmFailed(f"{type(error).__name__}: {error}")
            self._ended("FAILED", f"set-up failed: {failed}", error=failed)
            raise
        self._ended("OK", "set-up done")
        self._on_ready()

    def _ended(self, state: State, line: str, *, error: PestoError | None = None) -> None:
        seconds = time.monotonic() - self._began
        self.log = (*self.log, f"{line} after {seconds:.2f} s")
        _LOG.log(logging.ERROR if error else logging.DEBUG, self.log[-1])
        self.error = error
        self.state = state


class ThreadRunner:
    """Performs calls in threads; implements `Runs`."""

    def __init__(self, processor: Processor, *, gate: Gate, limits: Limits | None = None) -> None:
        """Take the processor; it is set up once it is started."""
        bounds = limits or Limits()
        self.facts = ProcessFacts(
            processor.description, processor.build, processor.version_document
        )
        self._processor = processor
        self._here = Execution.of(processor, gate, bounds)
        self._afar = Execution.of(processor, replace(gate, loopback=False), bounds)
        self._threads = ThreadPoolExecutor(bounds.workers, thread_name_prefix="pesto-work")
        self._readiness = Readiness(partial(_set_up, processor), on_ready=lambda: None)
        self.busy = 0

    @property
    def state(self) -> State:
        """Whether calls can run yet."""
        return self._readiness.state

    @property
    def setup_log(self) -> tuple[str, ...]:
        """What happened since the start."""
        return self._readiness.log

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs.
            AlgorithmFailed: the set-up failed.
        """
        self._readiness.require()

    async def load(self) -> ProcessFacts:
        """Answer what is served; it is loaded already."""
        return self.facts

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin the set-up in a thread of its own."""
        self._readiness = Readiness(partial(_set_up, self._processor), on_ready=on_ready)
        self._readiness.start()

    async def run(
        self, payload: Payload, *, from_here: bool, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Perform a call in the next free thread.

        Raises:
            PestoError: the request, the algorithm or the answer is at fault.
        """
        self.require()
        execution = self._here if from_here else self._afar
        loop = asyncio.get_running_loop()
        listener = _Listener(loop, on_progress, on_log)
        work = partial(execution.answer, payload, on_tile=_tell_tile)
        future = self._threads.submit(copy_context().run, _heard, listener, work)
        self.busy += 1
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([waiting])
            raise
        finally:
            self.busy -= 1

    async def close(self) -> None:
        """Drop the calls that wait; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Listener:
    """Hands on what an algorithm tells to the event loop."""

    loop: asyncio.AbstractEventLoop
    on_progress: OnProgress
    on_log: OnLog

    def progress(self, done: float, total: float) -> None:
        self.loop.call_soon_threadsafe(self.on_progress, done, total)

    def log(self, text: str) -> None:
        self.loop.call_soon_threadsafe(self.on_log, text)


def _tell_tile(tile: str) -> None:
    also(tile=tile)


def _heard(listener: _Listener, work: Callable[[], CallResponse]) -> CallResponse:
    with listening(listener):
        return work()


def _set_up(processor: Processor) -> None:
    import_module("pesto_runtime.raster.codec")  # GDAL, before the first call waits for it
    processor.setup()
