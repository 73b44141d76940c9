"""Large bytes between a service and a worker: memory without a name, which nobody can leak.

A file in memory that has no name is gone with the last process that holds it, however that one
ends. `multiprocessing.shared_memory` has names, which a kill -9 leaves behind.
"""

from __future__ import annotations

import os
import tempfile

INLINE_BYTES = 64 << 10
_KEPT_BYTES = 8 << 20
_PIECE_BYTES = 1 << 30  # Linux moves at most 2 GiB at once


class Mailbox:
    """Holds the bytes of one call at a time; both sides know its descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        self.descriptor = descriptor

    @classmethod
    def create(cls) -> Mailbox:
        """Make one that only this process knows."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("pesto-mailbox"))
        with tempfile.TemporaryFile() as file:  # elsewhere: a file whose name is gone already
            return cls(os.dup(file.fileno()))

    def put(self, data: bytes) -> None:
        """Write bytes to its start."""
        view, written = memoryview(data), 0
        while written < len(view):
            piece = view[written : written + _PIECE_BYTES]
            written += os.pwrite(self.descriptor, piece, written)

    def take(self, size: int) -> bytes:
        """Read that many bytes from its start, and give large memory back.

        Raises:
            EOFError: there are fewer.
        """
        pieces, read = [], 0
        while read < size:
            piece = os.pread(self.descriptor, min(size - read, _PIECE_BYTES), read)
            if not piece:
                raise EOFError(f"a mailbox holds {read} bytes, not {size}")
            pieces.append(piece)
            read += len(piece)
        self.shrink()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def shrink(self) -> None:
        """Keep at most 8 MiB for the next call; fresh pages cost about as much as copying them."""
        if os.fstat(self.descriptor).st_size > _KEPT_BYTES:
            os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
