"""What a report reads of `result.json`; there is a default for all that an engine leaves out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pesto_runtime.contract import Window


class _Facts(BaseModel):
    """A frozen part of a result; what a report does not show is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TileCounts(_Facts):
    """How many tiles came to what end."""

    computed: int = 0
    reused: int = 0
    holes: int = 0


class PhaseFacts(_Facts):
    """A phase; `stages` holds its reduces too, in this order."""

    kind: str = "map"
    stages: tuple[str, ...] = ()
    reduces: tuple[str, ...] = ()
    chunks: int = 0
    tile: tuple[int, int] | None = None
    seconds: float | None = None


class StageFacts(_Facts):
    """What a stage is, where it ran, and what it took over all tiles."""

    process: str = ""
    version: str = ""
    where: tuple[str, ...] = ()
    calls: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class OutputFacts(_Facts):
    """An output's file, with the count of a vector's features; or a value."""

    path: str = ""
    sha256: str = ""
    bytes: int | None = None
    blocks_with_holes: int = 0
    features: int | None = None
    value: JsonValue = None

    @property
    def is_value(self) -> bool:
        """Whether it is a JSON value; null is one too."""
        return "value" in self.model_fields_set

    @property
    def is_image(self) -> bool:
        """Whether it is an image: neither a JSON value nor a vector."""
        return not self.is_value and self.features is None


class RunFacts(_Facts):
    """A finished run, as its result tells it.

    Attributes:
        engine: Name and settings of the engine.
        inputs: Scene -> its href and identity; other input -> its value.
        skipped: Outputs that were not made, as what they need has holes.
        cpu: Machine, and the SIMD extensions in use.
    """

    status: str = ""
    pipeline: str = ""
    run: str = ""
    engine: dict[str, JsonValue] = Field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    tiles: TileCounts = TileCounts()
    chunks: int = 0
    bytes_read: int = 0
    phases: tuple[PhaseFacts, ...] = ()
    stages: dict[str, StageFacts] = Field(default_factory=dict)
    outputs: dict[str, OutputFacts] = Field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    cpu: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every output is there, and whole."""
        return self.status == "COMPLETE"


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


@dataclass(frozen=True)
class HoleFacts:
    """A tile that could not be computed.

    Attributes:
        place: Its window: column, row, width, height.
        stage: That failed.
        error: What it said.
    """

    place: str
    stage: str
    error: str


def read_holes(folder: Path) -> list[HoleFacts]:
    """Read a run's holes; none where there is no such file, or not one of ours."""
    try:
        features = json.loads((folder / "holes.geojson").read_text())["features"]
        told = [feature["properties"] for feature in features]
        return [
            HoleFacts(
                ", ".join(str(number) for number in each.get("window") or ()),
                str(each.get("stage") or ""),
                str(each.get("error") or each.get("type") or ""),
            )
            for each in told
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
