"""Call a stage: the author's function in this process, or a service over HTTP.

Callers check outputs against the contract. They do not trim margins and do not retry tiles.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from pesto_runtime.contract import Description, Service
from pesto_runtime.contract.image_lists import gathered
from pesto_runtime.errors import PestoError, ProcessChanged, Unreachable
from pesto_runtime.processor import check_outputs, encode_partial, encode_value
from pesto_runtime.processor.values import plain_array
from pesto_runtime.run.access import REPLICA_OUTAGE_S, open_client
from pesto_runtime.run.builds import load_planned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pesto_runtime.client.client import Client
    from pesto_runtime.contract import Plan, TileInfo
    from pesto_runtime.processor import Processor


C = TypeVar("C")
R = TypeVar("R")

_LINGER_S = 0.01
"""Time that the first call of a batch waits for others; short beside a call worth batching."""

_AWAY_S = 5.0
"""Time for which a replica that did not respond is only called if all others are away too."""

_OF_THE_SERVICE = (ProcessChanged, Unreachable)
"""Errors that each call of a batch would have alone, too, some after another long wait."""

_callers: dict[str, Caller] = {}
_callers_lock = threading.Lock()


def planned_caller(plan: Plan, process: str) -> Caller:
    """Return the caller of a process of a plan; it waits for the service as the plan states.

    Raises:
        ProcessChanged: the code in this process is not the planned one.
        PestoError: the target cannot be loaded, or its set-up fails.
    """
    return caller_for(plan.services[process], patience_s=plan.patience_s)


def caller_for(service: Service, *, patience_s: float = 0.0) -> Caller:
    """Return the caller of a service; it is created once, and shared until `close_callers`.

    Args:
        service: The service, or the function in this process.
        patience_s: Seconds to wait for a service that restarts or does not respond.

    Raises:
        ProcessChanged: the code in this process is not that of `service`.
        PestoError: the target cannot be loaded, or its set-up fails.
    """
    document = f"{patience_s} {service.model_dump_json()}"
    # The lock is taken during the set-up too: a model that takes minutes to load must not be
    # loaded by each thread that needs it first.
    with _callers_lock:
        if document not in _callers:
            _callers[document] = _new_caller(service, patience_s)
        return _callers[document]


def close_callers() -> None:
    """Close every caller of this process, with its connections."""
    with _callers_lock:
        for caller in _callers.values():
            caller.close()
        _callers.clear()


class Caller(Protocol):
    """Calls one process; several threads may use it.

    The images of a list may be given one by one, as a stage has them: `dates.0`, `dates.1`, ….
    """

    @property
    def takes_references(self) -> bool:
        """Whether an image may be passed by reference, so that the service reads it itself."""

    @property
    def is_remote(self) -> bool:
        """Whether calls go over HTTP; they wait for a service that is away."""

    def run(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Return the outputs of a call.

        Raises:
            PestoError: the error of the process or of the service.
        """

    def partial(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Return the partial of a reduce: arrays, which are the caller's own, and JSON values."""

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Return the outputs for a folded partial."""

    def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True)
class LocalCaller:
    """Calls the author's code in this process."""

    processor: Processor
    description: Description

    @property
    def takes_references(self) -> bool:
        """Always False: the pixels are read in this process anyway."""
        return False

    @property
    def is_remote(self) -> bool:
        """Always False."""
        return False

    def run(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Return the outputs, checked against the contract like those of a service."""
        inputs = gathered(self.description, inputs)
        outputs = self.processor.run(inputs, tile=tile)
        check_outputs(self.description, inputs, outputs)
        return outputs

    def partial(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Return the partial of a reduce, with the values that HTTP would carry."""
        return {
            key: np.array(plain_array(key, value))
            if isinstance(value, np.ndarray)
            else encode_value(key, value)
            for key, value in self.processor.partial(
                gathered(self.description, inputs), tile=tile
            ).items()
        }

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Return the outputs for a folded partial."""
        return self.processor.finish(partial)

    def close(self) -> None:
        """Do nothing: a function has no connections."""


class RemoteCaller:
    """Calls a service, or the least busy of its replicas, and checks outputs by the contract.

    A call goes to another replica if the first one is away, until `patience_s` are over.
    """

    def __init__(
        self,
        clients: tuple[Client, ...],
        description: Description,
        *,
        has_extensions: bool,
        patience_s: float = 0.0,
    ) -> None:
        self._clients = clients
        self._patience_s = patience_s
        self._away_until = [0.0] * len(clients)
        self._description = description
        self._has_extensions = has_extensions
        self._in_flight = [0] * len(clients)
        self._lock = threading.Lock()
        self._batcher = RequestBatcher(self._call_many, most=description.max_batch_size)

    @property
    def takes_references(self) -> bool:
        """Whether it is a service of this package: PESTO 1.7.2 reads no window by reference."""
        return self._has_extensions

    @property
    def is_remote(self) -> bool:
        """Always True."""
        return True

    def run(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Return the outputs; calls of several threads to a batched process share a request."""
        inputs = gathered(self._description, inputs)
        call = (inputs, tile if self._has_extensions else None)
        is_batched = self._description.max_batch_size > 1
        outputs = self._batcher(call) if is_batched else self._call_many([call])[0]
        check_outputs(self._description, inputs, outputs)
        return outputs

    def partial(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Return the partial of a reduce."""
        inputs = gathered(self._description, inputs)
        return self._call(lambda client: client.process(inputs, tile=tile, partial=True))

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Return the outputs for a folded partial."""
        encoded = encode_partial(partial)
        return self._call(lambda client: client.process({}, finish=encoded))

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _call_many(
        self, calls: Sequence[tuple[Mapping[str, object], TileInfo | None]]
    ) -> list[dict[str, object]]:
        inputs, tiles = zip(*calls, strict=True)
        return self._call(lambda client: client.process_many(inputs, tiles=tiles))

    def _call(self, send: Callable[[Client], R]) -> R:
        """Call a replica, and others as long as each of them is away."""
        deadline = time.monotonic() + self._patience_s
        while True:
            index = self._take()
            try:
                return send(self._clients[index])
            except Unreachable as error:
                self._away_until[index] = time.monotonic() + _AWAY_S
                if len(self._clients) == 1:
                    raise
                if time.monotonic() > deadline:
                    tried = f"{len(self._clients)} replicas were tried for {self._patience_s:g} s"
                    raise Unreachable(f"{error.detail}; {tried}") from error
            finally:
                with self._lock:
                    self._in_flight[index] -= 1

    def _take(self) -> int:
        """Return the replica with the fewest calls in flight, preferably one that responds."""
        now = time.monotonic()
        with self._lock:
            # A random one of several: many processes of one call each would all take the first.
            index = min(
                range(len(self._clients)),
                key=lambda n: (self._away_until[n] > now, self._in_flight[n], random.random()),  # noqa: S311
            )
            self._in_flight[index] += 1
            return index


class RequestBatcher(Generic[C, R]):
    """Combines calls of several threads into batches.

    The thread of a batch's first call waits 10 ms for other calls, or until the batch is full, and
    sends all of them. The other threads wait for its results.
    """

    def __init__(self, perform: Callable[[Sequence[C]], Sequence[R]], *, most: int) -> None:
        """Create a batcher.

        Args:
            perform: Performs several calls, and returns their results in the same order.
            most: Largest number of calls in a batch.
        """
        self._perform = perform
        self._most = most
        self._lock = threading.Lock()
        self._open: _Batch[C, R] | None = None

    def __call__(self, call: C) -> R:
        """Perform a call, alone or in a batch; raises the errors that it raises alone."""
        batch, index = self._join(call)
        if index == 0:
            self._lead(batch)
        else:
            batch.is_done.wait()
        if batch.error is not None:
            raise batch.error
        if batch.results is None:
            # Some call of the batch failed, and the error does not state which: each thread
            # repeats its own call, and only the faulty one fails.
            return self._perform([call])[0]
        return batch.results[index]

    def _join(self, call: C) -> tuple[_Batch[C, R], int]:
        with self._lock:
            if self._open is None:
                self._open = _Batch()
            batch = self._open
            batch.calls.append(call)
            if len(batch.calls) == self._most:
                self._close(batch)
            return batch, len(batch.calls) - 1

    def _lead(self, batch: _Batch[C, R]) -> None:
        batch.is_full.wait(_LINGER_S)
        with self._lock:
            self._close(batch)
        try:
            batch.results = self._perform(batch.calls)
        except PestoError as error:
            if len(batch.calls) == 1:
                raise
            if isinstance(error, _OF_THE_SERVICE):
                batch.error = error
        finally:
            batch.is_done.set()

    def _close(self, batch: _Batch[C, R]) -> None:
        batch.is_full.set()
        if self._open is batch:
            self._open = None


@dataclass
class _Batch(Generic[C, R]):
    calls: list[C] = field(default_factory=list)
    results: Sequence[R] | None = None
    error: PestoError | None = None
    is_full: threading.Event = field(default_factory=threading.Event)
    is_done: threading.Event = field(default_factory=threading.Event)


def _new_caller(service: Service, patience_s: float) -> Caller:
    if not service.is_remote:
        processor = load_planned(service)
        processor.setup()
        return LocalCaller(processor, Description.parse(service.description))
    from pesto_runtime.client.describing import Described

    description = Description.parse(service.description)
    known = Described(description, service.transports, service.build, service.digest)
    outage_s = patience_s if len(service.targets) == 1 else min(patience_s, REPLICA_OUTAGE_S)
    clients = tuple(
        open_client(url, described=known, outage_s=outage_s, pinned=service.states_code)
        for url in service.targets
    )
    return RemoteCaller(
        clients, description, has_extensions=bool(service.transports), patience_s=patience_s
    )
