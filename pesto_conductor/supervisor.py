"""Keep a worker process running: start it, start it again when it dies, and end it in time.

The parent does nothing that can crash. The worker runs authors' code, GDAL and the SDK; when the
parent dies, however it dies, the worker sees its end of a pipe close and drains.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_conductor.client import Conductor
from pesto_conductor.taskdefs import PREFIX, task_definitions
from pesto_conductor.worker import FAILED, REFUSED, STOPPED, Settings, work
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_GRACE_S = 4.5
_LOOK_S = 0.05
_MOST_DEATHS, _WITHIN_S = 5, 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


def run(
    url: str,
    *,
    types: Sequence[str] | None = None,
    concurrency: int | None = None,
    domain: str | None = None,
    metrics_port: int | None = None,
) -> int:
    """Work for a Conductor until SIGTERM or SIGINT; call it from the main thread, before others.

    Args:
        url: Base of its REST interface: `http://HOST:PORT/api`.
        types: Task types to work on; by default those of the verbs, and those of services that
            `register --per-service` made known to the server.
        concurrency: Most tasks of a type at once; by default one per core.
        domain: Task domain to work in: `gpu`, say.
        metrics_port: For Prometheus' `/metrics` and for `/health`, on the loopback.

    Returns:
        0 after a signal, 2 when the server refuses us, 1 when workers die faster than they work.

    Raises:
        Unreachable: no server answers.
        InvalidInput: a type is not one of ours, or the server does not know it.
    """
    foreign = [each for each in types or () if not each.startswith(PREFIX)]
    if foreign:
        raise InvalidInput(f"{', '.join(foreign)}: our task types begin with {PREFIX!r}")
    with Conductor(url) as server:
        known = server.require().task_types()
    _require_known(types or (), known)
    settings = Settings(
        url=url,
        types=tuple(types or _ours(known)),
        concurrency=concurrency or os.cpu_count() or 1,
        domain=domain,
        metrics_port=metrics_port,
    )
    return Supervisor(settings).run()


def _require_known(types: Sequence[str], known: Sequence[str]) -> None:
    """Refuse types that no task of this server can have: a worker of them would wait for ever."""
    unknown = [each for each in types if each not in known]
    if unknown:
        registered = ", ".join(sorted(each for each in known if each.startswith(PREFIX)))
        raise InvalidInput(
            f"the server knows no task type {', '.join(unknown)}; "
            f"registered are: {registered or 'none, `pesto conductor register` adds them'}"
        )


def _ours(known: Sequence[str]) -> tuple[str, ...]:
    verbs = tuple(each.name for each in task_definitions())
    return (*verbs, *sorted({each for each in known if each.startswith(PREFIX)} - set(verbs)))


@dataclass
class Supervisor:
    """A parent, and the worker process that it keeps.

    Attributes:
        settings: Of the worker.
    """

    settings: Settings
    _worker: int | None = None
    _told_at: float | None = None
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_DEATHS))

    def run(self) -> int:
        """Keep a worker until told to stop."""
        handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
        for number in handlers:
            signal.signal(number, self._tell)
        reading, writing = os.pipe()
        try:
            return self._keep(reading, writing)
        finally:
            os.close(reading)
            os.close(writing)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _keep(self, reading: int, writing: int) -> int:
        while True:
            self._worker = self._spawn(reading, writing)
            code = self._waited(self._worker)
            self._worker = None
            if self._told_at is not None:
                return STOPPED
            if code == REFUSED:
                return REFUSED
            _say(f"the worker died ({_how(code)}); its tasks come back when their lease is over")
            if self._dies_too_often():
                _say(f"{_MOST_DEATHS} deaths within {_WITHIN_S:g} s: giving up")
                return FAILED
            self._pause()

    def _spawn(self, reading: int, writing: int) -> int:
        """Start a worker; a fork, as the parent has no threads and the memory is shared.

        A signal waits meanwhile, so that none is lost between the fork and the worker's handlers.
        """
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        worker = os.fork()
        if worker:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return worker
        code = FAILED
        try:
            os.close(writing)
            code = work(self.settings, alive_fd=reading)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _waited(self, worker: int) -> int:
        """Wait for a worker's end; kill it when it does not come in time after a signal."""
        while True:
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if self._told_at is not None and time.monotonic() - self._told_at > _GRACE_S:
                os.kill(worker, signal.SIGKILL)
            time.sleep(_LOOK_S)

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        """Pass a signal on."""
        if self._told_at is None:
            self._told_at = time.monotonic()
        if self._worker is not None:
            os.kill(self._worker, signal.SIGTERM)

    def _dies_too_often(self) -> bool:
        self._deaths.append(time.monotonic())
        full = len(self._deaths) == _MOST_DEATHS
        return full and self._deaths[-1] - self._deaths[0] < _WITHIN_S

    def _pause(self) -> None:
        seconds = min(_FIRST_PAUSE_S * 2 ** (len(self._deaths) - 1), _LONGEST_PAUSE_S)
        deadline = time.monotonic() + seconds
        while self._told_at is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"exit code {code}"


def _say(text: str) -> None:
    print(f"pesto conductor worker: {text}", file=sys.stderr, flush=True)  # noqa: T201  # its log
