"""Images of a request: their place after a crop, and the limits of all of them together."""

from __future__ import annotations

import numpy as np
import pytest

from pesto_runtime.contract import Window
from pesto_runtime.errors import TooLarge
from pesto_runtime.hrefs import Gate
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import UNBOUNDED, Bounds, Image
from pesto_runtime.service.image_loader import Allowance, ImageLoader
from pesto_runtime.service.request import RawImage


def test_a_cropped_upload_keeps_its_place() -> None:
    """Two columns to the right and one row down; the pixels are those of the window."""
    pixels = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    whole = Image(pixels, crs="EPSG:32616", transform=(30.0, 0.0, 100.0, 0.0, -30.0, 900.0))
    upload = RawImage(encode_image(whole, "image/tiff"), "image/tiff")
    loader = ImageLoader(Gate(local_files=True), UNBOUNDED)
    image = loader.load(upload, None, pick_window=lambda _width, _height: Window(2, 1, 3, 2))
    assert image.pixels.tolist() == [[[7, 8, 9], [12, 13, 14]]]
    assert image.transform == (30.0, 0.0, 160.0, 0.0, -30.0, 870.0)


def test_the_images_of_a_request_share_its_limit() -> None:
    """Of 10 pixels, two images of 4 leave 2; one image alone (control) may have 8."""
    image = Image(np.zeros((1, 2, 2), np.uint8))
    allowance = Allowance(UNBOUNDED, Bounds(pixel_count=10))
    allowance.bounds.require((1, 2, 4), "uint8")
    allowance.add(image)
    allowance.add(image)
    allowance.bounds.require((1, 1, 2), "uint8")
    with pytest.raises(TooLarge, match="at most 2 pixels"):
        allowance.bounds.require((1, 1, 3), "uint8")
