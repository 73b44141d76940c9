"""A bounded queue: how many calls are let in; what does not fit is refused at once."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.errors import Busy

if TYPE_CHECKING:
    from types import TracebackType

    from pesto_runtime.raster.image import Bounds, Image


@dataclass(frozen=True)
class Limits:
    """Bounds of one service; what is over them is refused with the bound in the message.

    Attributes:
        body_bytes: Largest request body.
        image_bytes: Largest image, decoded; a small file can hold a huge one.
        image_pixels: Most pixels (width times height) of one image.
        image_bands: Most bands of one image.
        request_bytes: All images of one request, decoded.
        request_pixels: Most pixels (width times height) of all images of one request.
        workers: Calls that run at the same time.
        queue: Calls that may wait beside them; the next one is answered 503.
        timeout_s: Longest that a call may run; a worker that takes longer is killed.
        memory_bytes: Address space that a worker may take on top of what it has when idle.
        grace_s: How long an asynchronous call that was not asked to be one waits for its end.
        drain_s: How long running calls may take to end once the service is told to stop.
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
    grace_s: float = 2
    drain_s: float = 30

    @property
    def bounds(self) -> Bounds:
        """Of one image."""
        from pesto_runtime.raster.image import Bounds  # loads numpy, which the server does not need

        return Bounds(self.image_bytes, self.image_pixels, self.image_bands)

    @property
    def bounds_of_request(self) -> Bounds:
        """Of all images of one request together."""
        from pesto_runtime.raster.image import Bounds  # as above

        return Bounds(self.request_bytes, self.request_pixels)


_FIRST_GUESS_S = 1.0
_WEIGHT = 0.3
_LONGEST_RETRY_S = 60.0


class Admission:
    """How many calls hold a place: those that run, and those that wait beside them."""

    def __init__(self, workers: int, queue: int) -> None:
        """Make room for `workers` running calls and `queue` waiting ones."""
        self.workers = workers
        self.capacity = workers + queue
        self.admitted = 0
        self._seconds = _FIRST_GUESS_S

    def place(self) -> QueuePlace:
        """Take a place, to be used as a context manager; call it on the event loop.

        Raises:
            Busy: none is free; says when one may be.
        """
        if self.admitted >= self.capacity:
            wait_s = min(self._seconds * self.capacity / self.workers, _LONGEST_RETRY_S)
            raise Busy(
                f"{self.workers} calls run and {self.capacity - self.workers} wait; no room for "
                "more now",
                retry_after_s=wait_s,
            )
        return QueuePlace(self)

    def took(self, seconds: float) -> None:
        """Learn how long a call held its place, waiting for its turn not counted out."""
        share = seconds * self.workers / max(self.admitted, self.workers)
        self._seconds += _WEIGHT * (share - self._seconds)


class QueuePlace:
    """One call's place, held from before its body is read until its answer is made."""

    def __init__(self, admission: Admission) -> None:
        """Hold nothing yet; `with` does."""
        self._admission = admission
        self._began = 0.0

    def __enter__(self) -> None:
        self._admission.admitted += 1
        self._began = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.took(time.monotonic() - self._began)
        self._admission.admitted -= 1


class Allowance:
    """The bounds of the next image of a request: its own, and what the others left."""

    def __init__(self, image: Bounds, request: Bounds | None = None) -> None:
        """Start with a request that has no image yet."""
        from pesto_runtime.raster.image import Bounds

        self._image, self._request = image, request or Bounds()
        self._bytes = self._pixels = 0

    @property
    def bounds(self) -> Bounds:
        """Of the next image."""
        from pesto_runtime.raster.image import Bounds

        return Bounds(
            _least(self._image.byte_count, self._request.byte_count, self._bytes),
            _least(self._image.pixel_count, self._request.pixel_count, self._pixels),
            self._image.band_count,
        )

    @property
    def told(self) -> str:
        """What images before it have taken; empty where there were none."""
        taken = f"{self._pixels} pixels, {self._bytes} bytes decoded"
        return f"; images before it in this request have {taken}" if self._bytes else ""

    def take(self, image: Image) -> None:
        """Count an image that was read."""
        _, height, width = image.pixels.shape
        self._bytes += image.pixels.nbytes
        self._pixels += width * height


def _least(of_image: int | None, of_request: int | None, taken: int) -> int | None:
    left = None if of_request is None else max(0, of_request - taken)
    return min((each for each in (of_image, left) if each is not None), default=None)
