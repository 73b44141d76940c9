"""Find the window of a raster that covers an area on Earth."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.warp import transform as reproject

from pesto_runtime.contract import Window
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.raster.read import read_scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import ImageReference

_STEPS = 20
"""Points on each side of an area: a straight line is curved in another projection."""
_SLACK = 1e-6
"""Part of a pixel by which a side may exceed a pixel's edge: the error of a projection."""
_ORDER = "a bbox is west,south,east,north in degrees, and GeoJSON has longitude before latitude"
_CRS84 = "OGC:CRS84"


def window_of_area(image: ImageReference, area: JsonValue) -> Window:
    """Return the smallest window of a raster that covers the part of an area that is in it.

    Args:
        image: The raster.
        area: `[west, south, east, north]` in degrees, or GeoJSON: of longitudes and latitudes
            (RFC 7946), unless a `crs` member names another CRS.

    Raises:
        InvalidInput: it is not an area, the raster has no place on Earth, or they do not meet.
        RasterUnreadable: the raster cannot be read.
    """
    scene = read_scene(image)
    if scene.crs is None or scene.transform is None:
        raise InvalidInput(f"{scene.href} has no place on Earth: give pixels, by --window")
    crs = _crs_of(area)
    places = [*_projected(crs, CRS.from_user_input(scene.crs), _points(area))]
    if not places:
        raise InvalidInput(
            f"the area {shortened(area)} is outside of the projection of {scene.href}; {_ORDER}"
        )
    inverse = ~Affine(*scene.transform)
    columns, rows = zip(*(inverse * place for place in places), strict=True)
    left, right = _covered(columns, scene.width)
    top, bottom = _covered(rows, scene.height)
    if left >= right or top >= bottom:
        raise InvalidInput(f"the area {shortened(area)} does not meet {scene.href}; {_ORDER}")
    return Window(left, top, right - left, bottom - top)


def _covered(places: Sequence[float], size: int) -> tuple[int, int]:
    start, stop = math.floor(min(places) + _SLACK), math.ceil(max(places) - _SLACK)
    return max(0, start), min(size, stop)


def _projected(
    source: CRS, target: CRS, points: Iterable[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    """Yield points in another CRS, without those that the projection does not have."""
    for x, y in points:
        try:
            (u,), (v,) = reproject(source, target, [x], [y])
        except CPLE_BaseError:  # rasterio does not wrap GDAL's errors of a projection
            continue
        if math.isfinite(u) and math.isfinite(v):
            yield u, v


def _crs_of(area: JsonValue) -> CRS:
    named = area.get("crs") if isinstance(area, dict) else None
    properties = named.get("properties") if isinstance(named, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else _CRS84
    try:
        return CRS.from_user_input(name)
    except CRSError as error:
        raise InvalidInput(f"the area has an unknown crs {shortened(name)}") from error


def _points(area: JsonValue) -> Iterator[tuple[float, float]]:
    """Yield the points of an area; the sides of polygons and lines in small steps."""
    lines = list(_lines(area))
    if not lines:
        raise InvalidInput(
            f"{shortened(area)} is neither [west, south, east, north] nor a GeoJSON geometry"
        )
    for line in lines:
        yield line[0]
        for (x, y), (u, v) in pairwise(line):
            for step in range(1, _STEPS + 1):
                yield x + (u - x) * step / _STEPS, y + (v - y) * step / _STEPS


def _lines(area: JsonValue) -> Iterator[list[tuple[float, float]]]:
    if isinstance(area, list) and len(area) == 4 and all(_is_number(each) for each in area):
        west, south, east, north = (float(str(each)) for each in area)
        if west >= east or south >= north:
            raise InvalidInput(
                f"bbox {shortened(area)} must have west < east and south < north, in degrees"
            )
        yield [(west, south), (east, south), (east, north), (west, north), (west, south)]
    elif isinstance(area, dict):
        for key in ("features", "geometries"):
            members = area.get(key)
            for each in members if isinstance(members, list) else ():
                yield from _lines(each)
        if isinstance(area.get("geometry"), dict):
            yield from _lines(area["geometry"])
        yield from _of_coordinates(area.get("coordinates"))


def _of_coordinates(value: JsonValue) -> Iterator[list[tuple[float, float]]]:
    """Yield each line in nested coordinates: a point is a line of one point."""
    if not isinstance(value, list) or not value:
        return
    if _is_point(value):
        yield [_point(value)]
    elif all(_is_point(each) for each in value):
        yield [_point(each) for each in value]
    else:
        for each in value:
            yield from _of_coordinates(each)


def _is_point(value: JsonValue) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(_is_number(each) for each in value)


def _point(value: JsonValue) -> tuple[float, float]:
    x, y = value[:2] if isinstance(value, list) else (0, 0)
    return float(str(x)), float(str(y))


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
