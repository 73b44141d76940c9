"""One worker process as the service holds it: started, asked, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description
from pesto_runtime.service.logs import also
from pesto_runtime.service.runs import CallResponse, ProcessFacts, no_log, no_progress
from pesto_runtime.service.spool import INLINE_BYTES, Spool
from pesto_runtime.service.workers.channel import open_channel, received, send
from pesto_runtime.service.workers.fate import NotBegun, died, not_begun
from pesto_runtime.service.workers.frames import Frame, Unpacker, call_frame, error_of, pack
from pesto_runtime.service.workers.mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.errors import PestoError
    from pesto_runtime.service.request import Payload
    from pesto_runtime.service.runs import OnLog, OnProgress
    from pesto_runtime.service.workers.setting import Setting

_MODULE = "pesto_runtime.service.workers.process"
_ON_LOOP_BYTES = 4 << 20  # copying more is left to a thread; 4 MiB take about 1 ms


class Handle:
    """A worker process; it has one call at a time.

    Attributes:
        is_busy: Whether it owes an answer; such a worker can only be waited for, or killed.
        is_lost: Whether it is known to be gone; one that died just now is not yet.
        on_lost: Called when the process is gone.
    """

    def __init__(self, setting: Setting) -> None:
        """Start the process; it loads its target while nobody waits for it yet."""
        self._socket, theirs = open_channel()
        self._mark = Mark.create()
        inherited = (theirs.fileno(), self._mark.descriptor)
        numbers = [str(number) for number in (*inherited, os.getpid())]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # this very interpreter
                [sys.executable, "-P", "-m", _MODULE, *numbers],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the service, which lets calls end
            )
        self._socket.sendall(pack("begin", setting.to_json()))
        self._name = setting.target
        self._facts: ProcessFacts | None = None
        self._unpacker = Unpacker()
        self._replies: deque[Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0
        self._context = copy_context()
        self._is_late = False
        self._body: Spool | None = None
        self._spool: Spool | None = None
        self._on_progress: OnProgress = no_progress
        self._on_log: OnLog = no_log
        self.is_lost = False
        self.is_busy = True
        self.on_lost: Callable[[], None] = lambda: None

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process lives."""
        return not self.is_lost and self._process.poll() is None

    async def loaded(self, on_log: OnLog) -> ProcessFacts:
        """Wait until its target is loaded.

        Raises:
            PestoError: the target cannot be loaded.
        """
        if self._facts is not None:
            return self._facts
        self._on_log = on_log
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        head = (await self._reply()).head
        version = head["version_document"]
        self._facts = ProcessFacts(
            Description.parse(head["description"]),
            str(head["build"]),
            version if isinstance(version, dict) else {},
        )
        self._name = self._facts.description.name
        return self._facts

    async def ready(self) -> None:
        """Wait until its set-up is done; after `loaded`.

        Raises:
            PestoError: the set-up failed.
        """
        await self._reply()
        self._on_log = no_log
        self.is_busy = False

    async def call(
        self, payload: Payload, *, from_here: bool, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Have a call performed; when cancelled, the worker is still busy with it.

        Raises:
            TimeoutError: its time is over; the worker is still busy with it.
            NotBegun: the worker died before it began the call; another one may perform it.
            PestoError: the request, the algorithm or the answer is at fault, or the worker died.
        """
        self.is_busy = True
        self._number += 1
        self._context = copy_context()
        self._is_late = False
        self._on_progress, self._on_log = on_progress, on_log
        try:
            if payload.spool is None and len(payload.body) <= INLINE_BYTES:
                await self._write(
                    call_frame(payload, from_here=from_here, number=self._number, spilled=None)
                )
            else:
                await self._send(payload, from_here=from_here)
            frame = await self._reply()
        finally:
            self._on_progress, self._on_log, self._body = no_progress, no_log, None
        self.is_busy = False
        spool, self._spool = self._spool, None
        return CallResponse(frame.body, str(frame.head["media_type"]), spool)

    def expire(self) -> None:
        """Wait no longer for the answer."""
        self._is_late = True
        self._wake()

    def kill(self) -> None:
        """End the process and all that it started; `gone` waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._lose()

    async def gone(self) -> int:
        """Wait until the process is gone, and give its memory back; answers its return code."""
        code = await asyncio.to_thread(self._process.wait)
        self._mark.close()
        return code

    async def _send(self, payload: Payload, *, from_here: bool) -> None:
        """Send a call; a spool goes with it where its body is large."""
        body, spool = payload.body, payload.spool
        if spool is None:
            is_quick = len(body) <= _ON_LOOP_BYTES
            spool = Spool.of(body) if is_quick else await asyncio.to_thread(Spool.of, body)
        self._body = spool
        await self._write(
            call_frame(payload, from_here=from_here, number=self._number, spilled=spool.size), spool
        )

    async def _write(self, frame: bytes, spool: Spool | None = None) -> None:
        if self.is_lost or self._loop is None:
            return  # asking for the reply tells how it ended
        with contextlib.suppress(ConnectionError):
            sent = send(self._socket, frame, spool)
            if sent < len(frame):
                await self._loop.sock_sendall(self._socket, memoryview(frame)[sent:])

    def _readable(self) -> None:
        """Take what the worker says; the event loop calls it."""
        try:
            data, spool = received(self._socket)
        except BlockingIOError:
            return
        except ConnectionError:
            data, spool = b"", None
        if not data:
            self._lose()
            return
        if spool is not None:
            self._spool = spool
        for frame in self._unpacker.feed(data):
            self._heard(frame)

    def _heard(self, frame: Frame) -> None:
        kind, head = frame.kind, frame.head
        if kind == "log":
            self._context.run(self._on_log, str(head["line"]))
        elif kind == "progress":
            done, total = head["done"], head["total"]
            if isinstance(done, float) and isinstance(total, float):
                self._on_progress(done, total)
        elif kind == "begun":
            self._let_body_go()
        elif kind == "about":
            self._context.run(also, tile=str(head["tile"]))
        else:
            if self._spool is not None:
                size = head["spilled"]
                self._spool.size = size if isinstance(size, int) else 0
            self._replies.append(frame)
            self._wake()

    def _let_body_go(self) -> None:
        """The worker has the body; while both held it, its memory could not be given back."""
        if self._body is not None:
            self._body.close()

    def _lose(self) -> None:
        """Tell whoever waits that nothing more will come."""
        if self.is_lost:
            return
        self.is_lost = True
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        self._wake()
        self.on_lost()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _reply(self) -> Frame:
        while not self._replies:
            if self.is_lost:
                raise await self._death()
            if self._is_late:
                raise TimeoutError
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = self._replies.popleft()
        if frame.kind == "failed":
            self.is_busy = False
            raise error_of(frame.head)
        return frame

    async def _death(self) -> PestoError | NotBegun:
        """How the worker ended, as an error of what it was asked."""
        self.kill()  # it may live on without its socket
        code = await asyncio.to_thread(self._process.wait)
        is_begun = self._mark.number == self._number
        return died(self._name, code) if is_begun else not_begun(self._name, code)
