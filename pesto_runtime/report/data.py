"""What a report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Window


class TileTime(Protocol):
    """A tile and how long it took."""

    @property
    def window(self) -> Window:
        """In the grid of the scenes, pixels."""

    @property
    def seconds(self) -> float:
        """That it took; 0 for one that was reused."""

    @property
    def state(self) -> str:
        """`done`, `reused` or `hole`."""


@dataclass(frozen=True)
class ReportData:
    """A finished run.

    Attributes:
        result: What `result.json` holds.
        pipeline: The pipeline's JSON.
        tiles: Every tile, phase after phase.
        size: Width and height of the scenes, pixels; (0, 0) where there is none.
        scenes: Image input -> href.
        folder: Where the outputs are.
    """

    result: Mapping[str, JsonValue]
    pipeline: Mapping[str, JsonValue]
    tiles: tuple[TileTime, ...]
    size: tuple[int, int]
    scenes: Mapping[str, str]
    folder: Path
