"""GeoJSON in the coordinates of a scene: positions moved from pixels, and the CRS named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pesto_runtime.activities.features import DEPTHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import JsonValue

    from pesto_runtime.raster.image import Transform

_CRS84 = "urn:ogc:def:crs:OGC:1.3:CRS84"


def crs_member(crs: str | None) -> JsonValue:
    """The member `crs` as GDAL reads and writes it; None where the CRS has no EPSG code.

    RFC 7946 knows WGS 84 alone, x being the longitude: that is CRS84, for EPSG:4326 too.

    >>> crs_member("EPSG:32616")
    {'type': 'name', 'properties': {'name': 'urn:ogc:def:crs:EPSG::32616'}}
    """
    if crs is None or not crs.startswith("EPSG:"):
        return None
    code = crs.removeprefix("EPSG:")
    name = _CRS84 if code == "4326" else f"urn:ogc:def:crs:EPSG::{code}"
    return {"type": "name", "properties": {"name": name}}


def collection_text(features: Iterable[dict[str, JsonValue]], *, crs: str | None) -> Iterator[str]:
    """A FeatureCollection bit by bit: its head, then a line for each feature, then its tail.

    Its member `crs` is null, which assumes no CRS, where there is none with an EPSG code.
    """
    yield f'{{"type": "FeatureCollection",\n"crs": {json.dumps(crs_member(crs))},\n"features": ['
    for number, feature in enumerate(features):
        yield (",\n" if number else "\n") + json.dumps(feature, allow_nan=False)
    yield "\n]}\n"


def located(feature: JsonValue, transform: Transform | None) -> dict[str, JsonValue]:
    """A feature moved from pixels to where they lie; one without a transform stays in pixels.

    Args:
        feature: In pixels of a grid, x the column and y the row; not changed.
        transform: Affine coefficients (a, b, c, d, e, f) of the grid.
    """
    document = dict(feature) if isinstance(feature, dict) else {}
    geometry = document.pop("geometry", None)
    if isinstance(geometry, dict):
        geometry = _located(str(geometry["type"]), geometry["coordinates"], transform)
    document.pop("type", None)
    properties = document.pop("properties", None)
    named = {"id": document.pop("id")} if "id" in document else {}
    return {"type": "Feature", **named, "geometry": geometry, "properties": properties, **document}


def _located(kind: str, coordinates: JsonValue, transform: Transform | None) -> JsonValue:
    moved = _moved(coordinates, DEPTHS[kind], transform) if transform else coordinates
    return {"type": kind, "coordinates": moved}


def _moved(value: JsonValue, depth: int, transform: Transform) -> JsonValue:
    if not isinstance(value, list):
        return value
    if depth:
        return [_moved(each, depth - 1, transform) for each in value]
    x, y, *rest = value
    across, down = float(str(x)), float(str(y))
    a, b, c, d, e, f = transform
    return [a * across + b * down + c, d * across + e * down + f, *rest]
