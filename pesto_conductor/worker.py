"""One worker process: an event loop that polls, threads that work, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput, PestoError

if TYPE_CHECKING:
    from pesto_conductor.crew import Crew

_LOG = logging.getLogger(__name__)
STOPPED, FAILED, REFUSED = 0, 1, 2


@dataclass(frozen=True)
class Settings:
    """What a worker process is told.

    Attributes:
        url: The Conductor's `/api`.
        types: Task types to work on; all of ours, and those of services that the server knows, if
            empty.
        concurrency: Most tasks of a type at once.
        domain: Task domain to work in.
        metrics_port: For `/metrics` and `/health`; None for neither.
    """

    url: str
    types: tuple[str, ...] = ()
    concurrency: int = 1
    domain: str | None = None
    metrics_port: int | None = None


def work(settings: Settings, *, alive_fd: int) -> int:
    """Work until SIGTERM, SIGINT, or the other end of `alive_fd` is closed; answers an exit code.

    The process is to end right after: a thread that did not stop in time still runs.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for chatty in ("httpx", "httpcore", f"[{os.getpid()}] conductor"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(_work(settings, alive_fd))
    except PestoError as error:
        _LOG.error("%s", error)  # says all there is to say
        return REFUSED if isinstance(error, InvalidInput) else FAILED
    return STOPPED


async def _work(settings: Settings, alive_fd: int) -> None:
    from pesto_conductor.bindings import binding_of
    from pesto_conductor.crew import Crew
    from pesto_conductor.metrics import Metrics, serve_metrics
    from pesto_conductor.taskqueue import TaskQueue

    types = settings.types or _all_types(settings.url)
    bindings = [binding_of(each) for each in types]
    metrics = Metrics()
    if settings.metrics_port is not None:
        serve_metrics(metrics, settings.metrics_port)
    queue = TaskQueue(settings.url, domain=settings.domain)
    crew = Crew(queue, metrics, settings.concurrency)
    _drain_when_told(crew, alive_fd)
    _LOG.info("working on %s at %s", ", ".join(types), settings.url)
    try:
        await crew.run(bindings)
    finally:
        await queue.close()
    _LOG.info("stopped")


def _drain_when_told(crew: Crew, alive_fd: int) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, crew.drain)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # whoever forked us held them back

    def orphaned() -> None:
        loop.remove_reader(alive_fd)
        crew.drain()

    loop.add_reader(alive_fd, orphaned)


def _all_types(url: str) -> tuple[str, ...]:
    """Those of the verbs, and those that `register --per-service` made known to the server."""
    from pesto_conductor.bindings import verb_types
    from pesto_conductor.rest import Conductor
    from pesto_conductor.taskdefs import PREFIX

    with Conductor(url) as server:
        known = [name for name in server.task_types() if name.startswith(PREFIX)]
    return (*verb_types(), *sorted(set(known) - set(verb_types())))
