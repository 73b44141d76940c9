"""An answer as it is written: small ones in memory, large ones into a spool, never twice."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from pesto_runtime.service.answers import CallResponse
from pesto_runtime.service.spool import INLINE_BYTES, Spool

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECE_BYTES = 3 << 18  # a multiple of 3, so that base64 of every piece is not padded


class AnswerWriter:
    """Takes the bytes of one answer."""

    def __init__(self) -> None:
        """Start without any."""
        self._bytes = bytearray()
        self._spool: Spool | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        if self._spool is None and len(self._bytes) + len(data) <= INLINE_BYTES:
            self._bytes += data
            return
        if self._spool is None:
            self._spool = Spool.of(bytes(self._bytes))
        self._spool.write(data)

    def write_base64(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Append bytes as base64, a piece at a time."""
        rest = b""
        for piece in pieces:
            begin = min(-len(rest) % 3, len(piece))
            rest += bytes(piece[:begin])
            if len(rest) == 3:
                self.write(binascii.b2a_base64(rest, newline=False))
                rest = b""
            stop = len(piece) - (len(piece) - begin) % 3
            for at in range(begin, stop, _PIECE_BYTES):
                part = piece[at : min(at + _PIECE_BYTES, stop)]
                self.write(binascii.b2a_base64(part, newline=False))
            rest += bytes(piece[max(stop, begin) :])
        self.write(binascii.b2a_base64(rest, newline=False))

    def answer(self, media_type: str) -> CallResponse:
        """What was written."""
        return CallResponse(
            bytes(self._bytes) if self._spool is None else b"", media_type, self._spool
        )
