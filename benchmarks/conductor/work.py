"""The work: scenes of many tiles, a process that does nothing, and workflows over them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import rasterio

from pesto_conductor.definitions import workflow_definition
from pesto_runtime import Raster, process
from pesto_runtime.contract import Pipeline
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services

if TYPE_CHECKING:
    from pydantic import JsonValue

BLOCK = 512
NOOP_TASK = "benchmark_noop"


@process(version="1", margin=0)
def nothing(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", nodata=255)]:
    """Give the image back."""
    return image.copy()


@dataclass(frozen=True)
class Work:
    """A scene and what it is cut into.

    Attributes:
        scene: Its file.
        tile: Side of a tile, pixels.
        tiles: How many.
    """

    scene: Path
    tile: int
    tiles: int


def work_of(folder: Path, *, blocks: int, tile: int) -> Work:
    """An empty square scene of so many blocks (a square number) of 512 pixels."""
    side = int(blocks**0.5) * BLOCK
    path = folder / f"{side}.tif"
    if not path.exists():
        with rasterio.open(
            path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8",
            tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", crs="EPSG:32616",
            transform=rasterio.Affine(30, 0, 0, 0, -30, 0),
        ) as scene:  # fmt: skip
            scene.write(np.zeros((1, side, side), np.uint8))
            scene.set_band_description(1, "grey")
    return Work(path, tile, (side // tile) ** 2)


def definition() -> dict[str, JsonValue]:
    """The pipeline of one stage, as a workflow."""
    pipeline = Pipeline.parse(
        {
            "name": "nothing",
            "inputs": {"scene": "image"},
            "services": {"nothing": f"{Path(__file__).resolve()}:nothing"},
            "stages": [{"id": "n", "process": "nothing", "inputs": {"image": "$inputs.scene"}}],
            "outputs": {"image": "$n.image"},
        }
    )
    services = resolve_services(pipeline, base=Path.cwd())
    phases = shape(pipeline, services)
    made = workflow_definition(pipeline, phases, defaults={"base": str(Path.cwd())})
    made.pop("failureWorkflow")
    return made


def flat(count: int) -> dict[str, JsonValue]:
    """A fork of so many tasks that do nothing."""
    return {
        "name": "flat", "version": 1, "schemaVersion": 2, "ownerEmail": "pesto@example.com",
        "timeoutSeconds": 0,
        "tasks": [
            {
                "name": "fork", "taskReferenceName": "fork", "type": "FORK_JOIN_DYNAMIC",
                "inputParameters": {"forkTaskName": NOOP_TASK,
                                    "forkTaskInputs": [{"n": n} for n in range(count)]},
            },
            {"name": "join", "taskReferenceName": "join", "type": "JOIN", "joinOn": []},
        ],
    }  # fmt: skip
