"""Which call a worker has begun: a number in memory that it shares with its service.

Setting it costs no message, and it outlives the worker that set it. So the service knows of a
worker that died whether the call it had been handed was begun; one that was not may go to another.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

_NUMBER = struct.Struct("=Q")


class Mark:
    """A number, 0 at first; both sides know its descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _NUMBER.size)

    @classmethod
    def create(cls) -> Mark:
        """Make one that only this process knows."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("pesto-mark")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _NUMBER.size)
        return cls(descriptor)

    @property
    def number(self) -> int:
        """The call that was begun last."""
        found: int = _NUMBER.unpack_from(self._memory)[0]
        return found

    def set(self, number: int) -> None:
        """Begin a call."""
        _NUMBER.pack_into(self._memory, 0, number)

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()
        os.close(self.descriptor)
