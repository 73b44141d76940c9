"""The process: the maximum of the 3 x 3 around every pixel."""

# mypy: ignore-errors
# PESTO projects carry no types, and import modules that nobody installs.

import numpy as np

from algorithm.input_output import Input, Output


class Process:
    """A PESTO process in dataclass style."""

    def process(self, input: Input):
        """Take the maximum over shifted views; nothing lies beyond the array."""
        bands, rows, cols = input.image.shape
        padded = np.zeros((bands, rows + 2, cols + 2), input.image.dtype)
        padded[:, 1:-1, 1:-1] = input.image
        shifted = [padded[:, y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
        return Output(image=np.maximum.reduce(shifted))
