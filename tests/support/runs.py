"""Runs of pipelines in this process, on the embedded engine, as the command line makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener
from pesto_runtime.run import stage as run_stage
from pesto_runtime.run.local import engine
from tests.support.rasters import pixels_of, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pytest
    from pydantic import JsonValue

    from pesto_runtime.contract import ReportForm
    from pesto_runtime.engines import ProgressListener

ROOT = Path(__file__).parents[2]
PROCESSES = ROOT / "tests" / "support" / "processes.py"
SCENE = ROOT / "examples" / "data" / "landsat8_cloudy.tif"
CLOUD_COVER = ROOT / "workflows" / "cloud_cover.json"


class Settings(TypedDict, total=False):
    """What a run may be told beside its pipeline and inputs; as `RunRequest`."""

    services: tuple[str, ...]
    catalog: Path | None
    workers: int
    executor: Literal["threads", "processes"]
    tile: int | None
    max_tasks: int
    store: str | None
    keep: bool
    fresh: bool
    as_cog: bool
    overviews: bool
    replace: bool
    take_over: bool
    patience_s: float
    verify_tiles: int
    report: ReportForm
    compress: str
    cache: str | None


def refer_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs name windows to services however small they are: else small ones are sent."""
    monkeypatch.setattr(run_stage, "SENT_BYTES", 0)


@dataclass(frozen=True)
class Done:
    """What a run left.

    Attributes:
        folder: Its output folder.
        result: What it answered.
    """

    folder: Path
    result: dict[str, JsonValue]

    def pixels(self, name: str = "image") -> np.ndarray:
        """Pixels (band, row, col) of an output."""
        return pixels_of(self.folder / f"{name}.tif")

    def sha256(self, name: str = "image") -> str:
        """Of an image output's file."""
        return sha256_of(self.folder / f"{name}.tif")

    def value(self, name: str) -> JsonValue:
        """A JSON output."""
        outputs = self.result["outputs"]
        assert isinstance(outputs, dict)
        output = outputs[name]
        assert isinstance(output, dict)
        return output["value"]

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Tiles computed, reused, holes."""
        tiles = self.result["tiles"]
        assert isinstance(tiles, dict)
        computed, reused, holes = (int(str(tiles[key])) for key in ("computed", "reused", "holes"))
        return computed, reused, holes


def stage(name: str, process: str, **inputs: JsonValue) -> dict[str, JsonValue]:
    """A stage, as a pipeline's file has it; a process may be written with underscores."""
    return {"id": name, "process": process.replace("_", "-"), "inputs": inputs}


def pipeline(
    *stages: Mapping[str, JsonValue], outputs: Mapping[str, str], **inputs: str
) -> dict[str, JsonValue]:
    """A pipeline of the test processes; its one input is the image `scene` unless some are given.

    Its file may lie anywhere: targets are absolute.
    """
    names = {str(each["process"]) for each in stages}
    return {
        "name": "test",
        "inputs": dict(inputs or {"scene": "image"}),
        "services": {name: f"{PROCESSES}:{name.replace('-', '_')}" for name in sorted(names)},
        "stages": [dict(each) for each in stages],
        "outputs": dict(outputs),
    }


def chain(*processes: str, **inputs: JsonValue) -> dict[str, JsonValue]:
    """A pipeline of processes one after another, each reading `image` of the one before.

    Other inputs are the first one's; the output is `image`.
    """
    ids = [f"s{number}" for number in range(len(processes))]
    reads = ["$inputs.scene", *(f"${each}.image" for each in ids)]
    stages = [
        stage(each, process, image=read, **(inputs if each == "s0" else {}))
        for each, process, read in zip(ids, processes, reads, strict=False)
    ]
    return pipeline(*stages, outputs={"image": reads[-1]})


def run_local(
    document: Mapping[str, JsonValue],
    folder: Path,
    given: Mapping[str, object],
    *,
    watcher: ProgressListener | None = None,
    **settings: Unpack[Settings],
) -> Done:
    """Run a pipeline on inputs, by name; by default with two threads and tiles of 200 pixels."""
    wanted: Settings = {"workers": 2, "tile": 200, **settings}
    request = RunRequest(
        pipeline=Pipeline.parse(document),
        base=CLOUD_COVER.parent,
        inputs={
            name: value if isinstance(value, list) else str(value) for name, value in given.items()
        },
        folder=folder,
        **wanted,
    )
    return Done(folder, engine.run(request, watcher=watcher or SilentListener()))
