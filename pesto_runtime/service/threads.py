"""Run calls in threads of this process, for tests and for code that always returns.

A thread cannot be stopped: a cancelled call that has started uses its thread until it ends. Worker
processes, which can be killed, are in `workers`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from pesto_runtime.errors import AlgorithmFailed, Busy, PestoError
from pesto_runtime.processor.loading import is_placeless
from pesto_runtime.processor.protocol import listening
from pesto_runtime.service.execution import Execution
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.logs import also
from pesto_runtime.service.runner import ProcessFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor
    from pesto_runtime.service.runner import CallResponse, OnLog, OnProgress, Payload, State


_LOG = logging.getLogger(__name__)


class ThreadRunner:
    """Performs calls in threads; implements `CallRunner`."""

    def __init__(self, processor: Processor, *, gate: Gate, limits: Limits | None = None) -> None:
        """Prepare calls of a processor; `start` sets it up."""
        limits = limits or Limits()
        self.facts = ProcessFacts(
            processor.description, processor.build, processor.version_document,
            is_placeless(processor),
        )  # fmt: skip
        self._processor = processor
        self._execution = Execution.of(processor, gate, limits)
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="pesto-work")
        self._readiness = Readiness(partial(_set_up, processor), on_ready=lambda: None)
        self.busy = 0

    @property
    def state(self) -> State:
        """OK once calls can run."""
        return self._readiness.state

    @property
    def setup_log(self) -> tuple[str, ...]:
        """Steps of the set-up, one line each."""
        return self._readiness.log

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs.
            AlgorithmFailed: the set-up failed.
        """
        self._readiness.require()

    async def load(self) -> ProcessFacts:
        """Return the facts about the process; it is loaded already."""
        return self.facts

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin the set-up in a thread of its own."""
        self._readiness = Readiness(partial(_set_up, self._processor), on_ready=on_ready)
        self._readiness.start()

    async def run(
        self, payload: Payload, *, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Perform a call in the next free thread.

        Raises:
            PestoError: the request, the algorithm or its outputs are wrong.
        """
        self.require()
        loop = asyncio.get_running_loop()
        listener = _Listener(loop, on_progress, on_log)
        work = partial(self._execution.perform, payload, on_tile=_log_tile)
        future = self._threads.submit(copy_context().run, _run_listened, listener, work)
        self.busy += 1
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel():  # it runs: its place is free again only when it ends
                await asyncio.wait([waiting])
            raise
        finally:
            self.busy -= 1

    async def close(self) -> None:
        """Cancel the calls that wait; calls that run continue to their end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Readiness:
    """The set-up of a process, run once in a thread of its own."""

    def __init__(self, setup: Callable[[], None], *, on_ready: Callable[[], None]) -> None:
        """Store the set-up; `start` runs it.

        Args:
            setup: The set-up; its error is stored, and raised for every call.
            on_ready: Called once after a set-up that did not fail.
        """
        self._setup = setup
        self._on_ready = on_ready
        self._began = time.monotonic()
        self.state: State = "STARTING"
        self.error: PestoError | None = None
        self.log: tuple[str, ...] = ("set-up began",)

    def start(self) -> None:
        """Begin the set-up."""
        # A daemon thread: Python would wait for any other at exit, for example for a large model.
        threading.Thread(target=self._run, name="pesto-setup", daemon=True).start()

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs; a later request may succeed.
            AlgorithmFailed: the set-up failed.
        """
        if self.state == "STARTING":
            raise Busy("the service is still starting", retry_after_s=1)
        if self.error is not None:
            raise AlgorithmFailed(f"the set-up of the service failed: {self.error.detail}")

    def _run(self) -> None:
        try:
            self._setup()
        except PestoError as error:
            self._end("FAILED", f"set-up failed: {error}", error=error)
            return
        except Exception as error:  # the edge of the thread: /health must report it
            failed = AlgorithmFailed(f"{type(error).__name__}: {error}")
            self._end("FAILED", f"set-up failed: {failed}", error=failed)
            raise
        self._end("OK", "set-up done")
        self._on_ready()

    def _end(self, state: State, line: str, *, error: PestoError | None = None) -> None:
        seconds = time.monotonic() - self._began
        self.log = (*self.log, f"{line} after {seconds:.2f} s")
        _LOG.log(logging.ERROR if error else logging.DEBUG, self.log[-1])
        self.error = error
        self.state = state


@dataclass(frozen=True)
class _Listener:
    """Forwards progress and log lines of an algorithm to the event loop."""

    loop: asyncio.AbstractEventLoop
    on_progress: OnProgress
    on_log: OnLog

    def progress(self, done: float, total: float) -> None:
        self.loop.call_soon_threadsafe(self.on_progress, done, total)

    def log(self, text: str) -> None:
        self.loop.call_soon_threadsafe(self.on_log, text)


def _log_tile(tile: str) -> None:
    also(tile=tile)


def _run_listened(listener: _Listener, work: Callable[[], CallResponse]) -> CallResponse:
    with listening(listener):
        return work()


def _set_up(processor: Processor) -> None:
    import_module("pesto_runtime.raster.codec")  # else the first call waits for GDAL
    processor.setup()
