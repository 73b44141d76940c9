"""Describe the outputs of a finished run as a STAC item, and those of a campaign as a collection.

Items have version 1.1 and the extensions projection, raster, file, processing, classification.
Hrefs are relative to the file of the item: a folder can be moved.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pesto_runtime.contract.band_files import stacked_bands
from pesto_runtime.contract.selection import split_fragment
from pesto_runtime.errors import InvalidInput, NotFound
from pesto_runtime.places import place_of
from pesto_runtime.raster.class_table import TAG
from pesto_runtime.raster.place import footprint
from pesto_runtime.raster.place import place_of as earth_place
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.run.output_files import REPORT
from pesto_runtime.run.result import ITEM, RESULT, read_result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Scene
    from pesto_runtime.places import AnyPath
    from pesto_runtime.raster.image import BandFacts
    from pesto_runtime.run.result import PublishedResult

ITEMS = "items.json"
_SCHEMA = "https://stac-extensions.github.io/{}/schema.json"
_EXTENSIONS = {
    "proj:": "projection/v2.0.0", "raster:": "raster/v2.0.0", "file:": "file/v2.1.0",
    "processing:": "processing/v1.2.0", "classification:": "classification/v2.0.0",
}  # fmt: skip
_SHA256 = "1220"  # code and length of a multihash
_TYPES = {
    ".tif": "image/tiff; application=geotiff", ".json": "application/json",
    ".geojson": "application/geo+json",
}  # fmt: skip


def write_item(folder: AnyPath, *, time: str | None = None) -> tuple[AnyPath, tuple[str, ...]]:
    """Write `item.json` for the finished run in a folder; return its place, and remarks.

    Args:
        folder: The output folder.
        time: Time of the acquisition (RFC 3339), or `START/END`; None for that of the STAC items
            that the run read, or else of the run itself.

    Raises:
        NotFound: there is no finished run.
        InvalidInput: an output has the name of the file.
        RasterUnreadable: an output cannot be read.
        StoreFailed: the folder cannot be written.
    """
    result = read_result(folder)
    if result is None:
        raise NotFound(f"{folder} has no {RESULT} of a finished run")
    if any(each["path"] == ITEM for each in result.outputs.values()):
        raise InvalidInput(f"{folder}: an output has the name {ITEM}: rename it in the pipeline")
    document, remarks = _item(folder, result, time)
    place = folder / ITEM
    place.write_bytes((json.dumps(document, indent=2) + "\n").encode())
    return place, remarks


def write_items(
    folder: AnyPath, scenes: Mapping[str, JsonValue], *, time: str | None = None
) -> tuple[AnyPath, tuple[str, ...]]:
    """Write the items of a campaign, and `items.json` with all of them; return it, and remarks.

    Args:
        folder: The folder of the campaign.
        scenes: Scene id -> its entry in `campaign.json`; those without outputs have no item.
        time: As of `write_item`.

    Raises:
        PestoError: as of `write_item`.
    """
    found: list[JsonValue] = []
    remarks: list[str] = []
    for name, entry in scenes.items():
        if isinstance(entry, dict) and entry["status"] in ("COMPLETE", "PARTIAL"):
            place, told = write_item(place_of(str(entry["folder"])), time=time)
            item = json.loads(place.read_bytes())
            for asset in item["assets"].values():
                asset["href"] = f"./{name}/{asset['href'].removeprefix('./')}"
            found.append(item)
            remarks += [f"{name}: {each}" for each in told]
    place = folder / ITEMS
    document = {"type": "FeatureCollection", "features": found}
    place.write_bytes((json.dumps(document, indent=2) + "\n").encode())
    return place, tuple(remarks)


def _item(
    folder: AnyPath, result: PublishedResult, time: str | None
) -> tuple[dict[str, JsonValue], tuple[str, ...]]:
    document = result.document
    inputs = document["inputs"] if isinstance(document["inputs"], dict) else {}
    hrefs = [split_fragment(str(each["href"]))[0] for each in inputs.values()
             if isinstance(each, dict) and "identity" in each]  # fmt: skip
    sources = [band for href in hrefs for band in stacked_bands(href)]
    times = [time] if time else sorted({each.datetime for each in sources if each.datetime})
    remarks = () if times else (
        "no time of acquisition is known, so the item has that of the run: give --datetime",
    )  # fmt: skip
    assets: dict[str, JsonValue] = {}
    outlines: list[list[list[tuple[float, float]]]] = []
    for name, entry in result.outputs.items():
        facts, rings = _asset(folder, entry)
        assets[name] = facts
        outlines += [rings] if rings else []
    assets["result"] = {"href": f"./{RESULT}", "type": _TYPES[".json"], "roles": ["metadata"]}
    if (folder / REPORT).is_file():
        assets["report"] = {"href": f"./{REPORT}", "type": "text/html", "roles": ["overview"]}
    derived = dict.fromkeys(each.item or each.href for each in sources)
    derived |= dict.fromkeys(href for href in hrefs if not stacked_bands(href))
    item: dict[str, JsonValue] = {
        "type": "Feature", "stac_version": "1.1.0",
        "id": f"{folder.name}-{document['pipeline']}",
        **_geometry(outlines[0] if outlines else []),
        "properties": {
            **_times(times or [str(document["started"])]), "created": document["started"],
            **_processing(document),
        },
        "links": [{"rel": "derived_from", "href": href} for href in derived],
        "assets": assets,
    }  # fmt: skip
    text = json.dumps(item)
    item["stac_extensions"] = [
        _SCHEMA.format(path) for prefix, path in _EXTENSIONS.items() if f'"{prefix}' in text
    ]
    return item, remarks


def _processing(document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return how the outputs were made: software with versions, digests of pipeline and run."""
    stages, versions = document.get("stages"), document.get("versions")
    listed = stages.values() if isinstance(stages, dict) else ()
    processes = {str(each["process"]): str(each["version"])
                 for each in listed if isinstance(each, dict)}  # fmt: skip
    return {
        "processing:software": {**(versions if isinstance(versions, dict) else {}), **processes},
        "processing:lineage": f"pipeline {document['pipeline']}: {', '.join(processes)}",
        "processing:datetime": document["started"],
        "pesto:pipeline_digest": document.get("pipeline_digest"),
        "pesto:run": document["run"],
        "pesto:status": document["status"],
    }


