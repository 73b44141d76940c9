"""Control one worker process from the service: start it, send it calls, kill it.

The handle turns frames into events of `lifecycle`, and performs the actions that this returns. It
decides nothing itself; `pool` decides which call goes to which worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from contextvars import Context, copy_context
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pesto_runtime.contract import Description
from pesto_runtime.errors import PestoError
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.logs import also
from pesto_runtime.service.runner import (
    INLINE_BYTES,
    KEPT_BYTES,
    CallResponse,
    ProcessFacts,
    Spool,
    no_progress,
)
from pesto_runtime.service.workers import lifecycle
from pesto_runtime.service.workers.frames import (
    Frame,
    FrameDecoder,
    StartedCallCounter,
    call_frame,
    decode_error,
    encode_frame,
    open_channel,
    receive,
    send,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.service.runner import OnLog, OnProgress, Payload
    from pesto_runtime.service.workers.lifecycle import Actions, Event, Outcome, WorkerState

_LOG = logging.getLogger(__name__)
_MODULE = "pesto_runtime.service.workers.process"
_ON_LOOP_BYTES = 4 << 20  # more is copied in a thread; 4 MiB take about 1 ms

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker needs to serve calls; sent to it once, before its first call.

    Attributes:
        target: What it loads.
        profiles: Of a PESTO project.
        gate: Which hrefs it may read and write.
        limits: Sizes and memory.
        path: Where Python looks for modules.
    """

    target: str
    profiles: tuple[str, ...]
    gate: Gate
    limits: Limits
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))

    def to_json(self) -> dict[str, JsonValue]:
        """Return the settings as a JSON document."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, object]) -> WorkerSettings:
        """Read a document of `to_json`.

        Raises:
            TypeError: a part is missing or of another type.
        """
        gate, limits = document["gate"], document["limits"]
        profiles, path = document["profiles"], document["path"]
        if not (isinstance(gate, dict) and isinstance(limits, dict)):
            raise TypeError("the settings of a worker have a gate and limits")
        if not (isinstance(profiles, list) and isinstance(path, list)):
            raise TypeError("the settings of a worker have profiles and a path")
        return cls(
            str(document["target"]),
            tuple(profiles),
            Gate(
                tuple(gate["allow"]),
                gate["local_files"],
                tuple(gate["networks"]),
                gate["redirects"],
                tuple(gate["callbacks"]),
            ),
            Limits(**limits),
            tuple(path),
        )


@dataclass(slots=True, eq=False)
class _Request(Generic[_Result]):
    """What the service waits for: that a worker is loaded, is set up, or has performed a call.

    Attributes:
        outcome: The result, or the error as a value: asyncio would log an exception nobody reads.
        context: Variables of the caller, where its log lines take their fields from.
        body: Of a call, if it is large; kept for the next one, or closed, once nobody needs it.
    """

    outcome: asyncio.Future[_Result | Exception]
    on_log: OnLog
    on_progress: OnProgress = no_progress
    context: Context = field(default_factory=copy_context)
    body: Spool | None = None


class WorkerHandle:
    """A worker process; it has one call at a time."""

    def __init__(self, settings: WorkerSettings, on_loss: Callable[[WorkerHandle], None]) -> None:
        """Start the process; it loads its target before any event loop runs here.

        Args:
            settings: Sent to the process.
            on_loss: Called when a worker that was ready is lost.
        """
        # A pair for each direction: to read from a Unix socket wakes who waits at its other end.
        self._socket, their_answers = open_channel()
        self._calls, their_calls = open_channel()
        self._started_call = StartedCallCounter.create()
        with their_calls, their_answers:
            theirs = (their_calls.fileno(), their_answers.fileno(), self._started_call.descriptor)
            self._process = subprocess.Popen(  # noqa: S603  # this very interpreter
                [sys.executable, "-P", "-m", _MODULE, *map(str, theirs), str(os.getpid())],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the service, which lets calls end
            )
        self._calls.sendall(encode_frame("begin", settings.to_json()))
        self._life = lifecycle.Lifecycle(settings.target)
        self._on_loss = on_loss
        self._decoder = FrameDecoder()
        self._requests: deque[_Request[Any]] = deque()
        self._start_up: tuple[_Request[ProcessFacts], _Request[None]] | None = None
        self._spool: Spool | None = None
        self._exit: asyncio.Task[None] | None = None

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def state(self) -> WorkerState:
        """Its state; a worker that died just now is not known to be lost yet."""
        return self._life.state

    @property
    def has_call(self) -> bool:
        """Whether a call runs in it."""
        return self.state in ("called", "late")

    @property
    def is_alive(self) -> bool:
        """Whether the process lives."""
        return self.state != "lost" and self._process.poll() is None

    async def loaded(self, on_log: OnLog) -> ProcessFacts:
        """Wait until its target is loaded.

        Raises:
            StartKilled: it was killed before that.
            PestoError: the target cannot be loaded.
        """
        return _value(await self._starting(on_log)[0].outcome)

    async def ready(self, on_log: OnLog) -> None:
        """Wait until its target is loaded and set up.

        Raises:
            StartKilled: it was killed before that.
            PestoError: the target cannot be loaded, or its set-up failed.
        """
        await self.loaded(on_log)
        _value(await self._starting(on_log)[1].outcome)

    async def call(
        self,
        payload: Payload,
        *,
        deadline: float | None,
        on_progress: OnProgress,
        on_log: OnLog,
    ) -> CallResponse:
        """Have a call performed; when cancelled, the worker is killed.

        Args:
            payload: The request.
            deadline: Latest end of the call, in seconds of the event loop, for `pass_time`.
            on_progress: Called with `done` and `total`.
            on_log: Called with every line of the algorithm.

        Raises:
            TimeoutError: its deadline has passed; the worker was killed.
            CallNotStarted: the worker died before it started the call; another one may run it.
            PestoError: the request, the algorithm or its outputs are wrong, or the worker died.
        """
        loop = asyncio.get_running_loop()
        request: _Request[CallResponse] = _Request(loop.create_future(), on_log, on_progress)
        number = self._life.number + 1
        self._requests.append(request)
        try:
            if "send call" in self._feed(lifecycle.CallAssigned(deadline)):
                await self._send(payload, request, number)
            return _value(await request.outcome)
        except BaseException:
            # Cancelled, or not sent; after the end of the call, it changes nothing.
            self._feed(lifecycle.CallAbandoned(number))
            with contextlib.suppress(ValueError):
                self._requests.remove(request)
            raise

    def pass_time(self, at: float) -> None:
        """Report the time; a call whose deadline has passed is stopped."""
        self._feed(lifecycle.TimePassed(at))

    def kill(self) -> None:
        """End the process and all that it started; `exited` waits for it."""
        self._feed(lifecycle.KillRequested())

    async def exited(self) -> None:
        """Wait until a process that was killed is gone."""
        if self._exit is not None:
            await self._exit

    def _starting(self, on_log: OnLog) -> tuple[_Request[ProcessFacts], _Request[None]]:
        """Listen to the worker; return the requests for its load and its set-up.

        Both are made at once: the first worker may be set up before anybody waits for that.
        """
        if self._start_up is None:
            loop = asyncio.get_running_loop()
            first, second = (loop.create_future() for _ in range(2))
            self._start_up = (_Request(first, on_log), _Request(second, on_log))
            self._requests.extend(self._start_up)
            self._calls.setblocking(False)
            self._socket.setblocking(False)
            loop.add_reader(self._socket, self._read)
        return self._start_up

    def _feed(self, event: Event) -> Actions:
        """Take an event, and perform the actions that need not be awaited."""
        self._life, actions = lifecycle.advance(self._life, event)
        for action in actions:
            if isinstance(action, lifecycle.Resolve):
                self._resolve(action.outcome)
            elif action == "kill":
                self._kill()
            elif action == "report loss":
                self._on_loss(self)
            elif action == "read socket":
                # libuv runs timers before it polls sockets: after a turn that took long, a
                # response which came in time is still unread here.
                # https://docs.libuv.org/en/v1.x/design.html#the-i-o-loop
                self._read()
                self._feed(lifecycle.SocketRead())
        return actions

    def _resolve(self, outcome: Outcome) -> None:
        if not self._requests:
            return  # it was killed before anybody listened to it
        request = self._requests.popleft()
        if not request.outcome.done():  # it is, where its caller was cancelled
            request.outcome.set_result(outcome)

    def _kill(self) -> None:
        # The group has the programs that an algorithm started; the process may have died already.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._socket.close()
        self._calls.close()
        self._exit = loop.create_task(self._wait_for_exit())

    async def _wait_for_exit(self) -> None:
        code = await asyncio.to_thread(self._process.wait)
        started = self._started_call.number  # final only now: a killed process may still run a bit
        self._started_call.close()
        _LOG.debug("worker %d %s", self.process_id, lifecycle.exit_description(code))
        self._feed(lifecycle.ProcessExited(code, started))

    async def _send(self, payload: Payload, request: _Request[Any], number: int) -> None:
        """Write a call into the socket; a large body goes along as a spool."""
        body, spool = payload.body, payload.spool
        if spool is None and len(body) > INLINE_BYTES:
            is_quick = len(body) <= _ON_LOOP_BYTES
            spool = Spool.of(body) if is_quick else await asyncio.to_thread(Spool.of, body)
        request.body = spool
        spilled = None if spool is None else spool.size
        frame = call_frame(payload, number=number, spilled=spilled)
        if self._life.state == "lost":
            return  # it died while a thread copied the body; its exit is the outcome
        try:
            sent = send(self._calls, frame, spool)
            if sent < len(frame):
                rest = memoryview(frame)[sent:]
                await asyncio.get_running_loop().sock_sendall(self._calls, rest)
        except ConnectionError:
            return  # the worker is gone: the reader notices it, and the exit code is the outcome

    def _read(self) -> None:
        """Read the socket once, and take its frames; the event loop calls it."""
        try:
            data, spool = receive(self._socket)
        except BlockingIOError:
            return
        except ConnectionError:
            data, spool = b"", None
        if not data:
            self._feed(lifecycle.SocketClosed())
            return
        if spool is not None:
            self._spool = spool
        for frame in self._decoder.feed(data):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        """Turn a frame into an event, or pass a report of the algorithm on to the caller."""
        kind, head = frame.kind, frame.head
        if kind == "answer":
            spool, self._spool = self._spool, None
            answer = _answer(frame, spool)
            if self._requests and self._requests[0].body is not None and head["body_free"]:
                self._requests[0].body.give_back()
            self._feed(lifecycle.AnswerReceived(answer))
        elif kind == "failed":
            self._feed(lifecycle.ErrorReceived(decode_error(head)))
        elif kind == "loaded":
            self._feed(_facts_event(head))
        elif kind == "ready":
            self._feed(lifecycle.SetUpReported())
        elif self._requests:
            _report(self._requests[0], kind, head)


def _value(outcome: _Result | Exception) -> _Result:
    """Return the result of a request; raise it where it is an error."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _report(request: _Request[Any], kind: str, head: Mapping[str, JsonValue]) -> None:
    """Pass on a log line, the progress or the tile of a call, or free its body."""
    if kind == "log":
        request.context.run(request.on_log, str(head["line"]))
    elif kind == "progress":
        done, total = head["done"], head["total"]
        if isinstance(done, float) and isinstance(total, float):
            request.on_progress(done, total)
    elif kind == "about":
        request.context.run(also, tile=str(head["tile"]))
    elif kind == "begun" and request.body is not None and request.body.size > KEPT_BYTES:
        request.body.close()  # else 60 MB would stay until the call ends


def _answer(frame: Frame, spool: Spool | None) -> CallResponse:
    content, size = frame.body, frame.head["spilled"]
    if spool is not None:
        spool.size = size if isinstance(size, int) else 0
    if spool is not None and spool.size <= KEPT_BYTES:  # the worker uses this file for its next one
        content, spool = spool.whole(), None
    names = frame.head["ignored"]
    ignored = tuple(map(str, names)) if isinstance(names, list) else ()
    return CallResponse(content, str(frame.head["media_type"]), spool, ignored)


def _facts_event(head: Mapping[str, JsonValue]) -> Event:
    version = found if isinstance(found := head["version_document"], dict) else {}
    try:
        description = Description.parse(head["description"])
    except PestoError as error:
        return lifecycle.ErrorReceived(error)
    return lifecycle.FactsReceived(
        ProcessFacts(description, str(head["build"]), version, head["is_placeless"] is True)
    )
