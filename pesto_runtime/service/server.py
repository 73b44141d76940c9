"""Run one service on one socket until a signal stops it; running calls may end first.

The application is in `app`; the target is loaded in the processes of `workers`, never here.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.connections import BoundedHeads
from pesto_runtime.service.exposure import Exposure
from pesto_runtime.service.jobs.files import default_folder
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType

_BACKLOG = 2048
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_LAST_RESPONSES_S = 5


def serve(
    target: str,
    *,
    profiles: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    gate: Gate | None = None,
    limits: Limits | None = None,
    jobs: JobOptions | None = None,
    exposure: Exposure | None = None,
) -> None:
    """Serve a target until SIGINT or SIGTERM; write the URL to standard error once it is ready.

    Args:
        target: The process; it is loaded in workers, never in this process.
        profiles: Of a PESTO project.
        host: Address to listen on.
        port: 0 for any free one.
        gate: Which hrefs may be read and written; none by default.
        limits: Sizes, workers and queue.
        jobs: Where and how long jobs are stored; without a folder, in that of this process and
            port, or for port 0 in a temporary one.
        exposure: Who can reach it.

    Raises:
        PestoError: the target cannot be loaded, or its jobs cannot be stored.
        InvalidInput: the address is in use, not one of this machine, or open to everybody.
    """
    limits, gate, exposure = limits or Limits(), gate or Gate(), exposure or Exposure()
    exposure.require_safe(host)
    if gate.local_files and host in _THIS_MACHINE and not exposure.hosts:
        exposure = replace(exposure, hosts=_THIS_MACHINE)  # no page of a rebound host name
    with _listening_socket(host, port) as listening:
        workers = WorkerPool(target, profiles, gate=gate, limits=limits)
        job_options = _with_folder(jobs or JobOptions(), port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(workers, limits, job_options, exposure, gate, listening))


async def _serve(
    workers: WorkerPool,
    limits: Limits,
    jobs: Callable[[str], JobOptions],
    exposure: Exposure,
    gate: Gate,
    listening: socket.socket,
) -> None:
    from pesto_runtime.service.app import create_app  # FastAPI is imported while the workers load
    from pesto_runtime.service.http import PREFIX

    description = (await workers.load()).description
    scheme = "http" if exposure.certificate is None else "https"
    url = f"{scheme}://{_authority(listening)}{PREFIX}"

    def announce() -> None:
        sys.stderr.write(f"serving {description.name} {description.version} on {url}\n")
        sys.stderr.flush()

    try:
        app = create_app(
            workers, limits=limits, jobs=jobs(description.name), exposure=exposure,
            gate=gate, on_ready=announce,
        )  # fmt: skip
        await app.state.job_manager.open()
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            lifespan="on",
            http=BoundedHeads,
            ws="none",
            timeout_graceful_shutdown=_LAST_RESPONSES_S,
            timeout_keep_alive=75,
            proxy_headers=bool(exposure.proxies),
            forwarded_allow_ips=[*exposure.proxies],
            ssl_certfile=exposure.certificate,
            ssl_keyfile=exposure.private_key,
        )
        # The objects of now live as long as the service: no later collection examines them.
        gc.collect()
        gc.freeze()
        await _Server(config, app.state.drain).serve(sockets=[listening])
    finally:
        await workers.close()


def _with_folder(jobs: JobOptions, port: int) -> Callable[[str], JobOptions]:
    """Return a function that completes the options with a folder for the name of a process."""
    if jobs.folder is not None or port == 0:
        return lambda _process: jobs
    return lambda process: replace(jobs, folder=default_folder(process, port))


class _Server(uvicorn.Server):
    """A server that drains on the first signal, and ends immediately on the second."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Future[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or sig not in (signal.SIGINT, signal.SIGTERM):
            super().handle_exit(sig, frame)
            self.force_exit = True
        else:  # a signal handler may run at any point of the event loop's code
            self._loop.call_soon_threadsafe(self._begin_draining)

    def _begin_draining(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._stop())

    async def _stop(self) -> None:
        await self._drain()
        self.should_exit = True


def _listening_socket(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as stack:
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
            stack.pop_all()
    except OSError as error:
        reason = f"cannot listen on {host}:{port}: {error.strerror or error}"
        is_taken = error.errno == errno.EADDRINUSE
        raise InvalidInput(reason + ("; --port 0 selects a free port" * is_taken)) from error
    return listening


def _authority(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
