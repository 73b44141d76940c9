"""Whether the service can work yet; set-up runs beside the server, so health always answers."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from pesto_runtime.errors import AlgorithmFailed, Busy, PestoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.service.runs import State

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
