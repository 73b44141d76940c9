"""base64 in slices is base64 at once."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from pesto_runtime.errors import RasterUnreadable
from pesto_runtime.hrefs import Gate
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Bounds, Image
from pesto_runtime.service.image_loader import ImageLoader

LOADER = ImageLoader(Gate(local_files=True), Bounds())


@pytest.mark.parametrize("columns", [1, 2, 3, 786_000, 786_301, 1_600_000])
def test_slices_decode_to_the_same_bytes(columns: int) -> None:
    """Below, at and above the size of a slice, with and without padding and line ends."""
    pixels = np.random.default_rng(1).integers(0, 255, (1, 1, columns), np.uint8)
    data = encode_image(Image(pixels), "application/x-npy")
    for text in (base64.b64encode(data).decode(), base64.encodebytes(data).decode()):
        assert np.array_equal(LOADER.load(text, None).pixels, pixels)


@pytest.mark.parametrize(
    "text", ["A" * (1 << 20) + "=", "A" * ((1 << 20) - 1) + "=AAAA", "é" * 8, "A" * (1 << 20) + "A"]
)
def test_what_is_no_base64_is_none_in_slices_either(text: str) -> None:
    """Control: padding inside, a letter too many, letters that are none."""
    with pytest.raises(RasterUnreadable, match="neither base64"):
        LOADER.load(text, None)
