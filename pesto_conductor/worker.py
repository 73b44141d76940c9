"""Run one worker process: its event loop, its signals, and its orderly end.

It does not restart itself: `supervisor.py` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_conductor.connection import plain_url
from pesto_conductor.taskdefs import registered_types
from pesto_runtime.errors import InvalidInput, PestoError

if TYPE_CHECKING:
    from pesto_conductor.binding import TaskBinding
    from pesto_conductor.journal import Journal
    from pesto_conductor.worker_loop import WorkerLoop

_LOG = logging.getLogger(__name__)
STOPPED, FAILED, REFUSED = 0, 1, 2


@dataclass(frozen=True)
class Settings:
    """The settings of a worker process.

    Attributes:
        url: The Conductor's `/api`.
        types: Task types to work on.
        concurrency: Most tasks at once, over all types.
        domain: Task domain to work in.
        metrics_port: For `/metrics`, `/health` and `/ready`; None for none of them.
        metrics_host: The interface of that port.
        adds_types: Whether types that are registered later are worked on too.
    """

    url: str
    types: tuple[str, ...]
    concurrency: int = 1
    domain: str | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    adds_types: bool = False


def work(settings: Settings, journal: Journal, *, alive_fd: int | None = None) -> int:
    """Work until SIGTERM, SIGINT, or the other end of `alive_fd` is closed; return an exit code.

    The caller must end the process then: a thread that did not stop in time still runs.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # The SDK names its loggers by the process that imported it: this one, or its supervisor.
    sdk = (f"[{each}] conductor" for each in (os.getpid(), os.getppid()))
    # rasterio says for each task that boto3 is not there, which is not needed.
    for chatty in ("httpx", "httpcore", "rasterio", *sdk):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(_work(settings, journal, alive_fd))
    except PestoError as error:
        _LOG.error("%s", error)  # the message is sufficient
        return REFUSED if isinstance(error, InvalidInput) else FAILED
    return STOPPED


async def _work(settings: Settings, journal: Journal, alive_fd: int | None) -> None:
    from pesto_conductor.metrics import WorkerMetrics, serve_metrics
    from pesto_conductor.taskqueue import TaskQueue
    from pesto_conductor.verbs import binding_of
    from pesto_conductor.worker_loop import WorkerLoop

    known = list(settings.types)
    metrics = WorkerMetrics()
    if settings.metrics_port is not None:
        serve_metrics(metrics, settings.metrics_port, host=settings.metrics_host)
    queue = TaskQueue(settings.url)

    async def new_bindings() -> list[TaskBinding]:
        added = sorted(set(registered_types(await queue.task_definitions())) - set(known))
        known.extend(added)
        return [binding_of(each) for each in added]

    loop = WorkerLoop(
        queue, metrics, settings.concurrency, domain=settings.domain, journal=journal,
        new_bindings=new_bindings if settings.adds_types else None,
    )  # fmt: skip
    _drain_on_request(loop, alive_fd)
    _LOG.info("working on %s at %s", ", ".join(settings.types), plain_url(settings.url))
    try:
        await loop.run([binding_of(each) for each in settings.types])
    finally:
        await queue.close()
    _LOG.info("stopped")


def _drain_on_request(loop: WorkerLoop, alive_fd: int | None) -> None:
    """Drain after a signal, and when the supervisor has ended."""
    events = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        events.add_signal_handler(number, loop.drain)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # the supervisor blocked them to fork

    if alive_fd is None:
        return

    # The kernel closes the supervisor's end of the pipe, however the supervisor ends.
    def drain_orphan() -> None:
        events.remove_reader(alive_fd)
        loop.drain()

    events.add_reader(alive_fd, drain_orphan)
