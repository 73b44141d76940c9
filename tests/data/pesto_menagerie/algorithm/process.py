"""Gives back what it is given, or what the input `show` asks for: each type of PESTO's, once."""

import time

import numpy as np

RING = [[[0, 0], [0, 3], [3, 3], [3, 0], [0, 0]]]
AREA = {"type": "Polygon", "coordinates": RING}


def ramp(bands, dtype, gain=1):
    """An 8 x 8 image (band, row, col) that counts its pixels."""
    return (np.arange(bands * 64) * gain).astype(dtype).reshape(bands, 8, 8)


SHOWN = {
    "area": lambda: {"area": AREA, "areas": [AREA, AREA]},
    "float32": lambda: {"picture": ramp(1, np.float32) / 64},
    "flat": lambda: {"picture": ramp(1, np.uint8)[0]},
    "uint16": lambda: {"picture": ramp(1, np.uint16, 1000)},
    "four": lambda: {"picture": ramp(4, np.uint8)},
    "six": lambda: {"picture": ramp(6, np.uint16, 100)},
    "twelve": lambda: {"pictures": [np.full((1, 4, 4), n, np.uint8) for n in range(12)]},
    "none": lambda: {"amount": None, "word": "w"},
    "nan": lambda: {"amount": float("nan")},
    "scalar": lambda: {"amount": np.float32(1.5)},
    "stranger": lambda: {"amount": 1.0, "stranger": 1},
    "digit": lambda: {"band1": 7.0},
}


class Process:
    """Echoes."""

    def process(self, show=None, scale=5.0, seconds=None, **given):
        """Answer what `show` names, else the inputs that are there, and facts of the picture."""
        if show == "fault":
            raise ValueError("as asked")
        if show == "scale":
            return {"facts": {"scale": scale}}
        if seconds is not None:
            time.sleep(seconds)
        if show in SHOWN:
            return SHOWN[show]()
        answer = {name: value for name, value in given.items() if value is not None}
        if given.get("picture") is not None:
            answer["facts"] = {
                "shape": list(given["picture"].shape),
                "dtype": str(given["picture"].dtype),
                "first": [float(each) for each in given["picture"][:, 0, 0]],
            }
        return answer
