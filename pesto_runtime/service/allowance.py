"""What the images of one request may take together; each takes its share before it is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime import raster

if TYPE_CHECKING:
    from pesto_runtime.raster import Bounds, Image


class Allowance:
    """The bounds of the next image of a request: its own, and what the others left."""

    def __init__(self, image: Bounds, request: Bounds | None = None) -> None:
        """Start with a request that has no image yet."""
        self._image, self._request = image, request or raster.Bounds()
        self._bytes = self._pixels = 0

    @property
    def bounds(self) -> Bounds:
        """Of the next image."""
        return raster.Bounds(
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
