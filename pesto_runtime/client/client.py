"""Both clients' operations, each written once without I/O, and the client that blocks.

`Client` may be used from several threads. The client that does not block is in `async_client`.
"""

from __future__ import annotations

import inspect
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar
from weakref import WeakValueDictionary

import httpx

from pesto_runtime.client.batches import performing_many
from pesto_runtime.client.describing import References, asking_health, describing
from pesto_runtime.client.jobs import LONG_POLL_S, JobSteps, new_key
from pesto_runtime.client.sending import OutgoingCall
from pesto_runtime.client.steps import Exclusive, Patience, Request, Wait, advance
from pesto_runtime.client.transport import (
    http_options,
    pause,
    reply_of,
    service_url,
    translated,
    watch_connection,
    with_trace,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, Health
    from pesto_runtime.client.steps import Outcome, Steps
    from pesto_runtime.client.transport import HttpOptions
    from pesto_runtime.contract import Description, Job, TileInfo

P = ParamSpec("P")
T = TypeVar("T")

_TURNS: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_TURNS_GUARD = threading.Lock()


class ClientCore:
    """The operations of a client as steps; a client runs them, each under the name without `_`."""

    _http: httpx.Client | httpx.AsyncClient

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
        self._open(http_options(self.url, timeout_s=timeout_s, headers=headers, verify=verify))

    def _discover(self) -> Steps[Described]:
        """What the service says of itself, headers and all, asked once.

        Raises:
            PestoError: it does not say, or is not there.
        """
        while self._described is None:
            yield Exclusive(self._ask_description())
        return self._described

    def _describe(self) -> Steps[Description]:
        """The description, asked once.

        Raises:
            PestoError: the service does not say, or is not there.
        """
        return (yield from self._discover()).description

    def _health(self) -> Steps[Health]:
        """Whether the service is ready, asked once and now.

        Raises:
            Unreachable: no answer.
            ServiceMisbehaved: not a state.
        """
        return asking_health(self.url)

    def _process(
        self,
        inputs: Mapping[str, object],
        *,
        tile: TileInfo | None = None,
        out: Mapping[str, str] | None = None,
        partial: bool = False,
        finish: Mapping[str, JsonValue] | None = None,
        accept: str | None = None,
    ) -> Steps[dict[str, object]]:
        """Call the process.

        Args:
            inputs: Input name -> array (band, row, col), `Image`, `ImageReference`, or JSON value.
            tile: Where the arrays lie in the scene.
            out: Output name -> href for the service to write to; the href comes back.
            partial: Ask a reduce for its partial; comes back as the JSON that folds.
            finish: A merged partial, as JSON; asks for the outputs that it finishes to.
            accept: `image/tiff` to get images as `Image` with their georeference.

        Returns:
            Output name -> array (band, row, col), list of them, or JSON value.

        Raises:
            PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        call = OutgoingCall(inputs, tile, out or {}, partial, finish, accept)
        jobs = yield from self._jobs()
        return (yield from jobs.performing(call, self._known_references(jobs)))

    def _process_many(
        self,
        inputs: Sequence[Mapping[str, object]],
        *,
        tiles: Sequence[TileInfo | None] | None = None,
        accept: str | None = None,
    ) -> Steps[list[dict[str, object]]]:
        """Call the process for each of several inputs; one request does where it is batched.

        Args:
            inputs: Of each call, as of `process`.
            tiles: Of each call.
            accept: As of `process`.

        Returns:
            The outputs of each, in their order.

        Raises:
            PestoError: of the first request that fails; pointers begin with `/INDEX`.
        """
        known = [None] * len(inputs) if tiles is None else tiles
        calls = [
            OutgoingCall(each, tile, accept=accept)
            for each, tile in zip(inputs, known, strict=True)
        ]
        jobs = yield from self._jobs()
        return (yield from performing_many(jobs, calls, self._known_references(jobs)))

    def _submit(
        self,
        inputs: Mapping[str, object],
        *,
        key: str | None = None,
        lease_s: float | None = None,
        tile: TileInfo | None = None,
        out: Mapping[str, str] | None = None,
        partial: bool = False,
        finish: Mapping[str, JsonValue] | None = None,
    ) -> Steps[Job]:
        """Submit a call as a job, and do not wait for it; other arguments as of `process`.

        Args:
            inputs: As of `process`.
            key: The same key and call is the same job, whoever submits it, and whenever; a key
                of its own where it is None.
            lease_s: Seconds without anybody asking after which the service dismisses the job.
            tile: As of `process`.
            out: As of `process`.
            partial: As of `process`.
            finish: As of `process`.

        Raises:
            KeyConflict: the key came before with another call.
            PestoError: what else the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        call = OutgoingCall(inputs, tile, out or {}, partial, finish)
        jobs = yield from self._jobs()
        references = self._known_references(jobs)
        return (yield from jobs.submitting(call, references, key=key or new_key(), lease_s=lease_s))

    def _status(self, job_id: str) -> Steps[Job]:
        """A job as it is now; raises `NotFound` where there is none."""
        return (yield from (yield from self._jobs()).asking(job_id))

    def _wait(self, job_id: str, *, timeout_s: float | None = None) -> Steps[Job]:
        """A job once it is over, however it ended.

        Raises:
            NotReady: it is not over in time.
            PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
        """
        return (yield from (yield from self._jobs()).waiting(job_id, timeout_s=timeout_s))

    def _result(self, job_id: str, *, accept: str | None = None) -> Steps[dict[str, object]]:
        """What a job left, as `process` answers it.

        Raises:
            NotReady: it is not over.
            Gone: it was dismissed, or its results are no longer kept.
            PestoError: what it failed with.
        """
        return (yield from (yield from self._jobs()).fetching(job_id, accept=accept))

    def _cancel(self, job_id: str) -> Steps[Job]:
        """Stop a job where it runs, and have what it left forgotten; raises `NotFound`."""
        return (yield from (yield from self._jobs()).cancelling(job_id))

    def _find(self, key: str) -> Steps[Job | None]:
        """The job that a key stands for, after whoever submitted it has died."""
        return (yield from (yield from self._jobs()).finding(key))

    def _ask_description(self) -> Steps[None]:
        if self._described is None:  # another call may have asked while this one waited
            self._described = yield from describing(self.url, self._patience)

    def _jobs(self) -> Steps[JobSteps]:
        long_poll_s = min(LONG_POLL_S, self._timeout_s / 2)
        return JobSteps((yield from self._discover()), self.url, self._patience, long_poll_s)

    def _known_references(self, jobs: JobSteps) -> References:
        if self._references is None:
            self._references = References(self.url, jobs.described)
        return self._references

    def _open(self, options: HttpOptions) -> None:
        """Set up what sends requests; nothing is sent yet."""
        raise NotImplementedError

    def _written(
        self, request: Request, extensions: Mapping[str, object] | None = None
    ) -> httpx.Request:
        return self._http.build_request(
            request.method,
            self.url + request.path,
            headers=with_trace(request.headers),
            params=dict(request.query) or None,
            content=request.content or None,
            extensions=extensions,
        )

    def _lost(self, error: httpx.HTTPError | httpx.InvalidURL) -> Outcome:
        return translated(error, self.url, self._timeout_s)


def present_as(
    operation: Callable[Concatenate[ClientCore, P], Steps[T]], method: Callable[..., object]
) -> None:
    """Give a method the name, docstring and signature of the operation that it runs to its end."""
    signature = inspect.signature(operation)
    returned = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    method.__name__ = operation.__name__.removeprefix("_")
    method.__qualname__ = f"{method.__annotations__['self']}.{method.__name__}"
    method.__doc__ = operation.__doc__
    method.__annotations__ = {**operation.__annotations__, "return": returned}
    vars(method)["__signature__"] = signature.replace(return_annotation=returned)


def _blocking(
    operation: Callable[Concatenate[ClientCore, P], Steps[T]],
) -> Callable[Concatenate[Client, P], T]:
    """The method that runs an operation in the thread that calls it."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._drive(operation(self, *args, **kwargs))

    present_as(operation, method)
    return method


class Client(ClientCore):
    """One service, called from this thread or many.

    A service that is busy is waited for; one that does not answer is tried again.
    """

    _http: httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    @property
    def described(self) -> Described:
        """What the service says of itself, asked once.

        Raises:
            PestoError: it does not say, or is not there.
        """
        return self._drive(self._discover())

    @property
    def transports(self) -> tuple[str, ...]:
        """Media types of its `Accept-Post`; empty for PESTO 1.7.2."""
        return self.described.transports

    @property
    def build(self) -> str:
        """Identity of its code."""
        return self.described.build

    @property
    def digest(self) -> str:
        """Digest of its description."""
        return self.described.digest

    describe = _blocking(ClientCore._describe)
    health = _blocking(ClientCore._health)
    process = _blocking(ClientCore._process)
    process_many = _blocking(ClientCore._process_many)
    submit = _blocking(ClientCore._submit)
    status = _blocking(ClientCore._status)
    wait = _blocking(ClientCore._wait)
    result = _blocking(ClientCore._result)
    cancel = _blocking(ClientCore._cancel)
    find = _blocking(ClientCore._find)

    def _open(self, options: HttpOptions) -> None:
        self._guard = threading.Lock()
        self._turn = _turn_of(self.url)
        self._http = httpx.Client(**options)

    def _drive(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            step, result = advance(steps, outcome)
            outcome = None
            if isinstance(step, Request):
                with self._turn if step.alone else nullcontext():
                    outcome = self._send(step)
            elif isinstance(step, Wait):
                pause(step.seconds)
            elif isinstance(step, Exclusive):
                with self._guard:
                    self._drive(step.steps)
            else:
                return result  # type: ignore[return-value]  # without a step there is a result

    def _send(self, request: Request) -> Outcome:
        try:
            response = self._http.send(self._written(request, {"trace": watch_connection}))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._lost(error)
        return reply_of(response)


def _turn_of(url: str) -> threading.Lock:
    """The lock that all clients of one service share, so that one call is in flight."""
    with _TURNS_GUARD:
        return _TURNS.setdefault(url, threading.Lock())
