"""A request that is to become a job."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.service.payload import Payload


@dataclass(frozen=True)
class JobRequest:
    """What a job is made of.

    Attributes:
        payload: The request.
        from_here: Whether its caller is on this machine.
        key: Never two executions of one key.
        lease_s: Seconds without anybody asking after which it is dismissed.
    """

    payload: Payload
    from_here: bool
    key: str | None = None
    lease_s: float | None = None

    def digest(self) -> str:
        """What tells this request from another one with the same key.

        A form's boundary differs each time that it is written, so it is not part of it.
        """
        payload = self.payload
        media_type, _, boundary = payload.media_type.partition('; boundary="')
        body = payload.body
        if boundary:
            body = body.replace(boundary.rstrip('"').encode(), b"")
        head = json.dumps([media_type, sorted(payload.query.items()), payload.accept])
        digest = hashlib.sha256(head.encode() + b"\0")
        digest.update(body)
        return digest.hexdigest()
