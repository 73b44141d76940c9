"""PESTO's own window option: images are read with a margin, outputs lose it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from pesto_runtime.contract import Description, Window, bad_fields
from pesto_runtime.contract.raster import Value
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from pydantic import JsonValue


class Band(Value):
    """Lines or columns: `number` of them from `first`, and `margin` more on both sides."""

    first: int = Field(ge=0)
    number: int = Field(ge=1)
    margin: int = Field(default=0, ge=0)

    def clipped(self, size: int) -> tuple[int, int]:
        """First and past-last index with the margin, inside an image of this size."""
        return max(0, self.first - self.margin), min(size, self.first + self.number + self.margin)


class RegionOfInterest(Value):
    """Which images are read by a window, and which outputs are trimmed to it."""

    target_in: tuple[str, ...] = ()
    target_out: tuple[str, ...] = ()
    lines: Band
    columns: Band

    def window(self, width: int, height: int) -> Window:
        """The window to read of an image of this size, margin included.

        Raises:
            InvalidInput: the region is not inside the image.
        """
        lines, columns = self.lines, self.columns
        if lines.first + lines.number > height or columns.first + columns.number > width:
            raise InvalidInput(
                f"roi lines {lines.first}..{lines.first + lines.number} and columns "
                f"{columns.first}..{columns.first + columns.number} are not inside the image, "
                f"which has {height} lines and {width} columns"
            )
        (top, bottom), (left, right) = lines.clipped(height), columns.clipped(width)
        return Window.spanning(left, top, right, bottom)

    def trimmed(self, pixels: np.ndarray) -> np.ndarray:
        """An output (band, row, col) without the margin."""
        top, left = (
            min(self.lines.first, self.lines.margin),
            min(self.columns.first, self.columns.margin),
        )
        return pixels[:, top : top + self.lines.number, left : left + self.columns.number]


def parse_roi(
    document: Mapping[str, JsonValue] | None, ports: Description
) -> RegionOfInterest | None:
    """Read the option; None stays None.

    Raises:
        InvalidInput: a field is wrong, or a target is no image of the process.
    """
    if document is None:
        return None
    try:
        roi = RegionOfInterest.model_validate(document)
    except ValidationError as error:
        raise InvalidInput.of(
            "roi", bad_fields(error, prefix="/pesto/roi", value=document)
        ) from error
    images = [p.name for p in (*ports.inputs, *ports.outputs) if p.kind == "image"]
    unknown = sorted({*roi.target_in, *roi.target_out} - set(images))
    if unknown:
        raise InvalidInput(f"roi names {', '.join(unknown)}; images here are {', '.join(images)}")
    return roi
