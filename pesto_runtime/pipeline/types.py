"""Define the types of values in a pipeline: raster, vector or JSON value.

Types come from descriptions and scenes; pixels are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from pesto_runtime.contract import Description, Port, RasterContract, Reference, Scale, Scene, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

StageKind: TypeAlias = Literal["map", "reduce", "whole", "call"]


@dataclass(frozen=True, slots=True)
class RasterType:
    """The properties of a raster that are known before it is computed.

    Attributes:
        bands: Names in order, None for an unnamed band; None if their number is unknown.
        dtype: One dtype, several possible ones, or empty if it is unknown.
        nodata: None for a raster without nodata.
        scale: Pixels per pixel of the pipeline's scenes.
    """

    bands: tuple[str | None, ...] | None = None
    dtype: tuple[str, ...] = ()
    nodata: float | None = None
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class VectorType:
    """Features of each tile or of a whole raster; merged, they are a FeatureCollection.

    Attributes:
        schema: JSON Schema of the collection.
        scale: Pixels of their grid per pixel of the pipeline's scenes.
    """

    schema: Mapping[str, JsonValue]
    scale: Scale = Scale()


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
    """

    stage: Stage
    description: Description
    kind: StageKind
    rasters: Mapping[str, Reference]
    values: Mapping[str, Reference]
    literals: Mapping[str, JsonValue]
    makes: Mapping[str, ValueType]
    masks: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The stage's id."""
        return self.stage.id

    def reference(self, port: str) -> str:
        """Return the reference to one of its outputs, as in a binding."""
        return str(Reference(owner=self.id, port=port))


def scene_type(scene: Scene) -> RasterType:
    """Return the type of a scene."""
    return RasterType(scene.bands, (scene.dtype,), scene.nodata)


def image_scale(description: Description) -> Scale:
    """Return the output pixels per input pixel; all image outputs of a process have one scale."""
    rasters = [port.raster for port in description.outputs if port.kind == "image"]
    return next((raster.scale for raster in rasters if raster is not None), Scale())


def output_types(
    description: Description, first: RasterType | None, *, kind: StageKind
) -> dict[str, ValueType]:
    """Return the type of each output; undeclared properties are those of the first image input."""
    source = first or RasterType()
    scale = source.scale * image_scale(description)
    return {
        port.name: VectorType(port.schema, scale)
        if port.kind == "vector" and kind in ("map", "whole")
        else _output_type(port, source, per_tile=kind == "map")
        for port in description.outputs
    }


def _output_type(port: Port, source: RasterType, *, per_tile: bool) -> ValueType:
    if port.kind != "image":
        return JsonType(port.schema, per_tile)
    raster = port.raster or RasterContract()
    return replace(
        source,
        bands=source.bands if raster.bands is None else _bands(raster),
        dtype=raster.dtype or source.dtype,
        nodata=raster.nodata,
        scale=source.scale * raster.scale,
    )


def _bands(raster: RasterContract) -> tuple[str | None, ...]:
    return raster.band_names or (None,) * (raster.band_count or 1)
