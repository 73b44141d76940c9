"""The socket between a service and a worker: frames, and the descriptors that go with them."""

from __future__ import annotations

import array
import socket
from typing import TYPE_CHECKING

from pesto_runtime.service.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable

_READ_BYTES = 128 << 10
_BUFFER_BYTES = 1 << 20
_INT_BYTES = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(_INT_BYTES)

_CLOSED_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

_Told = tuple[int, int, bytes]


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Both ends; either takes a frame of a small call at once, without waiting for its reader."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


def send(channel: socket.socket, frame: bytes, spool: Spool | None = None) -> int:
    """Send a frame, and a spool with its first byte; answers how much was taken.

    Raises:
        ConnectionError: the other end is gone.
    """
    if spool is None:
        return channel.send(frame)
    numbers = array.array("i", [spool.descriptor])
    return channel.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


def received(channel: socket.socket) -> tuple[bytes, Spool | None]:
    """Some bytes, none at the end, and the spool that came with them.

    Raises:
        BlockingIOError: there is nothing yet.
        ConnectionError: the other end is gone.
    """
    data, told, _, _ = channel.recvmsg(_READ_BYTES, _ROOM, _CLOSED_ON_EXEC)
    return data, _spool(told) if told else None


def _spool(told: Iterable[_Told]) -> Spool | None:
    numbers = array.array("i")
    for level, kind, data in told:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return Spool(numbers[0]) if numbers else None
