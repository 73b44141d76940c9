"""Perform a stage: the author's code in this process, or a service over HTTP, behind one face."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from pesto_runtime.contract import Description, Service
from pesto_runtime.errors import PestoError
from pesto_runtime.processor import check_outputs, encode_partial, load_processor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.client.client import Client
    from pesto_runtime.contract import TileInfo
    from pesto_runtime.processor import Processor


C = TypeVar("C")
R = TypeVar("R")

_LINGER_S = 0.01
"""How long the first call of a group waits for others: little beside any call worth gathering."""


@dataclass
class _Group(Generic[C, R]):
    calls: list[C] = field(default_factory=list)
    answers: Sequence[R] | None = None
    is_full: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)


class RequestBatcher(Generic[C, R]):
    """Performs calls in groups; safe to call from several threads."""

    def __init__(self, perform: Callable[[Sequence[C]], Sequence[R]], *, most: int) -> None:
        """Take what performs several calls, and how many of them at `most`."""
        self._perform = perform
        self._most = most
        self._lock = threading.Lock()
        self._open: _Group[C, R] | None = None

    def __call__(self, call: C) -> R:
        """Perform a call, alone or with others; raises what performing it alone raises."""
        group, index = self._joined(call)
        if index == 0:
            self._lead(group)
        else:
            group.is_over.wait()
        if group.answers is None:  # some call of the group failed: whose it was, each finds out
            return self._perform([call])[0]
        return group.answers[index]

    def _joined(self, call: C) -> tuple[_Group[C, R], int]:
        with self._lock:
            if self._open is None:
                self._open = _Group()
            group = self._open
            group.calls.append(call)
            if len(group.calls) == self._most:
                self._close(group)
            return group, len(group.calls) - 1

    def _lead(self, group: _Group[C, R]) -> None:
        group.is_full.wait(_LINGER_S)
        with self._lock:
            self._close(group)
        try:
            group.answers = self._perform(group.calls)
        except PestoError:
            if len(group.calls) == 1:
                raise
        finally:
            group.is_over.set()

    def _close(self, group: _Group[C, R]) -> None:
        group.is_full.set()
        if self._open is group:
            self._open = None


class Caller(Protocol):
    """Performs one process; safe to call from several threads."""

    @property
    def takes_references(self) -> bool:
        """Whether an image may be given by reference, so that the service reads it itself."""

    def run(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Answer the outputs; raises what the process or the service raises."""

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None
    ) -> dict[str, JsonValue]:
        """Answer a reduce's partial as JSON."""

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Answer the outputs of a merged partial."""

    def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True)
class LocalCaller:
    """Calls the author's code in this process."""

    processor: Processor
    description: Description

    @property
    def takes_references(self) -> bool:
        """Arrays are at hand: there is nothing to refer to."""
        return False

    def run(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Answer the outputs, held to their contract as those of a service are."""
        outputs = self.processor.run(inputs, tile=tile)
        check_outputs(self.description, inputs, outputs)
        return outputs

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None
    ) -> dict[str, JsonValue]:
        """Answer a reduce's partial, as it would come back over HTTP."""
        return encode_partial(self.processor.partial(inputs, tile=tile))

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Answer the outputs of a merged partial."""
        return self.processor.finish(partial)

    def close(self) -> None:
        """Hold nothing."""


class RemoteCaller:
    """Calls a service, or the least busy of its replicas, and holds it to its contract."""

    def __init__(
        self, clients: tuple[Client, ...], description: Description, *, ours: bool
    ) -> None:
        self._clients = clients
        self._description = description
        self._ours = ours
        self._in_flight = [0] * len(clients)
        self._lock = threading.Lock()
        self._gathered = RequestBatcher(self._answers, most=description.max_batch_size)

    @property
    def takes_references(self) -> bool:
        """Whether the service is one of ours: a PESTO 1.7.2 reads no window by reference."""
        return self._ours

    def run(self, inputs: Mapping[str, object], *, tile: TileInfo | None) -> dict[str, object]:
        """Answer the outputs; of a batched process, calls of several threads share a request."""
        call = (inputs, tile if self._ours else None)
        is_batched = self._description.max_batch_size > 1
        outputs = self._gathered(call) if is_batched else self._answers([call])[0]
        check_outputs(self._description, inputs, outputs)
        return outputs

    def _answers(
        self, calls: Sequence[tuple[Mapping[str, object], TileInfo | None]]
    ) -> list[dict[str, object]]:
        inputs, tiles = zip(*calls, strict=True)
        with self._client() as client:
            return client.process_many(inputs, tiles=tiles)

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None
    ) -> dict[str, JsonValue]:
        """Answer a reduce's partial."""
        with self._client() as client:
            return encode_partial(client.process(inputs, tile=tile, partial=True))

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Answer the outputs of a merged partial."""
        with self._client() as client:
            return client.process({}, finish=encode_partial(partial))

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    @contextmanager
    def _client(self) -> Iterator[Client]:
        with self._lock:
            index = self._in_flight.index(min(self._in_flight))
            self._in_flight[index] += 1
        try:
            yield self._clients[index]
        finally:
            with self._lock:
                self._in_flight[index] -= 1


def caller_for(service: Service) -> Caller:
    """What performs a service's process; made once and kept until `close_callers`.

    Raises:
        PestoError: the target cannot be loaded, or its set-up fails.
    """
    document = service.model_dump_json()
    with _guard:
        if document not in _callers:
            _callers[document] = _made(service)
        return _callers[document]


def close_callers() -> None:
    """Let go of every caller, and of the connections that it holds."""
    with _guard:
        for caller in _callers.values():
            caller.close()
        _callers.clear()


_callers: dict[str, Caller] = {}
_guard = threading.Lock()


def _made(service: Service) -> Caller:
    if not service.is_remote:
        processor = load_processor(service.targets[0])
        processor.setup()
        return LocalCaller(processor, Description.parse(service.description))
    from pesto_runtime.client.client import Client
    from pesto_runtime.client.describing import Described

    description = Description.parse(service.description)
    known = Described(description, service.transports, service.build, description.digest)
    clients = tuple(Client(url, described=known) for url in service.targets)
    return RemoteCaller(clients, description, ours=bool(service.transports))
