"""Holes as GeoJSON: where, which stage, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.activities.geojson import crs_member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Hole, Scene


def hole_features(holes: Sequence[Hole], scenes: Mapping[str, Scene]) -> dict[str, JsonValue]:
    """A FeatureCollection of the failed tiles, in the CRS of the scene.

    The member `crs` names it, as GDAL reads and writes it; a scene without a transform gives
    coordinates in pixels, x to the right and y down.
    """
    scene = next(iter(scenes.values()), None)
    document: dict[str, JsonValue] = {
        "type": "FeatureCollection",
        "features": [_feature(hole, scene) for hole in holes],
    }
    crs = crs_member(scene.crs if scene else None)
    if crs is not None:
        document["crs"] = crs
    return document


def _feature(hole: Hole, scene: Scene | None) -> JsonValue:
    window = hole.window
    transform = (scene.transform if scene else None) or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    a, b, c, d, e, f = transform
    corners = [
        (window.col_off, window.row_off),
        (window.col_stop, window.row_off),
        (window.col_stop, window.row_stop),
        (window.col_off, window.row_stop),
        (window.col_off, window.row_off),
    ]
    ring: list[JsonValue] = [[a * x + b * y + c, d * x + e * y + f] for x, y in corners]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "stage": hole.stage,
            "window": list(window),
            "error": hole.error.get("detail"),
            "type": hole.error.get("type"),
        },
    }
