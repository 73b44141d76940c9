"""Define the types of values in a pipeline: raster, vector or JSON value.

Types come from descriptions and scenes; pixels are not read.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from pesto_runtime.contract import (
    BandValues,
    Description,
    Port,
    RasterContract,
    Reference,
    Scale,
    Scene,
    Stage,
)
from pesto_runtime.contract.base import why_no_nodata
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

StageKind: TypeAlias = Literal["map", "reduce", "whole", "call"]


class GridPlace(NamedTuple):
    """The grid of a raster.

    Attributes:
        grid: The raster that defines the grid: its first image input. Empty for the grid of the
            pipeline's first image input.
        scale: Pixels of the raster per pixel of the grid.
    """

    grid: str = ""
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class RasterType:
    """The properties of a raster that are known before it is computed.

    Attributes:
        bands: Names in order, None for an unnamed band; None if their number is unknown.
        dtype: One dtype, several possible ones, or empty if it is unknown.
        nodata: None for a raster without nodata.
        scale: Pixels per pixel of its grid.
        in_order: Whether its user stated the order of its bands, which then counts where their
            names do not decide.
        values: Meaning of each band's numbers; empty if they are the physical values.
        scene: Image input whose place and dataset tags it has; empty for none.
        facts: 1-based numbers of the bands of that scene whose tags and colours its bands have;
            empty if it has none.
        lost: Facts of the scene that it should have and does not declare.
        mask: Image input whose mask marks its valid pixels; empty for none. It lies on the grid of
            that scene.
        grid: The raster that defines its grid; empty for the pipeline's first image input.
    """

    bands: tuple[str | None, ...] | None = None
    dtype: tuple[str, ...] = ()
    nodata: float | None = None
    scale: Scale = Scale()
    in_order: bool = False
    values: tuple[BandValues, ...] = ()
    scene: str = ""
    facts: tuple[int, ...] = ()
    lost: frozenset[str] = frozenset()
    mask: str = ""
    grid: str = ""

    def picked(self, places: Sequence[int]) -> RasterType:
        """Return the type of some of its bands, by 0-based index."""
        return replace(
            self,
            bands=None if self.bands is None else tuple(self.bands[i] for i in places),
            values=tuple(self.values[i] for i in places) if self.values else (),
            facts=tuple(self.facts[i] for i in places) if self.facts else (),
        )


@dataclass(frozen=True, slots=True)
class VectorType:
    """Features of each tile or of a whole raster; merged, they are a FeatureCollection.

    Attributes:
        schema: JSON Schema of the collection.
        scale: Pixels that their coordinates count, per pixel of their grid.
        grid: The raster that defines their grid; empty for the pipeline's first image input.
    """

    schema: Mapping[str, JsonValue]
    scale: Scale = Scale()
    grid: str = ""


@dataclass(frozen=True, slots=True)
class JsonType:
    """A JSON value.

    Attributes:
        schema: JSON Schema of the value.
        per_tile: Whether a map stage computes it: then each tile has one, and the scene has none.
    """

    schema: Mapping[str, JsonValue]
    per_tile: bool = False


GridType: TypeAlias = RasterType | VectorType
ValueType: TypeAlias = GridType | JsonType


@dataclass(frozen=True)
class BoundStage:
    """A stage whose bindings were checked.

    Attributes:
        stage: The stage of the pipeline.
        description: The description of its process.
        kind: How it runs; `call` if no image is bound.
        rasters: Image port -> the raster bound to it.
        values: Other port -> the value of the pipeline bound to it.
        literals: Other port -> the literal bound to it.
        makes: Output port -> its type.
        masks: Mask port -> the image port whose valid pixels it marks, if no raster is bound to it:
            `rasters` has that of the image port for it.
        grid: The raster that defines the grid of its rasters; empty for the main grid.
    """

    stage: Stage
    description: Description
    kind: StageKind
    rasters: Mapping[str, Reference]
    values: Mapping[str, Reference]
    literals: Mapping[str, JsonValue]
    makes: Mapping[str, ValueType]
    masks: Mapping[str, str] = field(default_factory=dict)
    grid: str = ""

    @property
    def id(self) -> str:
        """The stage's id."""
        return self.stage.id

    @property
    def is_folded(self) -> bool:
        """Whether it is a map with values that are folded over tiles."""
        return self.kind == "map" and bool(self.description.folds)

    @property
    def is_warp(self) -> bool:
        """Whether it resamples an image onto another grid, which the run does itself."""
        return self.description.is_warp

    @property
    def pixels(self) -> Mapping[str, Reference]:
        """Image port -> the raster bound to it, without those of which the grid alone counts."""
        if not self.is_warp:
            return self.rasters
        return {port: raster for port, raster in self.rasters.items() if port == "image"}

    def reference(self, port: str) -> str:
        """Return the reference to one of its outputs, as in a binding."""
        return f"${self.id}.{port}"  # a `Reference` would be validated first, for every tile


