"""One worker process as the service holds it: started, asked, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.contract import Description
from pesto_runtime.service.answers import Answer
from pesto_runtime.service.payload import Payload
from pesto_runtime.service.runs import Facts, no_log, no_progress
from pesto_runtime.service.workers.fate import died
from pesto_runtime.service.workers.frames import Frame, Unpacker, error_of, pack
from pesto_runtime.service.workers.mailbox import INLINE_BYTES, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import JsonValue

    from pesto_runtime.service.runs import OnLog, OnProgress
    from pesto_runtime.service.workers.setting import Setting

T = TypeVar("T")

_OF_PAYLOAD = tuple(each.name for each in fields(Payload) if each.name != "body")
_OF_ANSWER = tuple(each.name for each in fields(Answer) if each.name != "content")

_MODULE = "pesto_runtime.service.workers.process"
_ON_LOOP_BYTES = 4 << 20  # copying more is left to a thread; 4 MiB take about 1 ms


class Handle(asyncio.Protocol):
    """A worker process; it has one call at a time.

    Attributes:
        is_busy: Whether it owes an answer; such a worker can only be waited for, or killed.
        on_lost: Called when the process is gone.
    """

    def __init__(self, setting: Setting) -> None:
        """Start the process; it loads its target while nobody waits for it yet."""
        self._socket, theirs = socket.socketpair()
        self._inbox, self._outbox = Mailbox.create(), Mailbox.create()
        inherited = (theirs.fileno(), self._inbox.descriptor, self._outbox.descriptor)
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
        self._facts: Facts | None = None
        self._unpacker = Unpacker()
        self._replies: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._transport: asyncio.WriteTransport | None = None
        self._copying: asyncio.Future[object] | None = None
        self._on_progress: OnProgress = no_progress
        self._on_log: OnLog = no_log
        self._is_lost = False
        self.is_busy = True
        self.on_lost: Callable[[], None] = lambda: None

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked something."""
        return not self._is_lost and self._process.poll() is None

    async def loaded(self, on_log: OnLog) -> Facts:
        """Wait until its target is loaded.

        Raises:
            PestoError: the target cannot be loaded.
        """
        if self._facts is not None:
            return self._facts
        self._on_log = on_log
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._socket)
        head = (await self._reply()).head
        version = head["version_document"]
        self._facts = Facts(
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
    ) -> Answer:
        """Have a call performed; when cancelled, the worker is still busy with it.

        Raises:
            PestoError: the request, the algorithm or the answer is at fault, or the worker died.
        """
        self.is_busy = True
        self._on_progress, self._on_log = on_progress, on_log
        await self._send(payload, from_here=from_here)
        try:
            frame = await self._reply()
            answer = await self._answer(frame)
        finally:
            self._on_progress, self._on_log = no_progress, no_log
        return answer

    def kill(self) -> None:
        """End the process and all that it started; `gone` waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._transport is not None:
            self._transport.close()
        else:
            self._socket.close()

    async def gone(self) -> int:
        """Wait until the process is gone, and give its memory back; answers its return code."""
        code = await asyncio.to_thread(self._process.wait)
        if self._copying is not None:
            await asyncio.wait([self._copying])
        for mailbox in (self._inbox, self._outbox):
            mailbox.close()
        return code

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what writes (asyncio calls it)."""
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand on what the worker says (asyncio calls it)."""
        for frame in self._unpacker.feed(data):
            if frame.kind == "log":
                self._on_log(str(frame.head["line"]))
            elif frame.kind == "progress":
                done, total = frame.head["done"], frame.head["total"]
                if isinstance(done, float) and isinstance(total, float):
                    self._on_progress(done, total)
            else:
                self._replies.put_nowait(frame)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Tell whoever waits (asyncio calls it)."""
        self._is_lost = True
        self._replies.put_nowait(None)
        self.on_lost()

    async def _send(self, payload: Payload, *, from_here: bool) -> None:
        head: dict[str, JsonValue] = {name: getattr(payload, name) for name in _OF_PAYLOAD}
        head["from_here"], head["spilled"], body = from_here, None, payload.body
        if len(body) > INLINE_BYTES:
            await self._copied(len(body), lambda: self._inbox.put(payload.body))
            head["spilled"], body = len(body), b""
        if self._transport is not None:
            self._transport.write(pack("call", head, body))

    async def _reply(self) -> Frame:
        frame = await self._replies.get()
        if frame is None:
            self.kill()  # it may live on without its socket
            code = await asyncio.to_thread(self._process.wait)
            raise died(self._name, code)
        if frame.kind == "failed":
            self.is_busy = False
            raise error_of(frame.head)
        return frame

    async def _answer(self, frame: Frame) -> Answer:
        size = frame.head["spilled"]
        content = frame.body
        if isinstance(size, int):
            content = await self._copied(size, lambda: self._outbox.take(size))
        self.is_busy = False
        known = {name: frame.head[name] for name in _OF_ANSWER}
        return Answer(content=content, **known)  # type: ignore[arg-type]  # written from an Answer

    async def _copied(self, size: int, copy: Callable[[], T]) -> T:
        """Copy here where that is quick, else beside the event loop, also when cancelled."""
        if size <= _ON_LOOP_BYTES:
            return copy()
        copying = asyncio.ensure_future(asyncio.to_thread(copy))
        self._copying = copying  # type: ignore[assignment]  # a future of anything
        return await asyncio.shield(copying)
