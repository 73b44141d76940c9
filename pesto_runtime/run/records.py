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
        costs: Stage id -> calls, seconds and CPU seconds so far, as in `StageCost`.
    """

    costs: dict[str, tuple[int, float, float]] = field(default_factory=dict)

    @contextmanager
    def call(self, stage_id: str) -> Iterator[None]:
        """Measure one call, whether it succeeds or fails."""
        begun, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._add(stage_id, 1, time.perf_counter() - begun, time.thread_time() - cpu)

    def add(self, other: CostMeter) -> None:
        """Add the costs that another thread measured."""
        for stage_id, cost in other.costs.items():
            self._add(stage_id, *cost)

    def manifest(self) -> dict[str, object]:
        """Return the costs in the form of a manifest."""
        fields = tuple(StageCost.model_fields)
        return {"stages": {n: dict(zip(fields, c, strict=True)) for n, c in self.costs.items()}}

    def _add(self, stage_id: str, calls: int, seconds: float, cpu_seconds: float) -> None:
        so_far = self.costs.setdefault(stage_id, (0, 0.0, 0.0))
        self.costs[stage_id] = (
            so_far[0] + calls, so_far[1] + seconds, so_far[2] + cpu_seconds
        )  # fmt: skip


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
