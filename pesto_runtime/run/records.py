"""What becomes of tiles: told while a chunk runs, kept in its manifest, read back by the report."""

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


@dataclass
class CostMeter:
    """Adds up wall and CPU seconds by stage; CPU is of the calling thread.

    Attributes:
        costs: Stage id -> what its calls took so far.
    """

    costs: dict[str, StageCost] = field(default_factory=dict)

    @contextmanager
    def call(self, stage_id: str) -> Iterator[None]:
        """Measure one call, whether it succeeds or not."""
        begun, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            so_far = self.costs.get(stage_id, StageCost())
            self.costs[stage_id] = StageCost(
                calls=so_far.calls + 1,
                seconds=so_far.seconds + time.perf_counter() - begun,
                cpu_seconds=so_far.cpu_seconds + time.thread_time() - cpu,
            )

    def add(self, other: CostMeter) -> None:
        """Add what another thread measured."""
        for stage_id, cost in other.costs.items():
            so_far = self.costs.get(stage_id, StageCost())
            self.costs[stage_id] = StageCost(
                calls=so_far.calls + cost.calls,
                seconds=so_far.seconds + cost.seconds,
                cpu_seconds=so_far.cpu_seconds + cost.cpu_seconds,
            )

    def manifest(self) -> dict[str, object]:
        """The costs, as a manifest tells them."""
        return {"stages": {name: cost.model_dump() for name, cost in self.costs.items()}}


@dataclass(frozen=True, slots=True)
class TileRecord:
    """What became of a tile.

    Attributes:
        window: In the grid of the scenes, pixels.
        seconds: That it took; 0 for one that was reused.
        state: `done`, `reused` (all its blocks were there) or `hole`.
    """

    window: Window
    seconds: float
    state: str


@dataclass(frozen=True)
class TileObserver:
    """Who looks on while a chunk runs.

    Attributes:
        on_tile: Told of every tile when it is done.
        should_stop: Asked before every tile; True ends the chunk, what is whole being kept.
    """

    on_tile: Callable[[TileRecord], None] = lambda _record: None
    should_stop: Callable[[], bool] = lambda: False


def manifests_of(context: RunContext) -> Iterator[dict[str, JsonValue]]:
    """Every manifest that the chunks of a run, and its single calls, left."""
    for name in sorted(context.store.names(f"manifests/{context.plan.run}")):
        document = context.store.get_json(name)
        if isinstance(document, dict):
            yield dict(document)


def tile_records(context: RunContext) -> Iterator[TileRecord]:
    """What became of every tile of a run, phase after phase."""
    for manifest in manifests_of(context):
        tiles = manifest.get("tiles")
        for tile in tiles if isinstance(tiles, list) else []:
            if isinstance(tile, list):
                *window, seconds, state = tile
                numbers = [int(str(number)) for number in window]
                yield TileRecord(Window(*numbers), float(str(seconds)), str(state))
