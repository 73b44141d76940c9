"""The client that does not block; coding images happens in threads, off the event loop."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self, TypeVar

import httpx

from pesto_runtime.client.answering import calling
from pesto_runtime.client.describing import asking_health, describing
from pesto_runtime.client.sending import Call, References
from pesto_runtime.client.steps import Patience, Request, Wait, advance
from pesto_runtime.client.tracing import with_trace
from pesto_runtime.client.transport import (
    reply_of,
    service_url,
    timeouts,
    translated,
    trusts_environment,
    verifies,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, Health
    from pesto_runtime.client.steps import Outcome, Steps
    from pesto_runtime.contract import Description, TileInfo

T = TypeVar("T")


class AsyncClient:
    """One service, called from one event loop; otherwise as `Client`."""

    def __init__(
        self,
        url: str,
        *,
        described: Described | None = None,
        timeout_s: float = 300.0,
        retries: int = 3,
        patience_s: float = 600.0,
    ) -> None:
        """Name a service; nothing is sent yet.

        Args:
            url: With or without `/api/v1`.
            described: What is known of it, overlay and all; asked for where it is None.
            timeout_s: Seconds without a byte after which an answer is given up.
            retries: Times a call is sent again after no answer.
            patience_s: Seconds to wait in all while it is busy.

        Raises:
            InvalidInput: not an http(s) URL.
        """
        self.url = service_url(url)
        self._timeout_s = timeout_s
        self._patience = Patience(retries, patience_s)
        self._described = described
        self._references: References | None = None
        self._guard = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._http = httpx.AsyncClient(
            timeout=timeouts(timeout_s),
            trust_env=trusts_environment(self.url),
            verify=verifies(self.url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def discover(self) -> Described:
        """What the service says of itself, headers and all, asked once.

        Raises:
            PestoError: it does not say, or is not there.
        """
        async with self._guard:
            if self._described is None:
                self._described = await self._drive(describing(self.url, self._patience))
            return self._described

    async def describe(self) -> Description:
        """The description, asked once; raises as `discover` does."""
        return (await self.discover()).description

    async def health(self) -> Health:
        """Whether the service is ready, asked once and now.

        Raises:
            Unreachable: no answer.
            ServiceMisbehaved: not a state.
        """
        return await self._drive(asking_health(self.url))

    async def process(
        self,
        inputs: Mapping[str, object],
        *,
        tile: TileInfo | None = None,
        out: Mapping[str, str] | None = None,
        partial: bool = False,
        finish: Mapping[str, JsonValue] | None = None,
        accept: str | None = None,
    ) -> dict[str, object]:
        """Call the process; arguments, answer and errors as `Client.process`."""
        described = await self.discover()
        if self._references is None:
            self._references = References(self.url, described)
        call = Call(inputs, tile, out or {}, partial, finish, accept)
        return await self._drive(
            calling(call, described, self._references, where=self.url, patience=self._patience)
        )

    async def _drive(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            step, result = await asyncio.to_thread(advance, steps, outcome)
            if isinstance(step, Request):
                async with self._turn if step.alone else nullcontext():
                    outcome = await self._send(step)
            elif isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                return result  # type: ignore[return-value]  # without a step there is a result

    async def _send(self, request: Request) -> Outcome:
        try:
            response = await self._http.request(
                request.method,
                self.url + request.path,
                headers=with_trace(request.headers),
                params=dict(request.query) or None,
                content=request.content or None,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return translated(error, self.url, self._timeout_s)
        return reply_of(response)
