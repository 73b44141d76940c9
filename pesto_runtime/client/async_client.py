"""Define the asynchronous client; images are encoded and decoded in threads, not in the event loop.

Its operations are those of `ClientCore` in `client.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from pesto_runtime.client.client import ClientCore
from pesto_runtime.client.steps import Exclusive, Request, Wait, advance, present_as
from pesto_runtime.client.transport import built_request, reply_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pesto_runtime.client.steps import Outcome, Steps
    from pesto_runtime.client.transport import HttpOptions

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    operation: Callable[Concatenate[ClientCore, P], Steps[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Return the coroutine method that runs an operation without blocking the event loop."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._drive(operation(self, *args, **kwargs))

    present_as(operation, method)
    return method


class AsyncClient(ClientCore):
    """An asynchronous client of one service, for one event loop; else the same as `Client`."""

    _http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    discover = _awaited(ClientCore._discover)
    describe = _awaited(ClientCore._describe)
    listed = _awaited(ClientCore._listed)
    version = _awaited(ClientCore._version)
    health = _awaited(ClientCore._health)
    process = _awaited(ClientCore._process)
    process_many = _awaited(ClientCore._process_many)
    submit = _awaited(ClientCore._submit)
    status = _awaited(ClientCore._status)
    wait = _awaited(ClientCore._wait)
    result = _awaited(ClientCore._result)
    cancel = _awaited(ClientCore._cancel)
    find = _awaited(ClientCore._find)

    def _open(self, options: HttpOptions) -> None:
        self._guard = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._http = httpx.AsyncClient(**options)

    async def _drive(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            step, result = await asyncio.to_thread(advance, steps, outcome)
            outcome = None
            if isinstance(step, Request):
                async with self._turn if step.alone else nullcontext():
                    outcome = await self._send(step)
            elif isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Exclusive):
                async with self._guard:
                    await self._drive(step.steps)
            else:
                return result  # type: ignore[return-value]  # without a step there is a result

    async def _send(self, request: Request) -> Outcome:
        try:
            response = await self._http.send(built_request(self._http, self.url, request))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._failure(error)
        return reply_of(response)
