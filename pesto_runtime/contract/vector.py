"""The contract of a vector port, as `x-vector` carries it beside the port's JSON schema."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, WithJsonSchema

from pesto_runtime.contract.raster import Value

GeometryType: TypeAlias = Literal[
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"
]
GEOMETRIES: tuple[GeometryType, ...] = get_args(GeometryType)
"""What GeoJSON knows of geometries, but collections of them."""


def _geometries(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _one_or_list(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


class VectorContract(Value):
    """What a vector port gives: a GeoJSON FeatureCollection in pixels of the window it was given.

    x is the column and y the row; (0, 0) is the top left corner of the first pixel of the window,
    margin included, and (0.5, 0.5) that pixel's centre. Where the process also makes images of
    another scale, they are pixels of those.
    """

    geometry: Annotated[
        tuple[GeometryType, ...],
        BeforeValidator(_geometries),
        PlainSerializer(_one_or_list),
        WithJsonSchema({"oneOf": [
            {"enum": list(GEOMETRIES)},
            {"type": "array", "items": {"enum": list(GEOMETRIES)}},
        ]}),
    ] = Field(default=(), description="One type of geometry, or several.")  # fmt: skip

    def to_json(self) -> dict[str, JsonValue]:
        """Only what was declared, as `x-vector` carries it."""
        document: dict[str, JsonValue] = self.model_dump(mode="json", exclude_unset=True)
        return document
