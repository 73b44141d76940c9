"""Define the operations of both clients, each once without I/O, and the blocking client.

Several threads may use one `Client`. The asynchronous client is in `async_client.py`.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

import httpx

from pesto_runtime.client import ogc
from pesto_runtime.client.batches import process_many
from pesto_runtime.client.describing import References
from pesto_runtime.client.jobs import LONG_POLL_S, new_key
from pesto_runtime.client.sending import OutgoingCall
from pesto_runtime.client.steps import (
    Exclusive,
    ExpectedCode,
    Patience,
    Request,
    Wait,
    advance,
    present_as,
)
from pesto_runtime.client.transport import (
    built_request,
    http_options,
    pause,
    reply_of,
    service_url,
    translated,
    turn_of,
    watch_connection,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, Health
    from pesto_runtime.client.jobs import JobSteps
    from pesto_runtime.client.steps import Outcome, Steps
    from pesto_runtime.client.transport import HttpOptions
    from pesto_runtime.contract import Description, Job, TileInfo

P = ParamSpec("P")
T = TypeVar("T")


class ClientCore:
    """The operations of a client as steps; a client has a method for each, named without `_`."""

    def __init__(  # noqa: PLR0913  # the options of a connection
        self,
        url: str,
        *,
        described: Described | None = None,
        timeout_s: float = 300.0,
        retries: int = 3,
        patience_s: float = 600.0,
        outage_s: float = 0.0,
        pinned: bool = False,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
    ) -> None:
        """Prepare the connection to a service; nothing is sent yet.

        Args:
            url: The service's URL, with or without `/api/v1`; or that of a process of OGC API -
                Processes, `https://host/processes/ID`.
            described: Its description, with an overlay if there is one; requested if None.
            timeout_s: Seconds without a byte after which a request fails.
            retries: Retries of a request after no response, or after a retryable error.
            patience_s: Total seconds to wait for a busy service, per request.
            outage_s: Seconds to wait for a service that restarts or does not respond, per request.
            pinned: Whether a result must state the build and digest of `described`, in headers
                that services of this package send; another one raises `ProcessChanged`.
            headers: Sent with every request, for example credentials.
            verify: Whether its certificate is verified, or the file of trusted authorities.

        Raises:
            InvalidInput: `url` is not an http(s) URL, or the file cannot be read.
        """
        self.url = service_url(url)
        self._timeout_s = timeout_s
        self._patience = Patience(retries, patience_s, outage_s)
        self._is_pinned = pinned
        self._described = described
        self._references: References | None = None
        self._open(http_options(self.url, timeout_s=timeout_s, headers=headers, verify=verify))

    def _discover(self) -> Steps[Described]:
        """Return the description of the service and the values of its headers, requested once.

        Raises:
            PestoError: the service does not respond, or returns an error.
        """
        while self._described is None:
            yield Exclusive(self._load_description())
        return self._described

    def _describe(self) -> Steps[Description]:
        """Return the description of the service, requested once.

        Raises:
            PestoError: the service does not respond, or returns an error.
        """
        return (yield from self._discover()).description

    def _listed(self) -> Steps[list[str]]:
        """Return the URL of each process of the service, for a client of its own.

        Raises:
            PestoError: the service does not respond, or not with a list of processes.
        """
        return ogc.request_processes(self.url, self._patience)

    def _version(self) -> Steps[JsonValue]:
        """Return the version document of the service.

        Raises:
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        return (yield from (yield from self._jobs()).version())

    def _health(self) -> Steps[Health]:
        """Return the current state of the service; the request is not repeated.

        Raises:
            Unreachable: the service does not respond.
            ServiceMisbehaved: the response is not a state.
        """
        return ogc.health(self.url, self._patience)

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
            tile: Position of the arrays in the scene.
            out: Output name -> href for the service to write to; the output is then this href.
            partial: Request the partial of a reduce, as JSON.
            finish: A merged partial, as JSON, of which a reduce computes its outputs.
            accept: `image/tiff` to receive images as `Image` with their georeference.

        Returns:
            Output name -> array (band, row, col), list of them, or JSON value.

        Raises:
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        call = OutgoingCall(inputs, tile, out or {}, partial, finish, accept)
        jobs = yield from self._jobs()
        return (yield from jobs.process(call, self._known_references(jobs)))

    def _process_many(
        self,
        inputs: Sequence[Mapping[str, object]],
        *,
        tiles: Sequence[TileInfo | None] | None = None,
        accept: str | None = None,
    ) -> Steps[list[dict[str, object]]]:
        """Call the process several times; in one request if it accepts batches.

        Args:
            inputs: The inputs of each call, as in `process`.
            tiles: The tile of each call.
            accept: As in `process`.

        Returns:
            The outputs of each call, in the order of the calls.

        Raises:
            PestoError: the first request failed; its pointers begin with `/INDEX`.
        """
        known = [None] * len(inputs) if tiles is None else tiles
        calls = [
            OutgoingCall(each, tile, accept=accept)
            for each, tile in zip(inputs, known, strict=True)
        ]
        jobs = yield from self._jobs()
        return (yield from process_many(jobs, calls, self._known_references(jobs)))

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
        """Submit a call as a job, and do not wait for it.

        Args:
            inputs: As in `process`.
            key: The same key and call is the same job, for every client at any time; a new key
                if None.
            lease_s: Seconds without a status request after which the service dismisses the job.
            tile: As in `process`.
            out: As in `process`.
            partial: As in `process`.
            finish: As in `process`.

        Raises:
            KeyConflict: the key belongs to another call.
            PestoError: another error of the service, `Unreachable`, or `ServiceMisbehaved`.
        """
        call = OutgoingCall(inputs, tile, out or {}, partial, finish)
        jobs = yield from self._jobs()
        references = self._known_references(jobs)
        return (yield from jobs.submit(call, references, key=key or new_key(), lease_s=lease_s))

    def _status(self, job_id: str) -> Steps[Job]:
        """Return the current state of a job.

        Raises:
            NotFound: the service has no such job.
            PestoError: another error of the service, `Unreachable`, or `ServiceMisbehaved`.
        """
        return (yield from (yield from self._jobs()).status(job_id))

    def _wait(self, job_id: str, *, timeout_s: float | None = None) -> Steps[Job]:
        """Wait until a job is over, successful or not; return its last state.

        Raises:
            NotReady: it is not over in time.
            PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
        """
        return (yield from (yield from self._jobs()).wait(job_id, timeout_s=timeout_s))

    def _result(self, job_id: str, *, accept: str | None = None) -> Steps[dict[str, object]]:
        """Return the outputs of a job, in the form of `process`.

        Raises:
            NotReady: it is not over.
            Gone: it was dismissed, or its results are no longer stored.
            PestoError: the error of the job.
        """
        return (yield from (yield from self._jobs()).results(job_id, accept=accept))

    def _cancel(self, job_id: str) -> Steps[Job]:
        """Stop a job, and delete its results.

        Raises:
            NotFound: the service has no such job.
            InvalidInput: a plain PESTO service cannot do that.
        """
        return (yield from (yield from self._jobs()).cancel(job_id))

    def _find(self, key: str) -> Steps[Job | None]:
        """Return the job of a key, for example after its submitter has died; None if there is none.

        Raises:
            InvalidInput: a plain PESTO service has no keys.
        """
        return (yield from (yield from self._jobs()).find(key))

    def _load_description(self) -> Steps[None]:
        if self._described is None:  # another call may have loaded it while this one waited
            self._described = yield from ogc.describe(self.url, self._patience)

    def _jobs(self) -> Steps[JobSteps]:
        described = yield from self._discover()
        long_poll_s = min(LONG_POLL_S, self._timeout_s / 2)
        expected = ExpectedCode(described.build, described.digest) if self._is_pinned else None
        return ogc.steps_of(self.url)(described, self.url, self._patience, long_poll_s, expected)

    def _known_references(self, jobs: JobSteps) -> References:
        if self._references is None:
            self._references = References(self.url, jobs.described)
        return self._references

    def _open(self, options: HttpOptions) -> None:
        """Create the client of httpx; nothing is sent yet."""
        raise NotImplementedError

    def _failure(self, error: httpx.HTTPError | httpx.InvalidURL) -> Outcome:
        return translated(error, self.url, self._timeout_s)


def _blocking(
    operation: Callable[Concatenate[ClientCore, P], Steps[T]],
) -> Callable[Concatenate[Client, P], T]:
    """Return the method that runs an operation in the calling thread."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._drive(operation(self, *args, **kwargs))

    present_as(operation, method)
    return method


class Client(ClientCore):
    """A blocking client of one service; several threads may use it.

    It waits for a busy service, and repeats requests without a response.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        while self._idle:
            self._idle.pop().close()

    @property
    def described(self) -> Described:
        """The description of the service and the values of its headers, requested once.

        Raises:
            PestoError: the service does not respond, or returns an error.
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
    listed = _blocking(ClientCore._listed)
    version = _blocking(ClientCore._version)
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
        self._turn = turn_of(self.url)
        self._options = options
        self._idle: list[httpx.Client] = []

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
        # One connection each: for every request, a pool of n connections looks n times at all of
        # them, which takes 0.5 ms with 16.
        try:
            http = self._idle.pop()
        except IndexError:
            http = httpx.Client(**self._options)
        try:
            sent = built_request(http, self.url, request, {"trace": watch_connection})
            response = http.send(sent)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._failure(error)
        finally:
            self._idle.append(http)
        return reply_of(response)
