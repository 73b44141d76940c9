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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.contract import BLOCK, GEOMETRIES
from pesto_runtime.errors import ContractBroken, shortened
from pesto_runtime.pipeline import image_scale
from pesto_runtime.raster.image import rescaled
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching, scaled_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port, Window
    from pesto_runtime.raster.image import Image, Transform


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


@dataclass
class FeatureBlock:
    """The features of a block, while its tiles come in.

    Attributes:
        index: (row, col) in the vector's grid.
        missing: Pixels whose tiles are not there yet.
        features: That the block owns.
        has_hole: Whether a tile of it failed.
    """

    index: BlockIndex
    missing: int
    features: list[Feature] = field(default_factory=list)
    has_hole: bool = False

    def encode(self) -> bytes:
        """The features as a JSON list, in their canonical order; never empty bytes."""
        return f"[{','.join(each.content for each in sorted(self.features))}]".encode()


def decode_block(data: bytes) -> list[JsonValue]:
    """Features of a block as it is kept, in pixels of the vector's grid."""
    features: list[JsonValue] = json.loads(data)
    return features


@dataclass
class FeatureBlocks:
    """Blocks of one vector within one chunk.

    Attributes:
        name: The vector's reference.
        size: Width and height of its grid.
        wanted: Blocks to gather; features of others are let go.
    """

    name: str
    size: Size
    wanted: set[BlockIndex]
    _open: dict[BlockIndex, FeatureBlock] = field(default_factory=dict)

    def wants(self, window: Window) -> bool:
        """Whether any block that is still wanted has a pixel in the window."""
        return any(index in self.wanted for index in blocks_touching(window))

    def add(self, window: Window, features: Iterable[Feature]) -> Iterator[FeatureBlock]:
        """Take those features of a tile that its window owns; yield the blocks that became whole.

        Args:
            window: What the tile writes, its margin not included, in the vector's grid.
            features: All that were found, those in the margin too.
        """
        blocks = {block.index: block for block in self._touched(window)}
        for feature in features:
            if feature.block in blocks and feature.is_within(window):
                blocks[feature.block].features.append(feature)
        for block in blocks.values():
            yield from self._written(block, window)

    def spoil(self, window: Window) -> Iterator[FeatureBlock]:
        """Take note that a tile failed, and yield the blocks that became whole."""
        for block in list(self._touched(window)):
            block.has_hole = True
            yield from self._written(block, window)

    def _touched(self, window: Window) -> Iterator[FeatureBlock]:
        for index in blocks_touching(window):
            if index in self.wanted:
                pixels = block_window(index, self.size).pixels
                yield self._open.setdefault(index, FeatureBlock(index, pixels))

    def _written(self, block: FeatureBlock, window: Window) -> Iterator[FeatureBlock]:
        block.missing -= block_window(block.index, self.size).intersection(window).pixels
        if not block.missing:
            del self._open[block.index]
            self.wanted.discard(block.index)
            yield block


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
    moved = _moved_positions(coordinates, DEPTHS[kind], transform) if transform else coordinates
    return {"type": kind, "coordinates": moved}


def _moved_positions(value: JsonValue, depth: int, transform: Transform) -> JsonValue:
    if not isinstance(value, list):
        return value
    if depth:
        return [_moved_positions(each, depth - 1, transform) for each in value]
    x, y, *rest = value
    across, down = float(str(x)), float(str(y))
    a, b, c, d, e, f = transform
    return [a * across + b * down + c, d * across + e * down + f, *rest]


def whole_collection(description: Description, port: Port, value: JsonValue, image: Image) -> str:
    """A vector output as GeoJSON in the CRS of the image that it was found in.

    Raises:
        ContractBroken: it is no FeatureCollection of what the port says.
    """
    _, rows, cols = image.pixels.shape
    scale = image_scale(description)
    features = read_features(
        value,
        WindowPlacement(0, 0, scaled_size((cols, rows), scale)),
        geometries=port.vector.geometry if port.vector else (),
        name=f"output {port.name!r}",
    )
    place = image.transform and rescaled(image.transform, float(scale.x), float(scale.y))
    ordered = sorted(features, key=lambda each: (each.block, each))
    found = (located(json.loads(each.content), place) for each in ordered)
    return "".join(collection_text(found, crs=image.crs))
