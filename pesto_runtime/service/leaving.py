"""A caller that goes away before its answer is there ends its call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pesto_runtime.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastapi import Request

    from pesto_runtime.service.answers import CallResponse

_WATCH_AFTER_S = 0.05


async def unless_gone(request: Request, running: Awaitable[CallResponse]) -> CallResponse:
    """Await a call here, and have it cancelled once its caller has gone.

    The watch begins a moment later: most calls are over by then, and need no second task.

    Raises:
        Unreachable: the caller has gone.
    """
    watch = _Watch(request, asyncio.current_task())
    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch.begin)
    try:
        return await running
    except asyncio.CancelledError:
        if not watch.saw_leaving:
            raise
        raise Unreachable("the caller went away before its answer was there") from None
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Cancels a task when the caller of its request has gone."""

    def __init__(self, request: Request, task: asyncio.Task[object] | None) -> None:
        self._request, self._task = request, task
        self._watching: asyncio.Task[None] | None = None
        self.saw_leaving = False

    def begin(self) -> None:
        self._watching = asyncio.ensure_future(self._watch())

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self.saw_leaving and self._task is not None:
            self._task.uncancel()

    async def _watch(self) -> None:
        await _disconnected(self._request)
        self.saw_leaving = True
        if self._task is not None:
            self._task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
