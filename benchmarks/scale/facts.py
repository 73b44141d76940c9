"""What the model is told: the work, what its parts cost, the engine, the machines, their limits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pesto_runtime.contract import BLOCK
from pesto_runtime.pipeline import Sizing
from pesto_runtime.pipeline.sizing import HTTP_SECONDS_PER_PIXEL, STAGE_SECONDS_PER_PIXEL
from pesto_runtime.tiling import chunks_of, tile_count

MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Work:
    """Scenes of equal size, one stage.

    Attributes:
        scenes: How many.
        columns: Tiles of a scene from left to right; a tile is a block of 512 x 512 pixels.
        rows: Tiles of a scene from top to bottom.
        cpu_s: Processor seconds of the algorithm for a tile, in the task.
        wait_s: Seconds for a tile without a processor: a GPU of its own, a pause.
        service_s: Seconds of a service for a tile; 0 if the algorithm is not a service.
        read_bytes: Bytes that a tile reads from the store, in one request.
        write_bytes: Bytes of its block.
    """

    scenes: int
    columns: int
    rows: int
    cpu_s: float = 0.0
    wait_s: float = 0.0
    service_s: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0

    @property
    def tiles(self) -> int:
        """Tiles of all scenes."""
        return self.scenes * self.columns * self.rows


@dataclass(frozen=True)
class Costs:
    """Seconds that the activities take on every engine, measured by `measure`.

    Attributes:
        plan_s: Of a plan, once; of checks, of imports of the process.
        plan_scene_s: Of the plan for each further scene.
        chunk_s: Of a chunk, without its tiles, processor.
        tile_s: Of reading a tile and storing its block, processor.
        close_scene_s: Of closing the phase of a scene.
        publish_scene_s: Of publishing a scene.
        publish_tile_s: Of publishing a tile of it.
        flush_s: Longest age of a block that is not stored yet.
    """

    plan_s: float = 0.0
    plan_scene_s: float = 0.0
    chunk_s: float = 0.0
    tile_s: float = 0.0
    close_scene_s: float = 0.0
    publish_scene_s: float = 0.0
    publish_tile_s: float = 0.0
    flush_s: float = 2.0


@dataclass(frozen=True)
class Engine:
    """What an engine adds, measured by `measure`.

    Attributes:
        name: `airflow`, `conductor` or `dask`.
        serial_s: Added to the tasks before and after the fan-out, all of them together.
        control_s: Processor seconds of server or scheduler for a task; one task after another.
        task_cpu_s: Processor seconds of the worker for a task: a process that starts, imports.
        task_wait_s: Seconds that a slot waits for its task without any processor.
        seen_s: Seconds until the task of a dead worker is offered again.
        task_cost_s: Cost of a task by which the product chooses the number of chunks.
        tasks_per_worker: Tasks of a worker that the product plans at least.
        is_per_scene: Whether it runs one scene after another: it has no campaigns.
        scene_s: For such an engine, what it adds to each scene.
    """

    name: str
    serial_s: float = 0.0
    control_s: float = 0.0
    task_cpu_s: float = 0.0
    task_wait_s: float = 0.0
    seen_s: float = 0.0
    task_cost_s: float = 0.02
    tasks_per_worker: int = 4
    is_per_scene: bool = False
    scene_s: float = 0.0


@dataclass(frozen=True)
class Fleet:
    """Machines.

    Attributes:
        workers: Processes that take tasks; a failure is that of a worker.
        slots: Tasks at once of a worker.
        threads: Tiles at once of a task: 1, or 8 if the algorithm is a service.
        hosts: Machines; worker n is on machine n modulo `hosts`. 0: each has its own.
        cores: Cores of a machine.
        is_shared: Whether server or scheduler uses the cores of the first machine.
        max_tasks: Most tasks of the fan-out; the product allows 256.
        sized_for: `workers` of the run, from which the product chooses the chunks; 0: all slots.
    """

    workers: int
    slots: int = 1
    threads: int = 1
    hosts: int = 0
    cores: int = 1
    is_shared: bool = False
    max_tasks: int = 64
    sized_for: int = 0


@dataclass(frozen=True)
class Limits:
    """What all workers share; 0 for no limit.

    Attributes:
        service_slots: Tiles that the service computes at once.
        requests_per_s: Of the store.
        bytes_per_s: Of the store, both ways together.
        latency_s: Of a request to the store.
    """

    service_slots: int = 0
    requests_per_s: float = 0.0
    bytes_per_s: float = 0.0
    latency_s: float = 0.0


@dataclass(frozen=True)
class Failures:
    """Kills of workers.

    Attributes:
        kills: (seconds after the begin of the fan-out, worker).
        per_hour: Kills of each worker and hour, at random.
        back_s: Seconds until the worker is there again.
        seed: Of the random kills.
    """

    kills: tuple[tuple[float, int], ...] = ()
    per_hour: float = 0.0
    back_s: float = 30.0
    seed: int = 1


def tasks_of(work: Work, engine: Engine, fleet: Fleet) -> list[list[tuple[int, int]]]:
    """Return the tasks of the fan-out, each a list of chunks (scene, tiles), as the product does.

    A scene is cut into chunks by its own cost; the row of all chunks into tasks of equal pixels.
    """
    workers = fleet.sized_for or fleet.workers * fleet.slots
    sizing = Sizing(
        workers=max(1, workers * engine.tasks_per_worker // 4), max_tasks=fleet.max_tasks,
        task_cost_s=engine.task_cost_s,
    )  # fmt: skip
    size = (work.columns * BLOCK, work.rows * BLOCK)
    http_s = HTTP_SECONDS_PER_PIXEL if work.service_s else 0.0
    seconds = size[0] * size[1] * (STAGE_SECONDS_PER_PIXEL + http_s)
    windows = chunks_of(size, quantum=(BLOCK, BLOCK), at_most=sizing.chunk_count(seconds))
    tiles = [tile_count(each, (BLOCK, BLOCK)) for each in windows]
    count = min(work.scenes * len(tiles), sizing.chunk_count(work.scenes * seconds))
    tasks: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    before = 0
    for scene in range(work.scenes):
        for number in tiles:
            tasks[(2 * before + number) * count // (2 * work.tiles)].append((scene, number))
            before += number
    return [task for task in tasks if task]


def load_measured(path: Path = MEASURED) -> tuple[Costs, dict[str, Engine]]:
    """Return the costs and the engines that `measure` has written, engine name -> engine."""
    found = json.loads(path.read_text())
    return Costs(**found["costs"]), {each["name"]: Engine(**each) for each in found["engines"]}
