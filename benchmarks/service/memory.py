"""Memory of our service: idle, and at its peak while one big call runs."""

from __future__ import annotations

import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.service.bodies import Body
    from benchmarks.service.servers import Server

_EVERY_S = 0.002
_SETTLED_S = 1.0


@dataclass(frozen=True)
class Memory:
    """Proportional set sizes, bytes.

    Attributes:
        server: Of the server, idle.
        workers: Of each worker, idle.
        peaks: Body -> most that all processes had together, less idle, over the bytes of the body.
    """

    server: int
    workers: tuple[int, ...]
    peaks: dict[str, float]


def memory_of(server: Server, bodies: dict[str, Body]) -> Memory:
    """Measure a service that has just started; each body is sent once, after a first one."""
    time.sleep(_SETTLED_S)
    first, *others = server.pss_bytes().values()
    peaks = {name: _peak(server, body) / len(body.content) for name, body in bodies.items()}
    return Memory(first, tuple(others), peaks)


def _peak(server: Server, body: Body) -> int:
    idle = server.memory_bytes()
    stop, found = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(_EVERY_S):
            found[0] = max(found[0], server.memory_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    request = urllib.request.Request(  # noqa: S310  # our own server
        server.url + body.path, body.content, dict(body.headers)
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        while answer.read(1 << 20):
            continue
    stop.set()
    watching.join()
    time.sleep(_SETTLED_S)
    return found[0] - idle
