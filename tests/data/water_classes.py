"""A process with classes, for the tests of the page at /docs."""

from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process

CLASSES = [
    {"value": 0, "name": "land", "color_hint": "e8e2d0"},
    {"value": 1, "name": "water", "color_hint": "1f6fb4", "description": "Open water"},
]


@process(version="1.0.0", margin=0)
def water(
    scene: Annotated[np.ndarray, Raster(bands=["green", "nir"], dtype="uint16")],
    offset: int = 0,
) -> Annotated[np.ndarray, Raster(name="water", dtype="uint8", nodata=255, classes=CLASSES)]:
    """Find open water.

    Water reflects more green than
    near infrared.
    """
    return (scene[:1] + offset > scene[1:]).astype(np.uint8)
