"""The verb `plan`: look at the inputs, check the pipeline against them, and cut it up. No run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline, Plan
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import file_href, looks_like_href
from pesto_runtime.pipeline import (
    PhaseCost,
    Sizing,
    make_plan,
    phase_cost,
    phases_of,
    raster_bytes,
    raster_sizes,
)
from pesto_runtime.raster.read import read_scene
from pesto_runtime.run.checking import PipelineInputs, check_pipeline
from pesto_runtime.tiling import tiles_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Phase
    from pesto_runtime.pipeline import Checked
    from pesto_runtime.run.services import Services


@dataclass(frozen=True)
class PhaseEstimate:
    """What a phase will take; nominal rates, good to a factor of three.

    Attributes:
        tiles: How many.
        chunks: How many tasks.
        bytes_read: Raw bytes of pixels of its sources, margins not counted.
        bytes_made: Raw bytes of pixels that it keeps.
        memory_bytes: For the tile that one worker has in hand.
        seconds: Of one worker.
    """

    tiles: int
    chunks: int
    bytes_read: int
    bytes_made: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Planned:
    """A plan, and what was found on the way.

    Attributes:
        plan: The plan.
        checked: The type check that it passed.
        estimates: Of every phase.
    """

    plan: Plan
    checked: Checked
    estimates: tuple[PhaseEstimate, ...]


def read_inputs(pipeline: Pipeline, given: Mapping[str, str]) -> PipelineInputs:
    """Turn inputs as written on a command line into scenes and values.

    An image is a path or an href; a string is taken as it is; all else is JSON.

    Raises:
        RasterUnreadable: a scene cannot be read.
        InvalidInput: a value is not JSON.
    """
    scenes, parameters = {}, {}
    for name, text in given.items():
        kind = pipeline.inputs.get(name)
        if kind == "image":
            href = text if looks_like_href(text) else file_href(Path(text))
            scenes[name] = read_scene(href)
        else:
            parameters[name] = text if kind in ("string", None) else _json(name, text)
    return PipelineInputs(scenes, parameters)


def plan(
    pipeline: Pipeline, services: Services, inputs: PipelineInputs, *, store: str, sizing: Sizing
) -> Planned:
    """Check and plan a run.

    Raises:
        InvalidPipeline: the pipeline does not check; with every error.
        GridMismatch: scenes are not on one grid.
        InvalidInput: no tile fits the memory.
    """
    checked = check_pipeline(pipeline, services, inputs=inputs)
    made = make_plan(
        pipeline,
        checked,
        services.services,
        scenes=inputs.scenes,
        parameters=inputs.parameters,
        store=store,
        sizing=sizing,
    )
    warnings = tuple(str(each) for each in (*services.changed, *checked.warnings))
    made = made.model_copy(update={"warnings": warnings})
    return Planned(made, checked, _estimates(made, checked))


def count_tiles(phase: Phase) -> int:
    """How many tiles a phase has."""
    return sum(1 for chunk in phase.chunks for _ in tiles_of(chunk, phase.tile))


def _estimates(plan: Plan, checked: Checked) -> tuple[PhaseEstimate, ...]:
    remote = {name for name, service in plan.services.items() if service.is_remote}
    grouped = phases_of(checked.stages, Pipeline.parse(plan.pipeline).outputs.values())
    found = []
    for phase, stages in zip(plan.phases, grouped, strict=True):
        cost = phase_cost(stages, checked.types, phase.size, remote=remote)
        found.append(_estimate(phase, cost, checked))
    return tuple(found)


def _estimate(phase: Phase, cost: PhaseCost, checked: Checked) -> PhaseEstimate:
    sizes = raster_sizes(checked.types, phase.size)

    def raw(names: tuple[str, ...]) -> int:
        return sum(raster_bytes(checked.types[name], sizes[name]) for name in names)

    return PhaseEstimate(
        tiles=count_tiles(phase),
        chunks=len(phase.chunks),
        bytes_read=raw(phase.sources),
        bytes_made=raw(phase.writes),
        memory_bytes=int(phase.tile[0] * phase.tile[1] * cost.pixel_bytes + cost.fixed_bytes),
        seconds=cost.seconds,
    )


def _json(name: str, text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"-i {name}={text}: not JSON ({error})") from error
    return value
