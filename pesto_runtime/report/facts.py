"""Read the facts of a run from `result.json` and `holes.geojson`.

Every fact has a default, because an engine may omit it; unknown keys are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SkipValidation

from pesto_runtime.errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.contract import RasterClass, Selection, Window
    from pesto_runtime.places import AnyPath
    from pesto_runtime.raster.samples import Samples


class _Facts(BaseModel):
    """A frozen part of a result, without the keys that a report does not show."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TileCounts(_Facts):
    """Number of tiles by final state."""

    computed: int = 0
    reused: int = 0
    holes: int = 0


class PhaseFacts(_Facts):
    """A phase; `stages` includes its reduces, in the order in which they run."""

    kind: str = "map"
    stages: tuple[str, ...] = ()
    reduces: tuple[str, ...] = ()
    chunks: int = 0
    tile: tuple[int, int] | None = None
    seconds: float | None = None


class StageFacts(_Facts):
    """Process, places and costs of a stage, summed over all tiles."""

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
    value: SkipValidation[JsonValue] = None

    @property
    def is_value(self) -> bool:
        """Whether it is a JSON value, which may be null."""
        return "value" in self.model_fields_set

    @property
    def is_image(self) -> bool:
        """Whether it is an image: neither a JSON value nor a vector."""
        return not self.is_value and self.features is None


class RunFacts(_Facts):
    """A finished run, as `result.json` describes it.

    Attributes:
        engine: Name and settings of the engine.
        inputs: Scene -> its href and identity; other input -> its value.
        skipped: Outputs that were skipped, because their inputs have holes.
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
        """Whether every output exists, without holes."""
        return self.status == "COMPLETE"


class TileTime(Protocol):
    """A tile and its duration."""

    @property
    def window(self) -> Window:
        """In the grid of the scenes, pixels."""

    @property
    def seconds(self) -> float:
        """Its duration; 0 if it was reused."""

    @property
    def state(self) -> str:
        """`done`, `reused` or `hole`."""


@dataclass(frozen=True)
class ReportImage:
    """A scene or an image output.

    Attributes:
        name: Name of the input or output.
        role: `Scene` or `Output`.
        href: The raster.
        samples: Those that the run has collected; None for none.
        numbers: 1-based numbers of the bands of the samples; None for all.
        classes: The classes that the contract declares.
        selection: The bands and the window of the raster that the run uses; None for all.
        is_on_grid: Whether it covers the area of the first scene, with which it is drawn.
    """

    name: str
    role: Literal["Scene", "Output"]
    href: str
    samples: Samples | None = None
    numbers: tuple[int, ...] | None = None
    classes: tuple[RasterClass, ...] = ()
    selection: Selection | None = None
    is_on_grid: bool = True


@dataclass(frozen=True)
class PortText:
    """The words for an output: those of its port, or else of its process.

    Attributes:
        text: Its description.
        unit: The unit of a value.
    """

    text: str = ""
    unit: str = ""


@dataclass(frozen=True)
class ReportData:
    """A finished run.

    Attributes:
        result: Content of `result.json`.
        pipeline: The pipeline's JSON.
        tiles: Every tile, phase after phase.
        size: Width and height of the scenes, pixels; (0, 0) without a scene.
        images: The scenes, then the image outputs.
        folder: Folder of the outputs.
        texts: Output -> its words.
        embeds: Whether the page carries the files of small outputs.
        elsewhere: Stages whose tiles are on another grid than the first scene.
    """

    result: Mapping[str, JsonValue]
    pipeline: Mapping[str, JsonValue]
    tiles: tuple[TileTime, ...]
    size: tuple[int, int]
    images: tuple[ReportImage, ...]
    folder: AnyPath
    texts: Mapping[str, PortText] = field(default_factory=dict)
    embeds: bool = False
    elsewhere: frozenset[str] = frozenset()


@dataclass(frozen=True)
class HoleFacts:
    """A tile that could not be computed.

    Attributes:
        window: Column, row, width, height; empty if it is not known.
        stage: The stage that failed.
        error: The error of the stage, with its first wrong field.
    """

    window: tuple[int, ...]
    stage: str
    error: str

    @property
    def place(self) -> str:
        """The window as text."""
        return ", ".join(map(str, self.window))


def read_holes(folder: AnyPath) -> list[HoleFacts]:
    """Read a run's holes; empty if the file is missing, or has another form."""
    try:
        features = json.loads((folder / "holes.geojson").read_text())["features"]
        properties = [feature["properties"] for feature in features]
        return [
            HoleFacts(
                _window(each.get("window")),
                str(each.get("stage") or ""),
                reason_of({**each, "detail": each.get("error")}),
            )
            for each in properties
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _window(value: object) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else []
    is_window = len(numbers) == 4 and all(isinstance(number, int) for number in numbers)
    return tuple(numbers) if is_window else ()
