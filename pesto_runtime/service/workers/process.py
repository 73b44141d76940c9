"""Run a worker: `python -m pesto_runtime.service.workers.process SOCKET COUNTER PID`.

It performs one call after the other, from the bytes of the request to those of the response. The
service starts this program and exchanges frames with it; nothing here runs in the service itself.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import io
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.client.transport import Trace
from pesto_runtime.errors import AlgorithmFailed, PestoError
from pesto_runtime.machine import keep_freed_memory
from pesto_runtime.masking import masked
from pesto_runtime.processor.loading import is_placeless
from pesto_runtime.processor.protocol import listening
from pesto_runtime.service.runner import INLINE_BYTES, Spool
from pesto_runtime.service.workers.frames import (
    Frame,
    FrameDecoder,
    StartedCallCounter,
    decode_payload,
    encode_error,
    encode_frame,
    receive,
    response_frame,
    send,
)
from pesto_runtime.service.workers.handle import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.processor.protocol import ServedTarget
    from pesto_runtime.service.runner import CallResponse, Payload

    Send = Callable[[str, Mapping[str, JsonValue]], None]

_TRACEPARENT = "TRACEPARENT"
_TRACE_OF_SERVICE = os.environ.get(_TRACEPARENT)
_PR_SET_PDEATHSIG = 1
_PARENT_LOOK_S = 1.0
_LINE_CHARS = 2000
_MOST_LINES = 2000
_PROGRESS_EVERY_S = 0.05


class Performer(Protocol):
    """Performs the calls of a target."""

    @property
    def processor(self) -> ServedTarget:
        """The target."""

    def perform(self, payload: Payload, *, on_tile: Callable[[str], None]) -> CallResponse:
        """Perform a call; `on_tile` is called with the tile that the request names."""


class WorkerProcess:
    """The worker's side of the link: load, set up, then perform calls."""

    def __init__(
        self, calls: socket.socket, answers: socket.socket, started_call: StartedCallCounter
    ) -> None:
        """Take over the descriptors that the process was started with."""
        self._calls, self._answers, self._started_call = calls, answers, started_call
        self._spool: Spool | None = None
        self._trace = ""
        self._gate = threading.Lock()
        self._forwarder = OutputForwarder(self.send)

    def send(self, kind: str, head: Mapping[str, JsonValue], body: bytes = b"") -> None:
        """Send a frame; safe in any thread."""
        self._send(encode_frame(kind, head, body))

    def _send(self, frame: bytes, spool: Spool | None = None) -> None:
        # Threads of an algorithm log while its main thread responds: frames must not be mixed.
        with self._gate:
            sent = send(self._answers, frame, spool)
            if sent < len(frame):
                self._answers.sendall(memoryview(frame)[sent:])

    def serve(self) -> None:
        """Load, set up, and perform calls until the service closes the socket."""
        frames = self._frames()
        settings = WorkerSettings.of(next(frames).head)
        sys.path[:] = settings.path
        redirect_output(self._forwarder)
        with listening(self._forwarder, everywhere=True):
            try:
                execution = self._ready(settings)
            except (Exception, SystemExit) as error:  # noqa: BLE001  # reported to the service
                self._fail(error)
                return
            with _settled(execution.processor):
                # A full collection looks through 54 000 objects of numpy, GDAL and pydantic. It
                # would take 34 ms in the middle of a call; after `freeze` it takes 1 microsecond.
                gc.collect()
                gc.freeze()
                for frame in frames:
                    self._perform(execution, frame)

    def _ready(self, settings: WorkerSettings) -> Performer:
        """Load and set up; return what performs calls."""
        execution_of, processor = _loaded(settings)
        facts: dict[str, JsonValue] = {
            "description": processor.description.to_json(),
            "build": processor.build,
            "version_document": dict(processor.version_document),
            "is_placeless": is_placeless(processor),
        }
        self.send("loaded", facts)
        import_module("pesto_runtime.raster.codec")  # else the first call waits for GDAL
        processor.setup()
        execution = execution_of(processor, settings.gate, settings.limits)
        if settings.limits.memory_bytes is not None:
            limit_memory(settings.limits.memory_bytes)
        self.send("ready", {})
        return execution

    def _perform(self, execution: Performer, frame: Frame) -> None:
        # First of all: a call counts as not started, and may run elsewhere, only up to here.
        self._started_call.set(frame.number)
        self._forwarder.begin()
        try:
            payload = self._payload(frame)
            self._set_trace(payload.trace)
            response = execution.perform(payload, on_tile=self._send_tile)
            self._reply(response, is_body_free=not (payload.spool and payload.spool.is_mapped))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the edge of the process: it continues
            self._fail(error)

    def _send_tile(self, tile: str) -> None:
        self.send("about", {"tile": tile})

    def _set_trace(self, trace: str) -> None:
        """Make programs and calls that an algorithm starts part of the trace of its call."""
        if trace == self._trace:
            return
        self._trace = trace
        parent = trace if Trace.parse(trace) else _TRACE_OF_SERVICE
        if parent is None:
            os.environ.pop(_TRACEPARENT, None)
        else:
            os.environ[_TRACEPARENT] = parent

    def _payload(self, frame: Frame) -> Payload:
        spool, self._spool = self._spool, None
        if spool is not None:
            # The service closes its descriptor then, so that this end frees the memory. Small calls
            # send no such frame: it would wake the service's event loop once more per call.
            self.send("begun", {})
        return decode_payload(frame, spool)

    def _reply(self, response: CallResponse, *, is_body_free: bool) -> None:
        self._forwarder.end()
        spool, content = response.spool, response.content
        if spool is None and len(content) > INLINE_BYTES:
            spool, content = Spool.of(content), b""
        size = None if spool is None else spool.size
        frame = response_frame(response, content=content, spilled=size, is_body_free=is_body_free)
        self._send(frame, spool)
        if spool is not None:
            # The service copies what may be kept when it takes the frame, before it sends the next
            # call; what is larger, it reads while it sends it.
            spool.give_back()

    def _fail(self, error: BaseException) -> None:
        self._forwarder.end()
        trace = "".join(traceback.format_exception(error))
        self.send("failed", encode_error(_as_pesto_error(error), masked(trace)))

    def _frames(self) -> Iterator[Frame]:
        decoder = FrameDecoder()
        while True:
            data, spool = receive(self._calls)
            if not data:
                return
            if spool is not None:
                self._spool = spool
            yield from decoder.feed(data)