def _times(times: list[str]) -> dict[str, JsonValue]:
    ends = sorted(each for time in times for each in time.split("/"))
    if ends[0] == ends[-1]:
        return {"datetime": ends[0]}
    return {"datetime": None, "start_datetime": ends[0], "end_datetime": ends[-1]}


def _geometry(rings: list[list[tuple[float, float]]]) -> dict[str, JsonValue]:
    """Return geometry and bbox; a bbox whose west is greater crosses the antimeridian."""
    if not rings:
        return {"geometry": None}
    lats = [lat for ring in rings for _, lat in ring]
    west, east = min(lon for lon, _ in rings[0]), max(lon for lon, _ in rings[-1])
    polygons: list[JsonValue] = [[[[lon, lat] for lon, lat in ring]] for ring in rings]
    single: JsonValue = polygons[0]
    geometry: dict[str, JsonValue] = (
        {"type": "Polygon", "coordinates": single}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    return {"geometry": geometry, "bbox": [west, min(lats), east, max(lats)]}


def _asset(
    folder: AnyPath, entry: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], list[list[tuple[float, float]]]]:
    """Return the asset of an output, and the rings of its footprint."""
    path = folder / str(entry["path"])
    facts: dict[str, JsonValue] = {
        "href": f"./{entry['path']}", "type": _TYPES[path.suffix], "roles": ["data"],
        "file:size": path.stat().st_size, "file:checksum": f"{_SHA256}{entry['sha256']}",
    }  # fmt: skip
    if path.suffix != ".tif":
        return facts, []
    with RasterReader(str(path)) as reader:
        scene, bands = reader.scene(), reader.bands()
    facts |= {
        "proj:shape": [scene.height, scene.width],
        "proj:transform": [*scene.transform] if scene.transform else None,
        "bands": [dict(_band(scene, number, band)) for number, band in enumerate(bands)],
    }
    facts |= {} if scene.crs is None else _crs(scene.crs)
    place = earth_place(scene)
    if place is not None:
        facts |= {"proj:bbox": [*place.bounds], "raster:spatial_resolution": place.resolution[0]}
    return {name: value for name, value in facts.items() if value is not None}, footprint(scene)


def _crs(text: str) -> dict[str, JsonValue]:
    is_code = ":" in text and "[" not in text
    return {"proj:code": text} if is_code else {"proj:code": None, "proj:wkt2": text}


def _band(scene: Scene, number: int, band: BandFacts) -> Iterator[tuple[str, JsonValue]]:
    yield "name", band.description or f"b{number + 1}"
    yield (
        "data_type",
        {"complex64": "cfloat32", "complex128": "cfloat64"}.get(scene.dtype, scene.dtype),
    )
    if scene.nodata is not None:
        yield "nodata", scene.nodata if math.isfinite(scene.nodata) else str(scene.nodata)
    if band.unit:
        yield "unit", band.unit
    if (band.scale, band.offset) != (1, 0):
        yield "raster:scale", band.scale
        yield "raster:offset", band.offset
    classes = band.tags.get("", {}).get(TAG)
    if classes:
        yield "classification:classes", json.loads(classes)
