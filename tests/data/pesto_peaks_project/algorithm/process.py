"""The process: pixels above all eight around them."""

# mypy: ignore-errors
# PESTO projects carry no types, and import modules that nobody installs.

import numpy as np

from algorithm.input_output import Input, Output


class Process:
    """A PESTO process in dataclass style."""

    def process(self, input: Input):
        """Compare with shifted views; nothing lies beyond the array."""
        image = input.image[0].astype(int)
        rows, cols = image.shape
        padded = np.pad(image, 1, constant_values=-1)
        places = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
        others = [padded[y : y + rows, x : x + cols] for y, x in places]
        found = np.argwhere(image > np.maximum.reduce(others))
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [col + 0.5, row + 0.5]},
                "properties": {"value": int(image[row, col])},
            }
            for row, col in found.tolist()
        ]
        return Output(peaks={"type": "FeatureCollection", "features": features})
