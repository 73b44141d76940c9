"""Compute random tiles of a finished run again, with other borders, and compare them.

A tile that is moved by half its size, and whose margins are doubled, has other pixels around each
output pixel. If a contract declares too little, the pixels at the old borders differ. Nothing is
stored here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Margin, Tolerance, Window
from pesto_runtime.errors import ContractBroken
from pesto_runtime.pipeline import RasterType, phase_chain
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.run.context import load_context, stored_blocks
from pesto_runtime.run.inputs import Sources
from pesto_runtime.run.records import CostMeter
from pesto_runtime.run.repairing import read_block
from pesto_runtime.run.stage import StageFailed
from pesto_runtime.run.tile import TileRunner, attempted, in_stage
from pesto_runtime.tiling import block_window, blocks_touching, scaled_window, tiles_of, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.tiling import Chain

_LEAST = Margin.of(8)
"""What a margin grows by at least: twice a margin of 0 is 0."""


def verify_tiles(plan_href: str, count: int) -> int:
    """Compute random tiles of map phases again, and compare them with what the run has stored.

    Rasters that only a reduce reads are not stored: such a tile is computed twice, as the run did
    and with doubled margins. Tiles that touch a hole are left out.

    Args:
        plan_href: Href of the plan.
        count: Number of tiles; all, if there are fewer. The run's key selects them.

    Returns:
        The number of tiles that were compared.

    Raises:
        ContractBroken: pixels differ by more than the contract permits; nothing may be published.
        PestoError: a tile cannot be computed, or a block cannot be read.
    """
    context = load_context(plan_href)
    phases = [_Phase(context, plan_href, n) for n, each in enumerate(context.phases)
              if count and each.kind == "map"]  # fmt: skip
    total = sum(len(list(phase.tiles())) for phase in phases)
    chosen = random.Random(context.plan.run).sample(range(total), min(count, total))  # noqa: S311  # no secret
    with raster_settings():
        return sum(phase.verify(tile) for phase, tile in _selected(phases, frozenset(chosen)))


def _selected(phases: list[_Phase], chosen: frozenset[int]) -> Iterator[tuple[_Phase, Window]]:
    tiles = ((phase, tile) for phase in phases for tile in phase.tiles())
    last = max(chosen, default=-1)
    for number, each in enumerate(islice(tiles, last + 1)):
        if number in chosen:
            yield each


@dataclass
class _Phase:
    """A map phase whose tiles are compared."""

    context: RunContext
    plan_href: str
    number: int

    def __post_init__(self) -> None:
        stages = self.context.phases[self.number]
        made = {stage.reference(port) for stage in stages.stages for port in stage.makes}
        read = {str(each) for stage in stages.reduces for each in stage.rasters.values()}
        names = sorted((made & read) | set(stages.writes))
        self.names = [n for n in names if isinstance(self.context.types[n], RasterType)]
        self.stored = {name: stored_blocks(self.context, name) for name in self.names
                       if name in stages.writes}  # fmt: skip
        chain = phase_chain(stages, self.context.types, self.context.sizes)
        self.runner = self._runner(chain)
        steps = [
            # A step that limits its windows has no room for more margin: other borders must do.
            step if step.most is not None
            else replace(step, margin=(step.margin + step.margin).union(step.margin + _LEAST))
            for step in chain.steps
        ]  # fmt: skip
        self.wider = self._runner(replace(chain, steps=tuple(steps)))

    def tiles(self) -> Iterator[Window]:
        """Yield the tiles of all chunks, in the grid of the scenes."""
        phase = self.context.plan.phases[self.number]
        for chunk in phase.chunks if self.names else ():
            yield from tiles_of(chunk, phase.tile)

    def verify(self, tile: Window) -> bool:
        """Compare one tile; False if it touches a hole."""
        windows = {name: self._window(name, tile) for name in self.names}
        while not self.wider.chain.fits(windows):
            tile = Window(*tile[:2], max(1, tile.width // 2), max(1, tile.height // 2))
            windows = {name: self._window(name, tile) for name in self.names}
        if any(
            index not in self.stored[name]
            for name in self.stored
            for index in blocks_touching(windows[name])
        ):
            return False
        unstored = {name: each for name, each in windows.items() if name not in self.stored}
        again = self._computed(self.wider, windows, tile)
        before = self._computed(self.runner, unstored, tile)
        for name, pixels in again.items():
            if name in self.stored:
                before[name] = self._stored_pixels(name, windows[name], pixels)
            self._require_equal(name, windows[name], before[name], pixels)
        return True

    def _window(self, name: str, tile: Window) -> Window:
        """Return the window of a raster to compare: a stored one moved by half a tile."""
        scale = self.context.grid_type(name).scale
        if name not in self.stored:
            return scaled_window(tile, scale)
        size = self.context.plan.phases[self.number].size
        right, down = tile.width // 2, tile.height // 2
        # To the left and up where the scene ends.
        moved = Window(
            tile.col_off + (right if tile.col_stop + right <= size[0] else -right),
            tile.row_off + (down if tile.row_stop + down <= size[1] else -down),
            tile.width,
            tile.height,
        )
        inside = moved.intersection(whole(size))
        return scaled_window(inside, scale).intersection(whole(self.context.sizes[name]))

    def _runner(self, chain: Chain) -> TileRunner:
        stages = self.context.phases[self.number].stages
        parameters = {stage.id: self.context.parameters(stage) for stage in stages}
        return TileRunner(
            self.context, chain, stages, Sources(self.context), parameters, CostMeter()
        )

    def _computed(self, runner: TileRunner, windows: Mapping[str, Window], tile: Window
                  ) -> dict[str, np.ndarray]:  # fmt: skip
        try:
            results, _ = attempted(lambda: runner.run(windows))
        except StageFailed as failure:
            raise in_stage(failure.error, failure.stage, tile) from failure
        return {name: each for name, each in results.items() if isinstance(each, np.ndarray)}

    def _stored_pixels(self, name: str, window: Window, like: np.ndarray) -> np.ndarray:
        """Return the stored pixels of a window, with the bands and the dtype of an array."""
        size = self.context.sizes[name]
        codec = BlockCodec(like.shape[0], like.dtype.name, self.context.plan.compression)
        pixels = np.empty_like(like)
        for index in blocks_touching(window):
            data = read_block(self.plan_href, name, index)
            block = block_window(index, size)
            part = window.intersection(block)
            rows, cols = part.relative_to(block).slices
            place = part.relative_to(window).slices
            pixels[(slice(None), *place)] = codec.decompress(data)[:, rows, cols]
        return pixels

    def _require_equal(
        self, name: str, window: Window, before: np.ndarray, again: np.ndarray
    ) -> None:
        owner = name.removeprefix("$").partition(".")[0]
        stages = self._up_to(owner)
        differs = _differs(before, again, _permitted(stages))
        if not differs.any():
            return
        with np.errstate(all="ignore"):
            largest = np.nanmax(np.abs(before.astype(complex) - again.astype(complex)))
        targets = dict.fromkeys(
            self.context.plan.services[stage.stage.process].targets[0] for stage in stages
        )
        raise ContractBroken(
            f"stage {owner!r}, window {list(window)}: {np.count_nonzero(differs.any(axis=0))} of "
            f"{window.pixels} pixels are others, by up to {largest:g}, when their tile has other "
            "borders and a doubled margin: a contract of this phase declares too small a margin "
            "or alignment, or the process cannot be tiled; nothing is published. Measure it: "
            + "; ".join(f"pesto probe {target}" for target in targets)
        )

    def _up_to(self, stage_id: str) -> list[BoundStage]:
        """Return the stages of the phase that can have changed the output of a stage."""
        stages = self.context.phases[self.number].stages
        ids = [stage.id for stage in stages]
        return list(stages[: ids.index(stage_id) + 1])


def _permitted(stages: list[BoundStage]) -> Tolerance:
    """Return the sum of the differences that the contracts of some stages permit."""
    declared = [
        port.raster.exactness
        for stage in stages
        for port in (*stage.description.inputs, *stage.description.outputs)
        if port.raster is not None and isinstance(port.raster.exactness, Tolerance)
    ]
    return Tolerance(
        rtol=sum(each.rtol for each in declared), atol=sum(each.atol for each in declared)
    )


def _differs(a: np.ndarray, b: np.ndarray, permitted: Tolerance) -> np.ndarray:
    """Return where two arrays (band, row, col) differ; NaN equals NaN."""
    same = (a == b) | ((a != a) & (b != b))  # noqa: PLR0124  # NaN differs from itself
    if permitted.rtol or permitted.atol:
        same |= np.isclose(b, a, rtol=permitted.rtol, atol=permitted.atol, equal_nan=True)
    return np.asarray(~same)
