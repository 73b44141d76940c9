"""What flows along a binding: a raster of known bands and dtype, a vector, or a JSON value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from pesto_runtime.contract import Description, Port, RasterContract, Reference, Scale, Scene, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

StageKind: TypeAlias = Literal["map", "reduce", "whole", "call"]


@dataclass(frozen=True, slots=True)
class RasterType:
    """A raster, as far as it is known before it is there.

    Attributes:
        bands: Names in order, None for an unnamed one; None where not even their number is known.
        dtype: One, several it may have, or none where nothing is known.
        nodata: None for none.
        scale: Pixels per pixel of the pipeline's scenes.
    """

    bands: tuple[str | None, ...] | None = None
    dtype: tuple[str, ...] = ()
    nodata: float | None = None
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class VectorType:
    """Features made tile by tile, or on a whole raster: a FeatureCollection once they are merged.

    Attributes:
        schema: Of the collection.
        scale: Pixels of their grid per pixel of the pipeline's scenes.
    """

    schema: Mapping[str, JsonValue]
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class JsonType:
    """A JSON value.

    Attributes:
        schema: Of the value.
        per_tile: Whether a map stage makes it: then there is one a tile, and none of the scene.
    """

    schema: Mapping[str, JsonValue]
    per_tile: bool = False


GridType: TypeAlias = RasterType | VectorType
ValueType: TypeAlias = GridType | JsonType


@dataclass(frozen=True)
class BoundStage:
    """A stage whose bindings were checked.

    Attributes:
        stage: As the pipeline has it.
        description: Of its process.
        kind: How it runs: `call` where no image is bound.
        rasters: Image port -> the raster bound to it.
        values: Other port -> the value of the pipeline bound to it.
        literals: Other port -> the literal bound to it.
        makes: Output port -> its type.
    """

    stage: Stage
    description: Description
    kind: StageKind
    rasters: Mapping[str, Reference]
    values: Mapping[str, Reference]
    literals: Mapping[str, JsonValue]
    makes: Mapping[str, ValueType]

    @property
    def id(self) -> str:
        """The stage's id."""
        return self.stage.id

    def reference(self, port: str) -> str:
        """How a binding names one of its outputs."""
        return str(Reference(owner=self.id, port=port))


def scene_type(scene: Scene) -> RasterType:
    """The type of a raster that is there."""
    return RasterType(scene.bands, (scene.dtype,), scene.nodata)


def image_scale(description: Description) -> Scale:
    """Output pixels per input pixel of a process: of its image outputs, which share one grid."""
    rasters = [port.raster for port in description.outputs if port.kind == "image"]
    return next((raster.scale for raster in rasters if raster is not None), Scale())


def output_types(
    description: Description, first: RasterType | None, *, kind: StageKind
) -> dict[str, ValueType]:
    """Output -> its type; what its contract leaves open is as the first image input has it."""
    given = first or RasterType()
    scale = given.scale * image_scale(description)
    return {
        port.name: VectorType(port.schema, scale)
        if port.kind == "vector" and kind in ("map", "whole")
        else _output_type(port, given, per_tile=kind == "map")
        for port in description.outputs
    }


def _output_type(port: Port, given: RasterType, *, per_tile: bool) -> ValueType:
    if port.kind != "image":
        return JsonType(port.schema, per_tile)
    raster = port.raster or RasterContract()
    return replace(
        given,
        bands=given.bands if raster.bands is None else _bands(raster),
        dtype=raster.dtype or given.dtype,
        nodata=raster.nodata,
        scale=given.scale * raster.scale,
    )


def _bands(raster: RasterContract) -> tuple[str | None, ...]:
    return raster.band_names or (None,) * (raster.band_count or 1)
