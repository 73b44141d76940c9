"""Share one client among the triggers of a triggerer that wait for the same service.

A client has connections and a TLS context of its own, which takes about 20 ms of the event loop;
hundreds of triggers wait in one triggerer.
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

_Key: TypeAlias = "tuple[asyncio.AbstractEventLoop, str]"


@dataclass
class SharedClient:
    """A client that other triggers use too."""

    _client: AsyncClient
    users: int = 0
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[AsyncClient]:
        """Use the client once fewer than `AT_ONCE` of its requests are under way."""
        async with self._turns:
            yield self._client

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
