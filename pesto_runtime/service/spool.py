"""Large bytes in memory without a name: passed between processes, mapped, never leaked.

A file in memory that has no name is gone with the last process that holds it, however that one
ends. `multiprocessing.shared_memory` has names, which a kill -9 leaves behind.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INLINE_BYTES = 64 << 10
"""What is smaller is not worth a file."""
_PIECE_BYTES = 1 << 20
_NOT_OPEN = -1


class Spool:
    """Bytes that are written once, from their start, and read any number of times."""

    def __init__(self, descriptor: int, size: int = 0) -> None:
        """Take over the descriptor of a file with so many bytes; it is closed with this object."""
        self.descriptor, self.size = descriptor, size

    @classmethod
    def create(cls) -> Spool:
        """Make an empty one."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("pesto-spool"))
        with tempfile.TemporaryFile() as file:  # elsewhere: a file whose name is gone already
            return cls(os.dup(file.fileno()))

    @classmethod
    def of(cls, data: bytes) -> Spool:
        """Make one that holds these bytes."""
        spool = cls.create()
        spool.write(data)
        return spool

    def __len__(self) -> int:
        return self.size

    def __del__(self) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view[:_PIECE_BYTES], self.size)
            self.size += written
            view = view[written:]

    def pieces(self, piece_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
        """All bytes, in pieces of this size.

        Raises:
            EOFError: somebody has cut the file.
        """
        for begin in range(0, self.size, piece_bytes):
            wanted = min(piece_bytes, self.size - begin)
            piece = os.pread(self.descriptor, wanted, begin)
            if len(piece) != wanted:
                raise EOFError(f"a spool of {self.size} bytes ends at {begin + len(piece)}")
            yield piece

    def whole(self) -> bytes:
        """A copy of all bytes."""
        copy = io.BytesIO()  # gives its bytes away without copying them again
        for piece in self.pieces():
            copy.write(piece)
        return copy.getvalue()

    def shared(self) -> mmap.mmap:
        """The bytes themselves; what is done to the map is done to the file."""
        return mmap.mmap(self.descriptor, self.size)

    def mapped(self) -> mmap.mmap:
        """The bytes themselves; they stay as long as the map, or an array over it, is held.

        What is written into the map is the writer's own: the file stays as it is.
        """
        return mmap.mmap(self.descriptor, self.size, access=mmap.ACCESS_COPY)

    def close(self) -> None:
        """Let go of the file; maps of it stay."""
        if self.descriptor != _NOT_OPEN:
            os.close(self.descriptor)
            self.descriptor = _NOT_OPEN
