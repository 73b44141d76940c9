"""Define the contract of a vector port (`x-vector`): features in pixels of a window."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, WithJsonSchema

from pesto_runtime.contract.base import Value
from pesto_runtime.contract.raster import one_or_list

GeometryType: TypeAlias = Literal[
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"
]
GEOMETRIES: tuple[GeometryType, ...] = get_args(GeometryType)
"""Geometry types of GeoJSON (RFC 7946), without GeometryCollection."""


def _geometries(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class VectorContract(Value):
    """What a vector port gives: a GeoJSON FeatureCollection in pixels of the window it was given.

    x is the column and y the row; (0, 0) is the top left corner of the first pixel of the window,
    margin included, and (0.5, 0.5) that pixel's centre. Where the process also makes images of
    another scale, they are pixels of those.
    """

    geometry: Annotated[
        tuple[GeometryType, ...],
        BeforeValidator(_geometries),
        PlainSerializer(one_or_list),
        WithJsonSchema({"oneOf": [
            {"enum": list(GEOMETRIES)},
            {"type": "array", "items": {"enum": list(GEOMETRIES)}},
        ]}),
    ] = Field(default=(), description="One type of geometry, or several.")  # fmt: skip

    def to_json(self) -> dict[str, JsonValue]:
        """Return only the declared fields, in the form of `x-vector`."""
        document: dict[str, JsonValue] = self.model_dump(mode="json", exclude_unset=True)
        return document
