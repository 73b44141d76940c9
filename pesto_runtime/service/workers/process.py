"""What runs in a worker: `python -m pesto_runtime.service.workers.process SOCKET MARK PID`.

It performs one call after the other, from the bytes of the request to those of the answer.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import socket
import sys
import threading
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from pesto_runtime.client.transport import Trace
from pesto_runtime.errors import AlgorithmFailed, PestoError
from pesto_runtime.processor.protocol import listening
from pesto_runtime.service.spool import INLINE_BYTES, Spool
from pesto_runtime.service.workers.channel import received, send
from pesto_runtime.service.workers.fate import die_with, limit_memory
from pesto_runtime.service.workers.frames import (
    Frame,
    Unpacker,
    answer_frame,
    error_document,
    pack,
    payload_of,
)
from pesto_runtime.service.workers.mark import Mark
from pesto_runtime.service.workers.setting import Setting
from pesto_runtime.service.workers.telling import Teller, redirect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.processor import Processor
    from pesto_runtime.service.execution import Execution
    from pesto_runtime.service.request import Payload
    from pesto_runtime.service.runs import CallResponse


_TRACEPARENT = "TRACEPARENT"
_TRACE_OF_SERVICE = os.environ.get(_TRACEPARENT)


class Worker:
    """One worker's side of the conversation."""

    def __init__(self, channel: socket.socket, mark: Mark) -> None:
        """Take over what it was started with."""
        self._channel, self._mark = channel, mark
        self._spool: Spool | None = None
        self._trace = ""
        self._gate = threading.Lock()
        self._teller = Teller(self.send)

    def send(
        self,
        kind: str,
        head: Mapping[str, JsonValue],
        body: bytes = b"",
    ) -> None:
        """Send a frame; safe in any thread."""
        self._send(pack(kind, head, body))

    def _send(self, frame: bytes, spool: Spool | None = None) -> None:
        with self._gate:
            sent = send(self._channel, frame, spool)
            if sent < len(frame):
                self._channel.sendall(memoryview(frame)[sent:])

    def serve(self) -> None:
        """Load, set up, and answer calls until the service is gone."""
        frames = self._frames()
        setting = Setting.of(next(frames).head)
        sys.path[:] = setting.path
        redirect(self._teller)
        with listening(self._teller, everywhere=True):
            try:
                here, afar = self._ready(setting)
            except (Exception, SystemExit) as error:  # noqa: BLE001  # the service tells whatever it was
                self._fail(error)
                return
            with _settled(here.processor):
                gc.collect()
                gc.freeze()  # what is here now stays; looking through it at every turn takes long
                for frame in frames:
                    self._perform(here if frame.head["from_here"] else afar, frame)

    def _ready(self, setting: Setting) -> tuple[Execution, Execution]:
        execution_of = import_module("pesto_runtime.service.execution").Execution.of
        processor = _loaded(setting)
        facts: dict[str, JsonValue] = {
            "description": processor.description.to_json(),
            "build": processor.build,
            "version_document": dict(processor.version_document),
        }
        self.send("loaded", facts)
        import_module("pesto_runtime.raster.codec")  # GDAL, before the first call waits for it
        processor.setup()
        far_gate = replace(setting.gate, loopback=False)
        both = tuple(
            execution_of(processor, gate, setting.limits) for gate in (setting.gate, far_gate)
        )
        if setting.limits.memory_bytes is not None:
            limit_memory(setting.limits.memory_bytes)
        self.send("ready", {})
        return both[0], both[1]

    def _perform(self, execution: Execution, frame: Frame) -> None:
        self._mark.set(frame.number)
        self._teller.begin()
        try:
            payload = self._payload(frame)
            self._trace_as(payload.trace)
            self._reply(execution.answer(payload, on_tile=self._tell_tile))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the edge of the process: it goes on
            self._fail(error)

    def _tell_tile(self, tile: str) -> None:
        self.send("about", {"tile": tile})

    def _trace_as(self, trace: str) -> None:
        """Have what an algorithm starts or calls belong to the trace of its call."""
        if trace == self._trace:
            return
        self._trace = trace
        told = trace if Trace.parse(trace) else _TRACE_OF_SERVICE
        if told is None:
            os.environ.pop(_TRACEPARENT, None)
        else:
            os.environ[_TRACEPARENT] = told

    def _payload(self, frame: Frame) -> Payload:
        spool, self._spool = self._spool, None
        if spool is not None:
            self.send("begun", {})  # the service lets go of the body, so that this end can free it
        return payload_of(frame, spool)

    def _reply(self, answer: CallResponse) -> None:
        self._teller.end()
        spool, content = answer.spool, answer.content
        if spool is None and len(content) > INLINE_BYTES:
            spool, content = Spool.of(content), b""
        size = None if spool is None else spool.size
        self._send(answer_frame(answer, content=content, spilled=size), spool)

    def _fail(self, error: BaseException) -> None:
        self._teller.end()
        trace = "".join(traceback.format_exception(error))
        self.send("failed", error_document(_told(error), trace))

    def _frames(self) -> Iterator[Frame]:
        unpacker = Unpacker()
        while True:
            data, spool = received(self._channel)
            if not data:
                return
            if spool is not None:
                self._spool = spool
            yield from unpacker.feed(data)


def main() -> None:
    """Serve calls on inherited descriptors."""
    channel, mark, parent = (int(text) for text in sys.argv[1:])
    die_with(parent)
    for descriptor in (channel, mark):
        os.set_inheritable(descriptor, False)  # what an algorithm starts must not hold them open
    os.dup2(2, 1)  # what bypasses Python goes to the service's log
    faulthandler.enable(file=2)
    Worker(socket.socket(fileno=channel), Mark(mark)).serve()


def _loaded(setting: Setting) -> Processor:
    from pesto_runtime.processor import load_processor

    return load_processor(setting.target, profiles=setting.profiles)


def _settled(processor: Processor) -> AbstractContextManager[None]:
    from pesto_runtime.processor import ProjectProcessor

    return processor.settled() if isinstance(processor, ProjectProcessor) else nullcontext()


def _told(error: BaseException) -> PestoError:
    if isinstance(error, PestoError):
        return error
    if isinstance(error, MemoryError):
        return AlgorithmFailed(f"memory ran out: {error}" if str(error) else "memory ran out")
    return PestoError(f"internal error: {type(error).__name__}")


if __name__ == "__main__":
    main()
