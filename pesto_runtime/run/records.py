"""Record the state and the cost of each tile: observed while a chunk runs, then in its manifest.

The report reads the manifests again. This file does not write them: `run/chunk.py` does.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.contract import StageCost, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

    from pesto_runtime.run.context import RunContext


@dataclass(frozen=True, slots=True)
class TileRecord:
    """The final state of a tile.

    Attributes:
        window: The tile in the grid of the scenes, pixels.
        seconds: Time that it took; 0 for a reused tile.
        state: `done`, `reused` (all its blocks were stored before) or `hole`.
    """

    window: Window
    seconds: float
    state: str


@dataclass(frozen=True)
class TileObserver:
    """Receives the state of each tile while a chunk runs, and can stop the chunk.

    Attributes:
        on_tile: Called after every tile.
        should_stop: Called before every tile; True ends the chunk, and stored blocks stay.
    """

    on_tile: Callable[[TileRecord], None] = lambda _record: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class CostMeter:
    """Adds up the wall and CPU seconds of each stage; CPU seconds are of the calling thread.

    Attributes:
        costs: Stage id -> cost of its calls so far.
    """

    costs: dict[str, StageCost] = field(default_factory=dict)

    @contextmanager
    def call(self, stage_id: str) -> Iterator[None]:
        """Measure one call, whether it succeeds or fails."""
        begun, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            seconds, cpu_seconds = time.perf_counter() - begun, time.thread_time() - cpu
            self._add(stage_id, StageCost(calls=1, seconds=seconds, cpu_seconds=cpu_seconds))

    def add(self, other: CostMeter) -> None:
        """Add the costs that another thread measured."""
        for stage_id, cost in other.costs.items():
            self._add(stage_id, cost)

    def manifest(self) -> dict[str, object]:
        """Return the costs in the form of a manifest."""
        return {"stages": {name: cost.model_dump() for name, cost in self.costs.items()}}

    def _add(self, stage_id: str, cost: StageCost) -> None:
        so_far = self.costs.get(stage_id, StageCost())
        self.costs[stage_id] = StageCost(
            calls=so_far.calls + cost.calls,
            seconds=so_far.seconds + cost.seconds,
            cpu_seconds=so_far.cpu_seconds + cost.cpu_seconds,
        )


def manifests_of(context: RunContext) -> Iterator[dict[str, JsonValue]]:
    """Yield every manifest of a run: of its chunks, and of its single calls."""
    for name in sorted(context.store.names(f"manifests/{context.plan.run}")):
        document = context.store.get_json(name)
        if isinstance(document, dict):
            yield dict(document)


def tile_records(context: RunContext) -> Iterator[TileRecord]:
    """Yield the record of every tile of a run, phase after phase."""
    for manifest in manifests_of(context):
        tiles = manifest.get("tiles")
        for tile in tiles if isinstance(tiles, list) else []:
            if isinstance(tile, list):
                *window, seconds, state = tile
                numbers = [int(str(number)) for number in window]
                yield TileRecord(Window(*numbers), float(str(seconds)), str(state))
