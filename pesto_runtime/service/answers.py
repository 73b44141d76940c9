"""What a call is answered with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """The bytes of an answer."""

    content: bytes
    media_type: str
