"""Features of a tile: read from the GeoJSON that a process gave, and put in their place for good.

Positions become whole multiples of 2**-20 pixel of the grid that the whole scene shares. Adding a
window's offset to them is then exact, so that a feature has the same owner whichever window it was
found in. Positions that a float's last bits tell apart (10 1/3 in one window, 210 1/3 in another)
come out equal: a ratio of numbers below some 100 000 is farther than that from where the rounding
turns, or exactly there in both. What is written are multiples of 1/1024 pixel, so that it takes
more noise than that, and rarely then, to see in which window a feature was found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import BLOCK, GEOMETRIES
from pesto_runtime.errors import ContractBroken, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Window
    from pesto_runtime.tiling import BlockIndex, Size

FINE = 1 << 20
"""Steps of a position per pixel, where it is decided who owns it."""

UNITS = 1 << 10
"""Steps of a coordinate per pixel, where it is written."""

_FARTHEST = 1 << 31
DEPTHS: Mapping[str, int] = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""How many lists are around a position, by type of geometry."""

_OF_A_WINDOW = ("bbox", "crs")


@dataclass(frozen=True, slots=True)
class WindowPlacement:
    """Where the window that a process was given lies.

    Attributes:
        col_off: Column of its first pixel in the grid; negative where a mirror was put around it.
        row_off: Row of its first pixel.
        size: Width and height of the grid, pixels.
        is_mirrored: Whether what lies beyond the grid is a mirror: features there are dropped, and
            owned by the nearest pixel otherwise.
    """

    col_off: int
    row_off: int
    size: Size
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Feature:
    """A feature in the grid of the scene; features sort row-major by their points, then by content.

    The representative point is a Point itself, and the centre of the bounding box of anything
    else: that needs no division, and neither a ring's first vertex nor its direction moves it.

    Attributes:
        point: The representative point (row, col), in steps of 1/1024 pixel.
        content: The feature as JSON, keys sorted; coordinates in pixels of the grid.
        pixel: The pixel (row, col) that owns it.
        is_beyond: Whether it lies outside the grid; the nearest pixel owns it then.
    """

    point: tuple[int, int]
    content: str
    pixel: tuple[int, int]
    is_beyond: bool = False

    @property
    def block(self) -> BlockIndex:
        """The product block (row, col) that holds it."""
        return (self.pixel[0] // BLOCK, self.pixel[1] // BLOCK)

    def is_within(self, window: Window) -> bool:
        """Whether a window of the grid owns it; of windows that do not overlap, one does."""
        row, col = self.pixel
        return window.row_off <= row < window.row_stop and window.col_off <= col < window.col_stop


def read_features(
    collection: object, placement: WindowPlacement, *, geometries: tuple[str, ...] = (), name: str
) -> tuple[Feature, ...]:
    """Put the features of a FeatureCollection in their place.

    Members `bbox` and `crs` are of the window, and dropped. All others stay as they are.

    Args:
        collection: GeoJSON in pixels of the window, x the column, y the row, (0, 0) the top left
            corner of its first pixel.
        placement: Of the window.
        geometries: Types that the contract names; empty for any.
        name: Of the value, for messages.

    Raises:
        ContractBroken: not a FeatureCollection, or a feature without a place, of another type of
            geometry, or farther than any pixel can be.
    """
    features = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(features, list):
        raise ContractBroken(
            f"{name} must be a GeoJSON FeatureCollection, with a list of `features`, empty where "
            f"there are none; got {shortened(collection)}"
        )
    placed = []
    for index, each in enumerate(features):
        feature = _placed(each, placement, geometries, f"{name}, /features/{index}")
        if not (placement.is_mirrored and feature.is_beyond):
            placed.append(feature)
    return tuple(placed)


def _placed(
    document: object, placement: WindowPlacement, geometries: tuple[str, ...], where: str
) -> Feature:
    geometry = document.get("geometry") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(geometry, dict):
        raise ContractBroken(
            f"{where} has no place: a feature is an object with a `geometry`, not "
            f"{shortened(document)}"
        )
    kind = geometry.get("type")
    if kind not in (geometries or GEOMETRIES):
        raise ContractBroken(
            f"{where}/geometry is a {shortened(kind)}; it must be one of "
            f"{', '.join(geometries or GEOMETRIES)}"
        )
    corners: list[tuple[int, int]] = []
    moved = _moved(
        geometry.get("coordinates"), DEPTHS[kind], placement, corners, f"{where}/geometry"
    )
    if not corners:
        raise ContractBroken(f"{where}/geometry has no coordinates, and so no place")
    told = {key: value for key, value in document.items() if key not in _OF_A_WINDOW}
    told["geometry"] = {"type": kind, "coordinates": moved}
    row, col = (min(axis) + max(axis) for axis in zip(*corners, strict=True))
    pixel = (row // (2 * FINE), col // (2 * FINE))
    owner = (_within(pixel[0], placement.size[1]), _within(pixel[1], placement.size[0]))
    point = (_written(row // 2), _written(col // 2))
    return Feature(point, _canonical(told, where), owner, pixel != owner)


def _within(index: int, count: int) -> int:
    return min(max(index, 0), count - 1)


def _canonical(document: dict[str, JsonValue], where: str) -> str:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError) as error:  # a service's JSON may hold NaN all the same
        raise ContractBroken(f"{where} is not JSON: {error}") from error


def _moved(
    value: object,
    depth: int,
    placement: WindowPlacement,
    corners: list[tuple[int, int]],
    where: str,
) -> JsonValue:
    """Coordinates in the grid; every position of them is noted, (row, col), in steps."""
    if not isinstance(value, list):
        raise ContractBroken(f"{where}: {shortened(value)} is no list of coordinates")
    if depth:
        return [_moved(each, depth - 1, placement, corners, where) for each in value]
    if len(value) < 2 or not all(map(_is_near, value)):
        raise ContractBroken(f"{where}: {shortened(value)} is no position [x, y] in pixels")
    x = round(value[0] * FINE) + placement.col_off * FINE
    y = round(value[1] * FINE) + placement.row_off * FINE
    corners.append((y, x))
    return [_in_pixels(_written(x)), _in_pixels(_written(y)), *value[2:]]


def _is_near(number: object) -> bool:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    return abs(number) < _FARTHEST  # not so of not-a-number either


def _written(fine: int) -> int:
    """A position in the steps in which it is written; halves go up."""
    return (2 * fine * UNITS + FINE) // (2 * FINE)


def _in_pixels(units: int) -> float:
    return units // UNITS if units % UNITS == 0 else units / UNITS
