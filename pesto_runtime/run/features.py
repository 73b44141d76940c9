"""Read the features of a tile, move them into the grid of the scene, and collect them in blocks.

Each feature belongs to exactly one pixel, which must not depend on the tile that found it. So
positions are rounded to multiples of 2**-20 pixel of the scene's grid: adding the offset of a
window is then exact. Positions that differ only in the last bits of a float (10 1/3 in one window,
210 1/3 in another) become equal: a ratio of integers below about 100 000 either is farther than
such a bit from a rounding boundary, or lies on it in every window. Coordinates are written as
multiples of 1/1024 pixel, so that noise below that rarely shows in the file.

This file writes GeoJSON as text; it does not write files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.contract import BLOCK, GEOMETRIES
from pesto_runtime.contract.geometry import rescaled
from pesto_runtime.errors import ContractBroken, shortened
from pesto_runtime.pipeline import image_scale
from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching, scaled_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port, Window
    from pesto_runtime.contract.geometry import Transform
    from pesto_runtime.raster.image import Image


_FINE = 1 << 20
"""Steps of a position per pixel, for the decision which pixel owns a feature."""

_UNITS = 1 << 10
"""Steps of a coordinate per pixel in the stored GeoJSON."""

# A position below 2**31 pixels is below 2**51 steps: a float, with 53 bits, has every such integer.
_FARTHEST = 1 << 31

_DEPTHS: Mapping[str, int] = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""Number of lists around a position, by type of geometry."""

_WINDOW_MEMBERS = ("bbox", "crs")
_CRS84 = "urn:ogc:def:crs:OGC:1.3:CRS84"


