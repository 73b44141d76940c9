"""Limits of one service: sizes, workers, queue, times.

Only the values; the queue is in `admission`, and images are measured in `image_loader`. The command
line, the service and its workers all import this file, so it loads neither FastAPI nor numpy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pesto_runtime.machine import memory_bytes

if TYPE_CHECKING:
    from pesto_runtime.raster.image import Bounds

_MEMORY_SHARE = 4


@dataclass(frozen=True)
class Limits:
    """Limits of one service; a request beyond one is refused with the limit in the message.

    Attributes:
        body_bytes: Largest request body.
        image_bytes: Largest image, decoded; a small file can contain a huge one. See `of_machine`.
        image_pixels: Most pixels (width times height) of one image.
        image_bands: Most bands of one image.
        request_bytes: All images of one request, decoded.
        request_pixels: Most pixels (width times height) of all images of one request.
        workers: Calls that run at the same time.
        queue: Calls that may wait as well; the next one is refused with 503.
        timeout_s: Longest time that a call may run; a worker that takes longer is killed.
        memory_bytes: Address space that a worker may use beyond its size when idle.
        caller_calls: Calls of one caller that run or wait; None for any number.
        address_connections: Connections of one client address, except of a trusted proxy; at most
            half of the descriptors that the service may open.
        grace_s: How long an asynchronous process waits for its end when the request does not say.
        drain_s: How long running calls may take to end once the service stops.
        refuse_unknown: Whether names of a request that are not inputs are an error, or ignored and
            named in a header; None for an error if the process is a function.
    """

    body_bytes: int = 512 << 20
    image_bytes: int = 4 << 30
    image_pixels: int = 1 << 32
    image_bands: int = 4096
    request_bytes: int = 8 << 30
    request_pixels: int = 1 << 33
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    queue: int = 32
    timeout_s: float | None = 3600
    memory_bytes: int | None = None
    caller_calls: int | None = None
    address_connections: int = 4096
    grace_s: float = 2
    drain_s: float = 30
    refuse_unknown: bool | None = None

    @classmethod
    def of_machine(cls, workers: int | None = None, *, processes: int = 1, **others: Any) -> Limits:
        """Return limits by which all images of all workers fit into a quarter of the memory.

        Args:
            workers: Calls of a process that run at the same time; None for the default.
            processes: Number of processes with these limits.
            others: Further limits.
        """
        limits = cls(**others) if workers is None else cls(workers=workers, **others)
        share = memory_bytes() // _MEMORY_SHARE // (limits.workers * processes)
        return replace(
            limits,
            image_bytes=min(limits.image_bytes, share),
            request_bytes=min(limits.request_bytes, share),
        )

    @property
    def bounds(self) -> Bounds:
        """Limits of one image."""
        from pesto_runtime.raster.image import Bounds  # loads numpy, which the server does not need

        return Bounds(self.image_bytes, self.image_pixels, self.image_bands)

    @property
    def bounds_of_request(self) -> Bounds:
        """Limits of all images of one request together."""
        from pesto_runtime.raster.image import Bounds  # as above

        return Bounds(self.request_bytes, self.request_pixels)
