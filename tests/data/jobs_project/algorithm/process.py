"""The process: takes its time, and leaves what PESTO 1.7.2 spoils in jobs."""

# mypy: ignore-errors
# PESTO projects carry no types, and import modules that nobody installs.

import time

import numpy as np


class Process:
    """A PESTO process in keyword style."""

    def process(self, action, seconds=0):
        """Do an errand."""
        time.sleep(seconds)
        if action == "fail":
            raise ValueError("no errand today")
        if action == "images":
            return {"images": [np.full((1, 4, 4), n, np.uint16) * 1000 for n in range(12)]}
        if action == "float":
            return {"image": np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)}
        return {"band1": 7.0, "text": action, "count": 3}
