"""One service on one socket, until it is stopped; calls that run then may end first."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.admission import Limits
from pesto_runtime.service.jobs.files import default_folder
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.static_responses import PREFIX
from pesto_runtime.service.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType

_BACKLOG = 2048
_LAST_ANSWERS_S = 5


def serve(
    target: str,
    *,
    profiles: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
    jobs: JobOptions | None = None,
) -> None:
    """Serve a target until SIGINT or SIGTERM; says where, once its set-up is done.

    Args:
        target: What to serve; it is loaded in workers, never in this process.
        profiles: Of a PESTO project.
        host: Address to listen on; it decides what the gate admits.
        port: 0 for any that is free.
        allow: Prefixes of hrefs that may be read and written.
        limits: Sizes, workers and queue.
        jobs: How jobs are kept; without a folder in the one of this process and port, or where
            any port would do, in one that goes with the service.

    Raises:
        PestoError: the target cannot be loaded, or its jobs cannot be kept.
        InvalidInput: the address cannot be listened on.
    """
    bounds = limits or Limits()
    with _listening(host, port) as listening:
        workers = WorkerPool(target, profiles, gate=Gate.bound_to(host, allow), limits=bounds)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(workers, bounds, _kept(jobs or JobOptions(), port), listening))


async def _serve(
    workers: WorkerPool, limits: Limits, jobs: Callable[[str], JobOptions], listening: socket.socket
) -> None:
    from pesto_runtime.service.app import create_app  # FastAPI loads while the workers do

    known = (await workers.load()).description
    url = f"http://{_authority(listening)}{PREFIX}"

    def announce() -> None:
        sys.stderr.write(f"serving {known.name} {known.version} on {url}\n")
        sys.stderr.flush()

    try:
        app = create_app(workers, limits=limits, jobs=jobs(known.name), on_ready=announce)
        await app.state.desk.open()
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            lifespan="on",
            http="httptools",
            ws="none",
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
            timeout_keep_alive=75,
        )
        gc.collect()
        gc.freeze()  # what is here now stays; looking through it would hold up calls
        await _Server(config, app.state.drain).serve(sockets=[listening])
    finally:
        await workers.close()


def _kept(jobs: JobOptions, port: int) -> Callable[[str], JobOptions]:
    """How the jobs of a process are kept, once its name is known."""
    if jobs.folder is not None or port == 0:
        return lambda _process: jobs
    return lambda process: replace(jobs, folder=default_folder(process, port))


class _Server(uvicorn.Server):
    """Drains on the first signal, ends at once on the second."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Future[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or sig not in (signal.SIGINT, signal.SIGTERM):
            super().handle_exit(sig, frame)
            self.force_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin_draining)

    def _begin_draining(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._stop())

    async def _stop(self) -> None:
        await self._drain()
        self.should_exit = True


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except OSError as error:
        raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return found


def _authority(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