def scene_type(name: str, scene: Scene, *, scale: Scale = Scale(), grid: str = "") -> RasterType:
    """Return the type of a scene that is bound to an image input of this name.

    Args:
        name: The input.
        scene: Its facts.
        scale: Its pixels per pixel of its grid.
        grid: The raster that defines its grid.
    """
    return RasterType(
        scene.bands,
        (scene.dtype,),
        scene.nodata,
        in_order=scene.selection is not None and scene.selection.states_order,
        values=scene.values,
        scene=name,
        facts=tuple(range(1, len(scene.bands) + 1)),
        mask=name if scene.has_mask else "",
        scale=scale,
        grid=grid,
    )


def image_scale(description: Description) -> Scale:
    """Return the output pixels per input pixel; all image outputs of a process have one scale."""
    rasters = [port.raster for port in description.outputs if port.kind == "image"]
    return next((raster.scale for raster in rasters if raster is not None), Scale())


def output_types(
    description: Description, first: tuple[Port, RasterType] | None, *, kind: StageKind
) -> dict[str, ValueType]:
    """Return the type of each output.

    Args:
        description: Of the process.
        first: Its first image port that is bound, and the raster that is bound to it.
        kind: How it runs.
    """
    bound = first[1] if first else RasterType()
    scale = _step_scale(first) * image_scale(description)
    return {
        port.name: VectorType(port.schema, scale, bound.grid)
        if port.kind == "vector" and kind in ("map", "whole")
        else _image_type(port, bound, taken_type(bound, first[0].raster) if first else bound)
        if port.kind == "image"
        else JsonType(port.schema, kind == "map" and port.fold is None)
        for port in description.outputs
    }


def taken_type(source: RasterType, raster: RasterContract | None) -> RasterType:
    """Return the type of what an image port receives of a raster: its bands, `scaled` or not.

    Its scale is that of the stage's grid, which has `1 / ratio` of the port's pixels.
    """
    if raster is None:
        return source
    if not raster.ratio.is_one:
        source = replace(source, scale=source.scale / raster.ratio, mask="")
    with suppress(InvalidInput):  # reported where the raster is bound
        if source.bands is not None:
            numbers = raster.pick(source.bands, in_order=source.in_order)
            source = source if numbers is None else source.picked([n - 1 for n in numbers])
    if not raster.scaled:
        return source
    units = tuple(BandValues(unit=each.unit) for each in source.values)
    return replace(
        source,
        dtype=("float32",),
        nodata=math.nan,
        values=units if any(each.unit for each in units) else (),
    )


def made_type(raster: RasterContract, source: RasterType) -> RasterType:
    """Return the type of an image output: what it declares, and what it inherits.

    This is the one rule of what a product inherits. Bands and dtype that are not declared are those
    of the first image. If both are its own, also the meaning of the numbers, nodata, the mask, and
    the tags and colours of its bands are; if not, none of these.

    Args:
        raster: The contract of the output.
        source: What the first image port of the process receives.
    """
    bands = source.bands if raster.bands is None else _bands(raster)
    dtype = raster.dtype or source.dtype
    same = bands == source.bands and dtype == source.dtype
    values = source.values if same else ()
    if raster.values is not None:
        values = (raster.values,) * len(bands or ())
    return replace(
        source,
        bands=bands,
        dtype=dtype,
        nodata=_held_nodata(source) if same and raster.inherits_nodata else raster.nodata,
        scale=source.scale * raster.scale,
        in_order=source.in_order and raster.bands is None,
        values=values,
        facts=source.facts if same else (),
        mask=source.mask if same and raster.inherits_nodata and raster.scale == Scale() else "",
    )


def _step_scale(first: tuple[Port, RasterType] | None) -> Scale:
    """Return the scale of a stage's grid, from its first image port and the raster bound to it."""
    if first is None:
        return Scale()
    port, bound = first
    return bound.scale / port.raster.ratio if port.raster is not None else bound.scale


def _image_type(port: Port, bound: RasterType, taken: RasterType) -> RasterType:
    raster = port.raster or RasterContract()
    made = made_type(raster, taken)
    lost = {
        *bound.lost,
        *(["nodata"] if _held_nodata(bound) is not None else []),
        *_meanings(taken),
    }
    if made.nodata is not None or not raster.inherits_nodata:
        lost.discard("nodata")
    if made.values or raster.values is not None or raster.bands is not None:
        lost -= {"scale", "offset", "unit"}
    return replace(made, lost=frozenset(lost))


def _held_nodata(raster: RasterType) -> float | None:
    """Return nodata; None for a value that no pixel can have, which scenes may state."""
    return None if any(why_no_nodata(raster.nodata, d) for d in raster.dtype) else raster.nodata


def _meanings(raster: RasterType) -> Iterator[str]:
    """Yield the facts about the meaning of its numbers that a raster has."""
    for fact, default in (("scale", 1), ("offset", 0), ("unit", None)):
        if any(getattr(each, fact) != default for each in raster.values):
            yield fact


def _bands(raster: RasterContract) -> tuple[str | None, ...]:
    return raster.band_names or (None,) * (raster.band_count or 1)
