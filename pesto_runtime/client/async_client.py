"""The client that does not block; coding images happens in threads, off the event loop."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self, TypeVar

import httpx

from pesto_runtime.client.batches import performing_many
from pesto_runtime.client.describing import References, asking_health, describing
from pesto_runtime.client.jobs import LONG_POLL_S, JobSteps, new_key
from pesto_runtime.client.sending import OutgoingCall
from pesto_runtime.client.steps import Patience, Request, Wait, advance
from pesto_runtime.client.transport import (
    reply_of,
    service_url,
    timeouts,
    translated,
    trusts_environment,
    verifying,
    with_trace,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, Health
    from pesto_runtime.client.steps import Outcome, Steps
    from pesto_runtime.contract import Description, Job, TileInfo

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
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
    ) -> None:
        """Name a service; nothing is sent yet.

        Args:
            url: With or without `/api/v1`.
            described: What is known of it, overlay and all; asked for where it is None.
            timeout_s: Seconds without a byte after which an answer is given up.
            retries: Times a call is sent again after no answer.
            patience_s: Seconds to wait in all while it is busy.
            headers: Sent with every request: credentials, say.
            verify: Whether its certificate is verified; a path names the authorities to trust.

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
            verify=verifying(self.url, verify),
            headers=headers,
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
        call = OutgoingCall(inputs, tile, out or {}, partial, finish, accept)
        jobs = await self._jobs()
        return await self._drive(jobs.performing(call, self._known_references(jobs)))

    async def process_many(
        self,
        inputs: Sequence[Mapping[str, object]],
        *,
        tiles: Sequence[TileInfo | None] | None = None,
        accept: str | None = None,
    ) -> list[dict[str, object]]:
        """Call the process for each of several inputs; as `Client.process_many`."""
        known = [None] * len(inputs) if tiles is None else tiles
        calls = [
            OutgoingCall(each, tile, accept=accept)
            for each, tile in zip(inputs, known, strict=True)
        ]
        jobs = await self._jobs()
        return await self._drive(performing_many(jobs, calls, self._known_references(jobs)))

    async def submit(
        self,
        inputs: Mapping[str, object],
        *,
        key: str | None = None,
        lease_s: float | None = None,
        tile: TileInfo | None = None,
        out: Mapping[str, str] | None = None,
        partial: bool = False,
        finish: Mapping[str, JsonValue] | None = None,
    ) -> Job:
        """Submit a call as a job; arguments, answer and errors as `Client.submit`."""
        call = OutgoingCall(inputs, tile, out or {}, partial, finish)
        jobs = await self._jobs()
        steps = jobs.submitting(
            call, self._known_references(jobs), key=key or new_key(), lease_s=lease_s
        )
        return await self._drive(steps)

    async def status(self, job_id: str) -> Job:
        """A job as it is now; as `Client.status`."""
        return await self._drive((await self._jobs()).asking(job_id))

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """A job once it is over; as `Client.wait`."""
        return await self._drive((await self._jobs()).waiting(job_id, timeout_s=timeout_s))

    async def result(self, job_id: str, *, accept: str | None = None) -> dict[str, object]:
        """What a job left; as `Client.result`."""
        return await self._drive((await self._jobs()).fetching(job_id, accept=accept))

    async def cancel(self, job_id: str) -> Job:
        """Stop a job where it runs; as `Client.cancel`."""
        return await self._drive((await self._jobs()).cancelling(job_id))

    async def find(self, key: str) -> Job | None:
        """The job that a key stands for; as `Client.find`."""
        return await self._drive((await self._jobs()).finding(key))

    async def _jobs(self) -> JobSteps:
        long_poll_s = min(LONG_POLL_S, self._timeout_s / 2)
        return JobSteps(await self.discover(), self.url, self._patience, long_poll_s)

    def _known_references(self, jobs: JobSteps) -> References:
        if self._references is None:
            self._references = References(self.url, jobs.described)
        return self._references

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
