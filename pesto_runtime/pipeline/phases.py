"""Group the stages of a pipeline into phases, which run one after the other.

Consecutive map stages and the reduces that read them form one phase with one fan-out. A stage that
needs a value of the whole scene, or a whole raster, starts the next phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pesto_runtime.contract import Margin
from pesto_runtime.pipeline.types import BoundStage, RasterType, VectorType, image_scale
from pesto_runtime.tiling import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pesto_runtime.contract import Description


@dataclass(frozen=True)
class PhaseStages:
    """Stages of one phase.

    Attributes:
        kind: `map`, `whole` or `call`.
        stages: Map stages in order, or the one whole or call stage.
        reduces: Reduces that read the phase's rasters.
        sources: Rasters and vectors read from outside the phase.
        writes: Rasters and vectors to store, for an output or for a later phase.
        grid: The raster that defines their grid; empty for the pipeline's first image input.
    """

    kind: Literal["map", "whole", "call"]
    stages: tuple[BoundStage, ...]
    reduces: tuple[BoundStage, ...]
    sources: tuple[str, ...]
    writes: tuple[str, ...]
    grid: str = ""

    @property
    def folded(self) -> tuple[BoundStage, ...]:
        """Its map stages with values that are folded over tiles."""
        return tuple(stage for stage in self.stages if stage.is_folded)

    @property
    def values(self) -> tuple[str, ...]:
        """Ids of the stages whose values exist when the phase is closed."""
        return tuple(stage.id for stage in (*self.folded, *self.reduces))


def phases_of(stages: Sequence[BoundStage], outputs: Iterable[str]) -> tuple[PhaseStages, ...]:
    """Group checked stages into phases, in the order in which they can run.

    Args:
        stages: In the pipeline's order; each reads inputs or earlier stages.
        outputs: References of the pipeline's outputs.
    """
    levels = _levels(stages)
    wanted = set(outputs)
    groups: list[tuple[Literal["map", "whole", "call"], list[BoundStage]]] = []
    for level in sorted(set(levels.values())):
        here = [stage for stage in stages if levels[stage.id] == level]
        groups += [("call", [stage]) for stage in here if stage.kind == "call"]
        groups += [("whole", [stage]) for stage in here if stage.kind == "whole"]
        tiled = [stage for stage in here if stage.kind in ("map", "reduce")]
        # A fan-out is over one grid.
        for grid in dict.fromkeys(stage.grid for stage in tiled):
            groups.append(("map", [stage for stage in tiled if stage.grid == grid]))
    vectors = {
        stage.reference(port)
        for stage in stages
        for port, output in stage.makes.items()
        if isinstance(output, VectorType)
    }
    return tuple(
        _phase(
            kind,
            members,
            wanted | _read_by(other for _, g in groups[n + 1 :] for other in g),
            vectors,
        )
        for n, (kind, members) in enumerate(groups)
    )


def read_later(phases: Sequence[PhaseStages], number: int) -> tuple[str, ...]:
    """Return the rasters of a phase that a later one reads."""
    wanted = {name for phase in phases[number + 1 :] for name in phase.sources}
    return tuple(name for name in phases[number].writes if name in wanted)


def steps_of(stages: Iterable[BoundStage]) -> tuple[Step, ...]:
    """Return the geometry of map stages: rasters read and written, and what their contracts say."""
    return tuple(
        step_of(
            stage.description,
            name=stage.id,
            # The windows of a warp's source are no windows of the grid of the chain.
            reads={}
            if stage.is_warp
            else {port: str(reference) for port, reference in stage.rasters.items()},
            makes=(*grids_of(stage), *([stage.id] if stage.is_folded else [])),
        )
        for stage in stages
    )


def step_of(
    description: Description,
    *,
    name: str = "",
    reads: Mapping[str, str] = {},
    makes: tuple[str, ...] = (),
) -> Step:
    """Return the geometry of a process, from the contracts of its image inputs together.

    Args:
        description: Of the process.
        name: Name of the step.
        reads: Image port -> the raster that is bound to it.
        makes: The rasters that it computes.
    """
    ports = (*description.image_inputs, *description.lists)
    rasters = [port.raster.at_ratio(description.ratio(port.name)) for port in ports if port.raster]
    limits = [raster.tile for raster in rasters if raster.tile is not None]
    is_mirrored = any(raster.edge == "reflect" for raster in rasters)
    # Without bound rasters, too, windows are whole pixels of all images.
    ratios = tuple(description.ratio(port) for port in reads or [port.name for port in ports])
    return Step(
        name=name,
        reads=tuple(reads.values()),
        makes=makes,
        margin=description.margin,
        align=math.lcm(*(raster.align for raster in rasters)),
        scale=image_scale(description),
        ratios=ratios if description.has_ratios else (),
        mirror=description.margin if is_mirrored else Margin(),
        is_filled=any(raster.fill is not None for raster in rasters),
        least=max((limit.fixed or limit.min or 1 for limit in limits), default=1),
        most=min((most for each in limits if (most := each.fixed or each.max)), default=None),
    )


def grids_of(stage: BoundStage) -> tuple[str, ...]:
    """Return references to the rasters and vectors that a stage computes."""
    return tuple(
        stage.reference(port)
        for port, output in stage.makes.items()
        if isinstance(output, (RasterType, VectorType))
    )


def _levels(stages: Sequence[BoundStage]) -> Mapping[str, int]:
    """Return for each stage the number of fan-outs that must end before it can start."""
    # A raster of a map stage can be read tile by tile on the same level. A JSON value or a merged
    # vector exists only after the fan-out, so its reader starts one level later.
    levels: dict[str, int] = {}
    by_id = {stage.id: stage for stage in stages}
    for stage in stages:
        after = [
            levels[reference.owner] + (0 if _share_a_phase(by_id[reference.owner], stage) else 1)
            for reference in stage.pixels.values()
            if reference.owner in levels
        ]
        after += [
            levels[reference.owner] + 1
            for reference in stage.values.values()
            if reference.owner in levels
        ]
        levels[stage.id] = max(after, default=0)
    return levels


def _share_a_phase(producer: BoundStage, reader: BoundStage) -> bool:
    is_tiled = producer.kind == "map" and reader.kind in ("map", "reduce")
    return is_tiled and not reader.is_warp  # which reads other windows than its tiles


def _read_by(stages: Iterable[BoundStage]) -> set[str]:
    return {
        str(reference)
        for stage in stages
        for reference in (*stage.pixels.values(), *stage.values.values())
    }


def _phase(
    kind: Literal["map", "whole", "call"],
    members: list[BoundStage],
    wanted: set[str],
    vectors: set[str],
) -> PhaseStages:
    computed = [name for stage in members if stage.kind != "reduce" for name in grids_of(stage)]
    read = [str(each) for stage in members for each in stage.pixels.values()]
    read += [str(each) for stage in members for each in stage.values.values()
             if str(each) in vectors]  # fmt: skip
    sources = dict.fromkeys(name for name in read if name not in computed)
    return PhaseStages(
        kind=kind,
        stages=tuple(stage for stage in members if stage.kind != "reduce"),
        reduces=tuple(stage for stage in members if stage.kind == "reduce"),
        sources=tuple(sources),
        writes=tuple(name for name in computed if name in wanted),
        grid=members[0].grid,
    )