class OutputForwarder:
    """Sends progress and log lines of one call to the service; a `Listener`.

    A program that prints in a loop does not flood the service: the length and the number of lines
    are limited.
    """

    def __init__(self, send: Send) -> None:
        """Forward by this function, which sends a frame."""
        self._send = send
        self._lines = 0
        self._next = 0.0
        self._unsent: tuple[float, float] | None = None

    def begin(self) -> None:
        """Reset the limits, for the next call."""
        self._lines, self._next, self._unsent = 0, 0.0, None

    def end(self) -> None:
        """Send the last progress, if it was not sent yet."""
        if self._unsent is not None:
            self._send_progress(*self._unsent)

    def progress(self, done: float, total: float) -> None:
        """Send it, at most 20 times a second; the last one always."""
        now = time.monotonic()
        if now >= self._next or done >= total:
            self._next = now + _PROGRESS_EVERY_S
            self._send_progress(done, total)
        else:
            self._unsent = (done, total)

    def _send_progress(self, done: float, total: float) -> None:
        self._unsent = None
        self._send("progress", {"done": done, "total": total})

    def log(self, text: str) -> None:
        """Send a line; after many, send that there are more."""
        self._lines += 1
        if self._lines < _MOST_LINES:
            self._send("log", {"line": text[:_LINE_CHARS]})
        elif self._lines == _MOST_LINES:
            self._send("log", {"line": f"over {_MOST_LINES} lines; further lines are not stored"})


class _LineStream(io.TextIOBase):
    """A text stream that forwards lines."""

    def __init__(self, forwarder: OutputForwarder) -> None:
        self._forwarder = forwarder
        self._rest = ""
        self._gate = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._gate:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > _LINE_CHARS:
                lines.append(self._rest)
                self._rest = ""
        for line in lines:
            self._forwarder.log(line)
        return len(text)


class _LogHandler(logging.Handler):
    """Forwards log records as lines."""

    def __init__(self, forwarder: OutputForwarder) -> None:
        super().__init__(logging.INFO)
        self._forwarder = forwarder
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        for line in masked(self.format(record)).splitlines():
            self._forwarder.log(line)


def redirect_output(forwarder: OutputForwarder) -> None:
    """Forward all that this process prints or logs from now on."""
    sys.stdout = sys.stderr = _LineStream(forwarder)
    root = logging.getLogger()
    root.addHandler(_LogHandler(forwarder))
    root.setLevel(logging.INFO)


def die_with(parent: int) -> None:
    """Have this process killed as soon as its parent is gone, even in the middle of a call.

    The kernel does it on Linux, so that code that has the interpreter's lock ends, too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    # The parent may have died before prctl(2) was called: then no signal ever comes.
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_S)
    os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Limit the address space to what is used now and so much more; then `MemoryError`."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # no file system
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Serve calls on inherited descriptors."""
    calls, answers, counter, parent = (int(text) for text in sys.argv[1:])
    die_with(parent)
    for descriptor in (calls, answers, counter):
        os.set_inheritable(descriptor, False)  # not for programs of an algorithm
    os.dup2(2, 1)  # output that bypasses Python goes to the service's log
    faulthandler.enable(file=2)
    keep_freed_memory(16 << 20, 64 << 20)
    ends = (socket.socket(fileno=calls), socket.socket(fileno=answers))
    WorkerProcess(*ends, StartedCallCounter(counter)).serve()


def _loaded(settings: WorkerSettings) -> tuple[Callable[..., Performer], ServedTarget]:
    """Return what performs the calls of a target, and the target."""
    if settings.target.endswith(".json"):
        from pesto_runtime.service.pipeline_execution import PipelineExecution
        from pesto_runtime.service.pipeline_process import PipelineProcess

        return PipelineExecution.of, PipelineProcess.load(settings.target, settings.profiles)
    from pesto_runtime.processor import load_processor
    from pesto_runtime.service.execution import Execution

    return Execution.of, load_processor(settings.target, profiles=settings.profiles)


def _settled(processor: ServedTarget) -> AbstractContextManager[None]:
    from pesto_runtime.processor import ProjectProcessor

    return processor.settled() if isinstance(processor, ProjectProcessor) else nullcontext()


def _as_pesto_error(error: BaseException) -> PestoError:
    if isinstance(error, PestoError):
        return error
    if isinstance(error, MemoryError):
        return AlgorithmFailed(f"memory ran out: {error}" if str(error) else "memory ran out")
    return PestoError(f"internal error: {type(error).__name__}")


if __name__ == "__main__":
    main()
