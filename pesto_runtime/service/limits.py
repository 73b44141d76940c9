"""How much one service takes at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Bounds of one service; what is over them is refused with the bound in the message.

    Attributes:
        body_bytes: Largest request body.
        image_bytes: Largest image, decoded; a small file can hold a huge one.
        workers: Calls that run at the same time.
        queue: Calls that may wait beside them; the next one is answered 503.
    """

    body_bytes: int = 512 << 20
    image_bytes: int = 4 << 30
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    queue: int = 32
