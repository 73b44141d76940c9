"""Arithmetic that the process imports only when it is called."""

# mypy: ignore-errors
# PESTO projects carry no types, and import modules that nobody installs.

import numpy as np


def brighten(image, gain, offset):
    """Write the brighter image into the given one, as PESTO projects may."""
    image[:] = np.clip(image * gain + offset, 0, 255).astype(image.dtype)
    return image
