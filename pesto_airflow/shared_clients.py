"""Share one client, and its turns, among the triggers of a triggerer that wait for one service.

A client has connections and a TLS context of its own, which takes about 20 ms of the event loop;
hundreds of triggers wait in one triggerer. Their requests are sent one after another, at a bounded
rate: triggers that start together would otherwise stay together, and send theirs at one moment.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pesto_airflow.hooks import Endpoint, PestoHook
    from pesto_runtime.client.async_client import AsyncClient

AT_ONCE = 8
"""Most requests to one service at once, of all triggers of a triggerer."""
RATE = 10.0
"""Requests per second to one service, unless more are needed to ask for each job in time."""

_Key: TypeAlias = "tuple[asyncio.AbstractEventLoop, str]"


@dataclass
class SharedClient:
    """A client that other triggers use too."""

    _client: AsyncClient
    users: int = 0
    _under_way: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock)
    _next_s: float = 0.0

    @asynccontextmanager
    async def turn(self, every_s: float) -> AsyncIterator[AsyncClient]:
        """Use the client in turn: first come, first served.

        Args:
            every_s: Longest time between two turns of a user, seconds.
        """
        async with self._queue:
            clock = asyncio.get_running_loop().time
            await asyncio.sleep(self._next_s - clock())
            self._next_s = clock() + min(1 / RATE, every_s / self.users)
        async with self._under_way:
            yield self._client

    def pause_s(self, wanted_s: float, every_s: float) -> float:
        """Return the seconds until the next turn of a user: longer with many, at most `every_s`."""
        return max(wanted_s, min(self.users / RATE, every_s))

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


_OPEN: dict[_Key, SharedClient] = {}


@asynccontextmanager
async def shared_client(hook: PestoHook) -> AsyncIterator[SharedClient]:
    """Use the client of a service; the last user closes it.

    The connection is read each time, and other credentials are another client.

    Raises:
        InvalidInput: a field of the connection is wrong.
        AirflowNotFoundException: there is no such connection.
    """
    endpoint = await hook.aendpoint()
    key = (asyncio.get_running_loop(), _text(endpoint))
    shared = _OPEN.get(key)
    if shared is None:
        shared = _OPEN[key] = SharedClient(endpoint.aclient())
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users:
            del _OPEN[key]
            await shared.close()


def _text(endpoint: Endpoint) -> str:
    """Return all settings of an endpoint as one text; it has credentials, and stays in memory."""
    return json.dumps({**vars(endpoint), "headers": [*endpoint.headers.items()]})
