"""Find the rasters of a pipeline that share a grid, and their ratios, from contracts alone.

A stage joins the rasters that it reads and makes. So phases and types do not depend on scenes; a
scene that does not have the size and place of its grid is refused when the run is planned.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.contract import Reference, Scale, parse_binding
from pesto_runtime.contract.image_lists import counts_of
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.pipeline.list_bindings import descriptions_of, spread_pipeline
from pesto_runtime.pipeline.types import GridPlace, image_scale
from pesto_runtime.pipeline.warps import warp_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline, Stage
    from pesto_runtime.pipeline.list_bindings import SpreadPipeline


def input_grids(spread: SpreadPipeline, by_process: Mapping[str, Description]) -> Grids:
    """Return the grids of a pipeline.

    Args:
        spread: The pipeline, with single images in place of lists.
        by_process: Process name -> description; absent where it is not known.
    """
    pipeline, descriptions = spread.pipeline, descriptions_of(spread, by_process)
    grids = Grids()
    warps = False
    inputs = [str(Reference(owner="inputs", port=name))
              for name, kind in pipeline.inputs.items() if kind == "image"]  # fmt: skip
    for name in inputs:
        grids.add(name)
    for stage in pipeline.stages:
        if stage.id in descriptions:
            warps |= descriptions[stage.id].is_warp
            grids.join(_rasters(stage, descriptions[stage.id]))
    # Without a warp, inputs that no stage joins are on one grid, as all scenes of such a run are.
    if not warps:
        grids.join((name, grids.place(name).scale) for name in inputs)
    return grids


def places_of_images(
    pipeline: Pipeline, descriptions: Mapping[str, Description], images: Iterable[str]
) -> dict[str, GridPlace]:
    """Return the place of each image among the inputs of a pipeline, also those of lists.

    Args:
        pipeline: The pipeline; its inputs have types.
        descriptions: Process name -> description.
        images: Names of the images.
    """
    named = tuple(images)
    spread = spread_pipeline(pipeline, descriptions, counts_of(named))
    grids = input_grids(spread, descriptions)
    return {name: grids.place(f"$inputs.{name}") for name in named}


@dataclass(frozen=True)
class Grids:
    """Groups of rasters on one grid, by their references, in the order of their first rasters."""

    _groups: dict[str, dict[str, Scale]] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """Add a raster; it is on a grid of its own until it is joined."""
        self._groups.setdefault(name, {name: Scale()})

    def place(self, name: str) -> GridPlace:
        """Return the grid of a raster."""
        group = self._groups[name]
        first = next(iter(group))
        is_main = first == next(iter(self._groups))
        return GridPlace("" if is_main else first, group[name] / group[first])

    def join(self, rasters: Iterable[tuple[str, Scale]]) -> None:
        """Put rasters on one grid.

        Args:
            rasters: References, each with its pixels per pixel of a grid that they share. A
                contradiction to an earlier call is ignored: a check of bindings reports it.
        """
        first: tuple[str, Scale] | None = None
        for name, ratio in rasters:
            self.add(name)
            if first is None:
                first = (name, ratio)
                continue
            group, other = self._groups[first[0]], self._groups[name]
            if group is other:
                continue
            # The members of `other` in the unit of `group`.
            unit = group[first[0]] / first[1] * ratio / other[name]
            earlier, later, factor = group, other, unit
            if not self._is_before(group, other):
                earlier, later, factor = other, group, Scale() / unit
            earlier |= {each: scale * factor for each, scale in later.items()}
            self._groups.update(dict.fromkeys(later, earlier))

    def _is_before(self, one: Mapping[str, Scale], other: Mapping[str, Scale]) -> bool:
        firsts = {next(iter(one)), next(iter(other))}
        return next(name for name in self._groups if name in firsts) in one


def _rasters(stage: Stage, description: Description) -> Iterator[tuple[str, Scale]]:
    """Yield the rasters of a stage, each with its pixels per pixel of the stage's grid."""
    if description.is_warp:
        yield from _warped(stage)
        return
    for name, value in stage.inputs.items():
        port = description.input(name)
        if port is None or port.kind != "image":
            continue
        if reference := _reference(value):
            yield reference, description.ratio(name)
    if description.tileable in ("map", "whole"):
        for port in description.outputs:
            if port.kind in ("image", "vector"):
                made = Reference(owner=stage.id, port=port.name)
                yield str(made), image_scale(description)


def _warped(stage: Stage) -> Iterator[tuple[str, Scale]]:
    """Yield the image that a warp makes, and the one whose grid it has."""
    if like := _reference(stage.inputs.get("like")):
        yield like, Scale()
    yield str(Reference(owner=stage.id, port="image")), warp_ratio(stage.inputs.get("ratio"))


def _reference(value: JsonValue) -> str:
    with suppress(InvalidPipeline):  # reported where the stage is bound
        return str(parse_binding(value) or "")
    return ""
