"""List the windows of every tile of a plan, for `pesto plan --tiles`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.pipeline import JsonType, phase_chain
from pesto_runtime.run.context import context_of
from pesto_runtime.run.tile_values import windows_of_values
from pesto_runtime.tiling import scaled_window, tiles_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan, Window
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.tiling import Chain


def tile_windows(plan: Plan) -> Iterator[dict[str, JsonValue]]:
    """Yield the windows of each tile of the phases that have tiles.

    Yields:
        `phase` (from 1), `tile` (in pixels of its grid), and for each stage `reads` and `makes`:
        reference of a raster -> window in its own pixels, margins included.
    """
    context = context_of(plan)
    for number, phase in enumerate(plan.phases):
        if phase.kind != "map":
            continue
        chain = phase_chain(context.phases[number], context.types, context.sizes)
        for chunk in phase.chunks:
            for tile in tiles_of(chunk, phase.tile):
                yield {
                    "phase": number + 1,
                    "tile": list(tile),
                    "stages": _stages(context, number, chain, tile),
                }


def _stages(context: RunContext, number: int, chain: Chain, tile: Window) -> JsonValue:
    phase = context.phases[number]
    reduced = {str(name) for stage in phase.reduces for name in stage.rasters.values()}
    wanted = {
        name: scaled_window(tile, kind.scale)
        for name in {*phase.writes, *reduced}
        if not isinstance(kind := context.types[name], JsonType)
    }
    wanted |= windows_of_values(context, phase.stages, tile)
    windows = chain.windows(wanted).steps
    steps = {step.name: step for step in chain.steps}
    found: dict[str, JsonValue] = {}
    for stage in phase.stages:
        if stage.id not in windows:
            continue
        own, step = windows[stage.id], steps[stage.id]
        reads = step.read(chain.grid(step), chain.sizes, own.read)
        if stage.is_warp:
            from pesto_runtime.run.warped import warp_of  # loads pyproj

            warp = warp_of(context, stage)
            source = str(stage.rasters["image"])
            reads = {source: warp.source_window(warp.places(own.read))}
        found[stage.id] = {
            "reads": {name: list(window) for name, window in reads.items()},
            "makes": {name: list(own.keep) for name in step.makes if name != stage.id},
        }
    return found
