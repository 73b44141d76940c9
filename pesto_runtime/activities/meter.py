"""What the calls of a chunk's stages cost; belongs to one thread."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.contract import StageCost

if TYPE_CHECKING:
    from collections.abc import Iterator


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
