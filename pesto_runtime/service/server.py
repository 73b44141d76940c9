"""Run a service on one socket until a signal stops it; running calls may end first.

The application is in `app`; targets are loaded in the processes of `workers`, never here.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import Gate, is_loopback
from pesto_runtime.machine import keep_freed_memory
from pesto_runtime.service.connections import AddressCounts, BoundedConnection
from pesto_runtime.service.exposure import Exposure
from pesto_runtime.service.jobs.files import default_folder
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType

    from fastapi import FastAPI

    from pesto_runtime.contract import Description

_BACKLOG = 2048
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_LAST_RESPONSES_S = 5


def serve(
    targets: str | Sequence[str],
    *,
    profiles: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    gate: Gate | None = None,
    limits: Limits | None = None,
    jobs: JobOptions | None = None,
    exposure: Exposure | None = None,
) -> None:
    """Serve targets until SIGINT or SIGTERM; write each URL to standard error once it is ready.

    Args:
        targets: The process, or several; they are loaded in workers, never in this process.
        profiles: Of a PESTO project that is the only target.
        host: Address to listen on.
        port: 0 for any free one.
        gate: Which hrefs may be read and written; none by default.
        limits: Sizes, workers and queue of each process.
        jobs: Where and how long jobs are stored; without a folder, in that of the process and
            port, or for port 0 in a temporary one. Several have a folder each in the one given.
        exposure: Who can reach it.

    Raises:
        PestoError: a target cannot be loaded, or its jobs cannot be stored.
        InvalidInput: the address is in use, not one of this machine, or open to everybody.
    """
    limits, gate, exposure = limits or Limits(), gate or Gate(), exposure or Exposure()
    exposure.require_safe(host)
    if gate.local_files and is_loopback(host) and not exposure.hosts:
        # No page of a rebound host name; `::1` has its brackets in a URL alone.
        exposure = replace(exposure, hosts=(*_THIS_MACHINE, host.strip("[]")))
    names = (targets,) if isinstance(targets, str) else targets
    with _listening_socket(host, port) as listening:
        pools = [WorkerPool(each, profiles, gate=gate, limits=limits) for each in names]
        folders = _JobFolders(jobs or JobOptions(), port, are_several=len(pools) > 1)
        service = _Service(pools, limits, folders, exposure, gate)
        keep_freed_memory(8 << 20, 32 << 20)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(service.serve(listening))


@dataclass(frozen=True)
class _JobFolders:
    """Where the jobs of each process are.

    Attributes:
        options: As given; with the folder of all, or none.
        port: Of the service.
        are_several: Whether there are several processes.
    """

    options: JobOptions
    port: int
    are_several: bool

    def of(self, process: str) -> JobOptions:
        """Return the options with the folder of a process."""
        folder = self.options.folder
        if folder is not None and self.are_several:
            return replace(self.options, folder=folder / process)
        if folder is not None or self.port == 0:
            return self.options
        return replace(self.options, folder=default_folder(process, self.port))


@dataclass(frozen=True)
class _Service:
    """The processes of a service, and what they have in common."""

    pools: Sequence[WorkerPool]
    limits: Limits
    jobs: _JobFolders
    exposure: Exposure
    gate: Gate

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a socket until a signal stops it."""
        try:
            await asyncio.gather(*(each.load() for each in self.pools))
            app = self._app(listening)
            for each in app.state.job_managers:
                await each.open()
            # The objects of now live as long as the service: no later collection examines them.
            gc.collect()
            gc.freeze()
            await _Server(self._config(app), app.state.drain).serve(sockets=[listening])
        finally:
            for each in self.pools:
                await each.close()

    def _app(self, listening: socket.socket) -> FastAPI:
        # FastAPI is imported while the workers load.
        from pesto_runtime.service.app import create_app, create_joint_app
        from pesto_runtime.service.http import PREFIX
        from pesto_runtime.service.process_service import CallerQuotas, ProcessService

        scheme = "http" if self.exposure.certificate is None else "https"
        root = f"{scheme}://{_authority(listening)}"

        def announce(description: Description, url: str) -> None:
            sys.stderr.write(f"serving {description.name} {description.version} on {url}\n")
            sys.stderr.flush()

        if len(self.pools) == 1:
            runs = self.pools[0]
            served = runs.facts.description
            return create_app(
                runs, limits=self.limits, jobs=self.jobs.of(served.name), exposure=self.exposure,
                gate=self.gate, on_ready=partial(announce, served, f"{root}{PREFIX}"),
            )  # fmt: skip
        services = []
        quotas = CallerQuotas.of(self.limits, self.jobs.options)
        for runs in self.pools:
            served = runs.facts.description
            ready = partial(announce, served, f"{root}/{served.name}{PREFIX}")
            options = self.jobs.of(served.name)
            services.append(ProcessService(runs, self.limits, options, ready, quotas=quotas))
        return create_joint_app(
            services, limits=self.limits, exposure=self.exposure, gate=self.gate
        )

    def _addresses(self) -> AddressCounts:
        # One address may not take all descriptors of this process, which others need.
        most, files = self.limits.address_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files != resource.RLIM_INFINITY:
            most = min(most, files // 2)
        return AddressCounts(most, self.exposure.is_proxy)

    def _config(self, app: FastAPI) -> uvicorn.Config:
        return uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            lifespan="on",
            http=partial(BoundedConnection, addresses=self._addresses()),  # type: ignore[arg-type]  # it is called as a class is
            ws="none",
            timeout_graceful_shutdown=_LAST_RESPONSES_S,
            timeout_keep_alive=75,
            proxy_headers=False,  # `TrustedProxies` reads them
            ssl_certfile=self.exposure.certificate,
            ssl_keyfile=self.exposure.private_key,
        )


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
