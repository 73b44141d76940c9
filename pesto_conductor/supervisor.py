"""Start a worker process, restart it when it dies, and end it in time after a signal.

The parent runs no code that can crash: authors' code, GDAL and the SDK run in the worker. It only
imports what a worker needs, so that the next one begins at once. If the parent dies for any reason,
the end of a pipe is closed, and the worker drains.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_conductor.client import Conductor
from pesto_conductor.journal import Journal
from pesto_conductor.taskdefs import PREFIX, registered_types, task_definitions
from pesto_conductor.worker import FAILED, REFUSED, STOPPED, Settings, work
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from pydantic import JsonValue

_GRACE_S = 9.5
_POLL_S = 0.05
_MOST_DEATHS, _WITHIN_S = 5, 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_OF_WORKERS = (
    *(f"pesto_conductor.{name}" for name in ("metrics", "taskqueue", "verbs", "worker_loop")),
    *(f"pesto_runtime.run.{name}" for name in ("chunk", "closing", "planning", "publishing")),
    *("pesto_runtime.client.client", "httpcore"),
)
"""Imported before a worker is forked: in each worker it would be 1.4 s of processor time."""


def run(
    url: str,
    *,
    types: Sequence[str] | None = None,
    concurrency: int | None = None,
    domain: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str = "127.0.0.1",
    is_supervised: bool = True,
    journal: Path | None = None,
) -> int:
    """Work for a Conductor until SIGTERM or SIGINT.

    Call it from the main thread, before another thread is started.

    Args:
        url: Base of its REST interface: `http://HOST:PORT/api`.
        types: Task types to work on; by default those of the activities, and those of services
            that `register --per-service` has registered, before or while it works.
        concurrency: Most tasks at once; by default one per core.
        domain: Task domain to work in, for example `gpu`.
        metrics_port: For Prometheus' `/metrics`, and for `/health` and `/ready`.
        metrics_host: The interface of that port.
        is_supervised: Whether a parent process restarts the worker; False if the platform does.
        journal: File of the tasks in hand, for a worker that the platform restarts.

    Returns:
        0 after a signal, 2 if the server rejects the worker, 1 after five deaths within a minute.

    Raises:
        Unreachable: no server responds.
        InvalidInput: a type does not begin with `pesto_`, or is not registered; or the journal
            cannot be written.
    """
    foreign = [each for each in types or () if not each.startswith(PREFIX)]
    if foreign:
        raise InvalidInput(
            f"{', '.join(foreign)}: task types of this project begin with {PREFIX!r}"
        )
    with Conductor(url) as server:
        known = server.require().task_definitions()
    _require_known(types or (), [str(each.get("name")) for each in known])
    settings = Settings(
        url=url,
        types=tuple(types or _default_types(known)),
        concurrency=concurrency or os.cpu_count() or 1,
        domain=domain,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        adds_types=not types,
    )
    try:
        in_hand = Journal(journal)
    except OSError as error:
        raise InvalidInput(f"journal {journal}: {error.strerror}") from error
    return Supervisor(settings, in_hand).run() if is_supervised else work(settings, in_hand)


def _require_known(types: Sequence[str], known: Sequence[str]) -> None:
    """Reject types that are not registered: a worker for them would never receive a task."""
    unknown = [each for each in types if each not in known]
    if unknown:
        registered = ", ".join(sorted(each for each in known if each.startswith(PREFIX)))
        raise InvalidInput(
            f"the server has no task type {', '.join(unknown)}; "
            f"registered are: {registered or 'none, `pesto conductor register` adds them'}"
        )


def _default_types(known: Sequence[Mapping[str, JsonValue]]) -> tuple[str, ...]:
    verbs = tuple(each.name for each in task_definitions())
    return (*verbs, *sorted(set(registered_types(known)) - set(verbs)))


@dataclass
class Supervisor:
    """The parent of a worker process.

    Attributes:
        settings: Of the worker.
        journal: The tasks that the worker has in hand.
    """

    settings: Settings
    journal: Journal
    _worker: int | None = None
    _signalled_at: float | None = None
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_DEATHS))

    def run(self) -> int:
        """Run a worker, and restart it when it dies, until a signal arrives.

        Returns:
            The exit code, as of `run` of this file.
        """
        handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
        for number in handlers:
            signal.signal(number, self._forward)
        for name in _OF_WORKERS:
            importlib.import_module(name)
        reading, writing = os.pipe()
        try:
            return self._supervise(reading, writing)
        finally:
            os.close(reading)
            os.close(writing)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _supervise(self, reading: int, writing: int) -> int:
        while True:
            self._worker = self._fork(reading, writing)
            code = self._exit_code(self._worker)
            self._worker = None
            if self._signalled_at is not None:
                return STOPPED
            if code == REFUSED:
                return REFUSED
            _log(f"the worker died ({_cause(code)}); the next one returns its tasks to the queue")
            if self._dies_too_often():
                _log(f"{_MOST_DEATHS} deaths within {_WITHIN_S:g} s: no further restart")
                return FAILED
            self._pause()

    def _fork(self, reading: int, writing: int) -> int:
        """Fork a worker; return its pid."""
        # A fork shares the imported modules: a spawned worker needs 15 MB more. It is safe because
        # this process has not used GDAL, and has no thread: OpenBLAS ends its own before a fork
        # (`pthread_atfork`), and starts them again where they are used. Signals are blocked, so
        # that none is lost between the fork and the worker's handlers.
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        worker = os.fork()
        if worker:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return worker
        code = FAILED
        try:
            os.close(writing)
            code = work(self.settings, self.journal, alive_fd=reading)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _exit_code(self, worker: int) -> int:
        """Wait for the end of a worker; kill it if it does not end in time after a signal."""
        while True:
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if self._signalled_at is not None and time.monotonic() - self._signalled_at > _GRACE_S:
                os.kill(worker, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _forward(self, _number: int, _frame: FrameType | None) -> None:
        """Forward a signal to the worker, as SIGTERM."""
        if self._signalled_at is None:
            self._signalled_at = time.monotonic()
        if self._worker is not None:
            os.kill(self._worker, signal.SIGTERM)

    def _dies_too_often(self) -> bool:
        self._deaths.append(time.monotonic())
        full = len(self._deaths) == _MOST_DEATHS
        return full and self._deaths[-1] - self._deaths[0] < _WITHIN_S

    def _pause(self) -> None:
        seconds = min(_FIRST_PAUSE_S * 2 ** (len(self._deaths) - 1), _LONGEST_PAUSE_S)
        deadline = time.monotonic() + seconds
        while self._signalled_at is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _cause(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"exit code {code}"


def _log(text: str) -> None:
    print(f"pesto conductor worker: {text}", file=sys.stderr, flush=True)  # noqa: T201  # its log
