"""The colours of previews: a palette for few values, ramps for many."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Colour: TypeAlias = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

Ramp: TypeAlias = Literal["grey", "viridis"]

CLASS_COLOURS: tuple[Colour, ...] = (
    (43, 54, 66), (243, 239, 228), (230, 159, 0), (86, 180, 233),
    (0, 158, 115), (213, 94, 0), (204, 121, 167), (240, 228, 66),
)  # fmt: skip
"""For values in ascending order: dark, light, then hues told apart without seeing red or green."""

RAMPS: dict[Ramp, tuple[Colour, ...]] = {
    "grey": ((12, 12, 12), (248, 248, 248)),
    "viridis": (
        (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
        (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
    ),
}  # fmt: skip
"""From the lowest value to the highest, evenly spaced."""


def ramp_table(ramp: Ramp) -> np.ndarray:
    """The ramp in 256 steps: uint8, shape (256, 3)."""
    anchors = np.array(RAMPS[ramp], float)
    places = np.linspace(0, 255, len(anchors))
    channels = [np.interp(np.arange(256), places, anchors[:, i]) for i in range(3)]
    table: np.ndarray = np.stack(channels, axis=1).round().astype(np.uint8)
    return table
