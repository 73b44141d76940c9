"""What a call is answered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.service.spool import Spool


@dataclass(frozen=True)
class CallResponse:
    """The bytes of an answer.

    Attributes:
        content: All of them, unless they are in a spool.
        media_type: Of them.
        spool: Where large ones are; None for others.
    """

    content: bytes
    media_type: str
    spool: Spool | None = None

    def whole(self) -> bytes:
        """All bytes, wherever they are."""
        return self.content if self.spool is None else self.spool.whole()