@dataclass(frozen=True, slots=True)
class WindowPlacement:
    """The place of the input window of a process in the grid.

    Attributes:
        col_off: Column of its first pixel in the grid; negative if it begins before the grid.
        row_off: Row of its first pixel.
        size: Width and height of the grid, pixels.
        is_extended: Whether pixels beyond the grid are mirrored or filled. Then features there are
            dropped; otherwise the nearest pixel owns them.
    """

    col_off: int
    row_off: int
    size: Size
    is_extended: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Feature:
    """A feature in the grid of the scene; features sort row-major by their points, then by content.

    The representative point of a Point is the point, and of other geometries the centre of the
    bounding box. The centre is exact in the steps, and does not depend on the first vertex or the
    direction of a ring.

    Attributes:
        point: The representative point (row, col), in steps of 1/1024 pixel.
        content: The feature as JSON, keys sorted; coordinates in pixels of the grid.
        pixel: The pixel (row, col) that owns it.
        is_beyond: Whether it lies outside the grid; then the nearest pixel owns it.
    """

    point: tuple[int, int]
    content: str
    pixel: tuple[int, int]
    is_beyond: bool = False

    @property
    def block(self) -> BlockIndex:
        """The product block (row, col) that contains it."""
        return (self.pixel[0] // BLOCK, self.pixel[1] // BLOCK)

    def is_within(self, window: Window) -> bool:
        """Whether a window of the grid owns it; only one of several disjoint windows does."""
        row, col = self.pixel
        return window.row_off <= row < window.row_stop and window.col_off <= col < window.col_stop


def read_features(
    collection: object, placement: WindowPlacement, *, geometries: tuple[str, ...] = (), name: str
) -> tuple[Feature, ...]:
    """Move the features of a FeatureCollection from a window into the grid of the scene.

    The members `bbox` and `crs` describe the window, and are dropped. All others are preserved.

    Args:
        collection: GeoJSON in pixels of the window, x the column, y the row, (0, 0) the top left
            corner of its first pixel.
        placement: The place of the window.
        geometries: Types of geometry in the contract; empty for any.
        name: Name of the value, for messages.

    Raises:
        ContractBroken: not a FeatureCollection, or a feature without coordinates, of another type
            of geometry, or with coordinates of 2**31 pixels or more.
    """
    features = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(features, list):
        raise ContractBroken(
            f"{name} must be a GeoJSON FeatureCollection, with a list of `features`, which may be "
            f"empty; got {shortened(collection)}"
        )
    placed = (
        _placed(each, placement, geometries, f"{name}, /features/{index}")
        for index, each in enumerate(features)
    )
    return tuple(each for each in placed if not (placement.is_extended and each.is_beyond))


@dataclass
class FeatureBlocks:
    """Collects the features of one vector in one chunk into blocks.

    Attributes:
        name: The vector's reference.
        size: Width and height of its grid.
        wanted: Blocks to collect; features of other blocks are dropped.
    """

    name: str
    size: Size
    wanted: set[BlockIndex]
    _open: dict[BlockIndex, FeatureBlock] = field(default_factory=dict)

    def wants(self, window: Window) -> bool:
        """Whether a wanted block has a pixel in the window."""
        return any(index in self.wanted for index in blocks_touching(window))

    def add(self, window: Window, features: Iterable[Feature]) -> Iterator[FeatureBlock]:
        """Add the features that the window of a tile owns, and yield the complete blocks.

        Args:
            window: The write window of the tile, without margin, in the vector's grid.
            features: All features that were found, also those in the margin.
        """
        blocks = {block.index: block for block in self._touched(window)}
        for feature in features:
            if feature.block in blocks and feature.is_within(window):
                blocks[feature.block].features.append(feature)
        for block in blocks.values():
            yield from self._completed(block, window)

    def add_hole(self, window: Window) -> Iterator[FeatureBlock]:
        """Add a failed tile, and yield the complete blocks."""
        for block in list(self._touched(window)):
            block.has_hole = True
            yield from self._completed(block, window)

    def _touched(self, window: Window) -> Iterator[FeatureBlock]:
        for index in blocks_touching(window):
            if index in self.wanted:
                pixels = block_window(index, self.size).pixels
                yield self._open.setdefault(index, FeatureBlock(index, pixels))

    def _completed(self, block: FeatureBlock, window: Window) -> Iterator[FeatureBlock]:
        block.missing -= block_window(block.index, self.size).intersection(window).pixels
        if not block.missing:
            del self._open[block.index]
            self.wanted.discard(block.index)
            yield block


@dataclass
class FeatureBlock:
    """The features of a block while its tiles run.

    Attributes:
        index: (row, col) in the vector's grid.
        missing: Number of pixels whose tiles have not ended.
        features: The features of the block.
        has_hole: Whether a tile of it failed.
    """

    index: BlockIndex
    missing: int
    features: list[Feature] = field(default_factory=list)
    has_hole: bool = False

    def encode(self) -> bytes:
        """Return the features as a JSON list in canonical order; never empty bytes."""
        return f"[{','.join(each.content for each in sorted(self.features))}]".encode()


def decode_block(data: bytes) -> list[JsonValue]:
    """Read the features of a stored block, in pixels of the vector's grid."""
    features: list[JsonValue] = json.loads(data)
    return features


def located(feature: JsonValue, transform: Transform | None) -> dict[str, JsonValue]:
    """Return a feature with coordinates in the CRS; without a transform they stay in pixels.

    Args:
        feature: In pixels of a grid, x the column and y the row; it is not modified.
        transform: Affine coefficients (a, b, c, d, e, f) of the grid.
    """
    document = dict(feature) if isinstance(feature, dict) else {}
    geometry = document.pop("geometry", None)
    if isinstance(geometry, dict):
        kind, coordinates = str(geometry["type"]), geometry["coordinates"]
        if transform:
            coordinates = _transformed(coordinates, _DEPTHS[kind], transform)
        geometry = {"type": kind, "coordinates": coordinates}
    document.pop("type", None)
    properties = document.pop("properties", None)
    named = {"id": document.pop("id")} if "id" in document else {}
    return {"type": "Feature", **named, "geometry": geometry, "properties": properties, **document}


def collection_text(features: Iterable[dict[str, JsonValue]], *, crs: str | None) -> Iterator[str]:
    """Yield the text of a FeatureCollection: its head, a line for each feature, its tail.

    The member `crs` is null for a CRS without an EPSG code: readers then do not assume WGS 84.
    """
    yield f'{{"type": "FeatureCollection",\n"crs": {json.dumps(crs_member(crs))},\n"features": ['
    for number, feature in enumerate(features):
        yield (",\n" if number else "\n") + json.dumps(feature, allow_nan=False)
    yield "\n]}\n"


def crs_member(crs: str | None) -> JsonValue:
    """Return the member `crs` in GDAL's form; None if the CRS has no EPSG code.

    RFC 7946 allows only WGS 84 with x as the longitude, which is CRS84, also for EPSG:4326.

    >>> crs_member("EPSG:32616")
    {'type': 'name', 'properties': {'name': 'urn:ogc:def:crs:EPSG::32616'}}
    """
    if crs is None or not crs.startswith("EPSG:"):
        return None
    code = crs.removeprefix("EPSG:")
    name = _CRS84 if code == "4326" else f"urn:ogc:def:crs:EPSG::{code}"
    return {"type": "name", "properties": {"name": name}}


def whole_collection(description: Description, port: Port, value: JsonValue, image: Image) -> str:
    """Return a vector output of one call as GeoJSON in the CRS of its image.

    Raises:
        ContractBroken: it is not a FeatureCollection that fits the contract of the port.
    """
    _, rows, cols = image.pixels.shape
    scale = image_scale(description)
    features = read_features(
        value,
        WindowPlacement(
            0, 0, scaled_size((cols, rows), scale), is_extended=description.is_extended
        ),
        geometries=port.vector.geometry if port.vector else (),
        name=f"output {port.name!r}",
    )
    place = image.transform and rescaled(image.transform, float(scale.x), float(scale.y))
    ordered = sorted(features, key=lambda each: (each.block, each))
    found = (located(json.loads(each.content), place) for each in ordered)
    return "".join(collection_text(found, crs=image.crs))


def _placed(
    document: object, placement: WindowPlacement, geometries: tuple[str, ...], where: str
) -> Feature:
    geometry = document.get("geometry") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(geometry, dict):
        raise ContractBroken(
            f"{where} has no geometry: a feature is an object with a `geometry`, not "
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
        geometry.get("coordinates"), _DEPTHS[kind], placement, corners, f"{where}/geometry"
    )
    if not corners:
        raise ContractBroken(f"{where}/geometry has no coordinates")
    content = {key: value for key, value in document.items() if key not in _WINDOW_MEMBERS}
    content["geometry"] = {"type": kind, "coordinates": moved}
    row, col = (min(axis) + max(axis) for axis in zip(*corners, strict=True))
    pixel = (row // (2 * _FINE), col // (2 * _FINE))
    owner = (_within(pixel[0], placement.size[1]), _within(pixel[1], placement.size[0]))
    point = (_written(row // 2), _written(col // 2))
    return Feature(point, _canonical(content, where), owner, pixel != owner)


def _moved(
    value: object,
    depth: int,
    placement: WindowPlacement,
    corners: list[tuple[int, int]],
    where: str,
) -> JsonValue:
    """Return coordinates in the grid; appends each position (row, col) in steps to `corners`."""
    if not isinstance(value, list):
        raise ContractBroken(f"{where}: {shortened(value)} is not a list of coordinates")
    if depth:
        return [_moved(each, depth - 1, placement, corners, where) for each in value]
    if len(value) < 2 or not all(map(_is_near, value)):
        raise ContractBroken(f"{where}: {shortened(value)} is not a position [x, y] in pixels")
    x = round(value[0] * _FINE) + placement.col_off * _FINE
    y = round(value[1] * _FINE) + placement.row_off * _FINE
    corners.append((y, x))
    return [_in_pixels(_written(x)), _in_pixels(_written(y)), *value[2:]]


def _is_near(number: object) -> bool:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    return abs(number) < _FARTHEST  # False for NaN too


def _written(fine: int) -> int:
    """Round a position to the steps of the stored GeoJSON; halves are rounded up."""
    return (2 * fine * _UNITS + _FINE) // (2 * _FINE)


def _in_pixels(units: int) -> float:
    return units // _UNITS if units % _UNITS == 0 else units / _UNITS


def _within(index: int, count: int) -> int:
    return min(max(index, 0), count - 1)


def _canonical(document: dict[str, JsonValue], where: str) -> str:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError) as error:  # Python's parser accepts NaN in a service's JSON
        raise ContractBroken(f"{where} is not JSON: {error}") from error


def _transformed(value: JsonValue, depth: int, transform: Transform) -> JsonValue:
    if not isinstance(value, list):
        return value
    if depth:
        return [_transformed(each, depth - 1, transform) for each in value]
    x, y, *rest = value
    across, down = float(str(x)), float(str(y))
    a, b, c, d, e, f = transform
    return [a * across + b * down + c, d * across + e * down + f, *rest]
