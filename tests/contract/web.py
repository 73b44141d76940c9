"""One way to talk to a service, whether it is in this process or behind a socket."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import httpx

from pesto_runtime.hrefs import Gate
from pesto_runtime.processor import load_processor
from pesto_runtime.service.app import create_app
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.threads import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fastapi import FastAPI

_SERVE = """
import sys
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.server import serve
target, body, workers, queue, *allow = sys.argv[1:]
limits = Limits(body_bytes=int(body), workers=int(workers), queue=int(queue))
serve(target, port=0, gate=Gate(tuple(allow), local_files=True), limits=limits)
"""


class Web(Protocol):
    """Sends requests below `/api/v1`; safe to use from several threads."""

    @property
    def url(self) -> str:
        """The service's address, with its prefix."""

    def __call__(self, method: str, path: str, **options: object) -> httpx.Response:
        """Send one request."""


@dataclass(frozen=True)
class Socket:
    """A service behind a socket."""

    url: str
    http: httpx.Client

    def __call__(self, method: str, path: str, **options: object) -> httpx.Response:
        """Send one request."""
        return self.http.request(method, self.url + path, **options)  # type: ignore[arg-type]  # httpx judges


@dataclass(frozen=True)
class InProcess:
    """A service on an event loop of its own, in a thread of this process."""

    app: FastAPI
    loop: asyncio.AbstractEventLoop
    url: str = "http://127.0.0.1/api/v1"

    def __call__(self, method: str, path: str, **options: object) -> httpx.Response:
        """Send one request."""
        future = asyncio.run_coroutine_threadsafe(self._send(method, path, options), self.loop)
        return future.result(90)

    async def _send(self, method: str, path: str, options: dict[str, object]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as http:
            return await http.request(method, self.url + path, **options)  # type: ignore[arg-type]  # httpx judges


def ready(web: Web, state: str = "OK") -> None:
    """Wait until the service says this of its health."""
    deadline = time.monotonic() + 60
    while web("GET", "/health").text != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def in_process(
    target: str, allow: Sequence[str], limits: Limits, *, gate: Gate | None = None
) -> Iterator[Web]:
    """Serve in this process, over ASGI; local files may be read, unless a gate is given."""
    gate = gate or Gate(tuple(allow), local_files=True)
    runs = ThreadRunner(load_processor(target), gate=gate, limits=limits)
    app = create_app(runs, limits=limits)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    life = app.router.lifespan_context(app)
    asyncio.run_coroutine_threadsafe(life.__aenter__(), loop).result(60)
    try:
        yield InProcess(app, loop)
    finally:
        asyncio.run_coroutine_threadsafe(life.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def by_uvicorn(target: str, allow: Sequence[str], limits: Limits) -> Iterator[Web]:
    """Serve in a process of its own, over a socket."""
    numbers = (limits.body_bytes, limits.workers, limits.queue)
    command = [sys.executable, "-c", _SERVE, target, *map(str, numbers), *allow]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            told = re.search(r"http://\S+/api/v1", process.stderr.readline())
            assert told is not None
            with httpx.Client(trust_env=False, timeout=30) as http:
                yield Socket(told[0], http)
        finally:
            process.terminate()
            process.stderr.read()


WAYS = {"in-process": in_process, "uvicorn": by_uvicorn}


@dataclass
class Farm:
    """Services that are started once, and stopped together.

    Attributes:
        way: One of `WAYS`.
        allowed: The folder that they may write to.
        stack: What stops them.
    """

    way: str
    allowed: Path
    stack: ExitStack
    running: dict[tuple[str, Limits], Web] = field(default_factory=dict)

    def __call__(self, target: str, limits: Limits | None = None) -> Web:
        """The service of a target, ready."""
        key = (target, limits or Limits(workers=1))
        if key not in self.running:
            web = self.stack.enter_context(WAYS[self.way](target, [str(self.allowed)], key[1]))
            ready(web)
            self.running[key] = web
        return self.running[key]
