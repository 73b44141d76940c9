"""Describe a run in its `result.json`, and its failed tiles as features.

This file writes nothing: `run/publishing.py` does.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import rfc8785

from pesto_runtime.contract import Pipeline
from pesto_runtime.masking import masked
from pesto_runtime.raster.gdal import gdal_version
from pesto_runtime.run.features import crs_member
from pesto_runtime.run.owner_records import process_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Grid, Hole
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.context import RunContext

RESULT = "result.json"
ITEM = "item.json"
"""The run as a STAC item."""
SUFFIXES = (".tif", ".json", ".geojson")
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_PACKAGES = ("pesto-workflows", "numpy", "rasterio", "obstore", "pydantic")


@dataclass(frozen=True)
class RunRecord:
    """The facts of a run that only its engine knows; all others are in the run store.

    Attributes:
        engine: Name and settings of the engine, and its id of the run.
        started: Time of the start.
        phase_seconds: Seconds of each phase that ran, if the engine has measured them.
        verified_tiles: Number of tiles that were computed again and compared.
        ends_with_process: Whether the run ends with this process, on whatever folder it works.
    """

    engine: Mapping[str, JsonValue]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    phase_seconds: Sequence[float] = ()
    verified_tiles: int = 0
    ends_with_process: bool = False

    @property
    def member(self) -> str:
        """The engine's id of the run, by which it shares an output folder."""
        member = member_of(self.engine)
        return process_member(member) if self.ends_with_process else member


@dataclass(frozen=True)
class PublishedResult:
    """A `result.json` that was read from a folder.

    Attributes:
        document: Its content.
        outputs: Output name -> its entry; `path` is the name of a file in the folder.
    """

    document: dict[str, JsonValue]
    outputs: Mapping[str, Mapping[str, JsonValue]]


def read_result(folder: AnyPath) -> PublishedResult | None:
    """Read the `result.json` of a folder; None if it is absent, or not the result of a run.

    Anybody may have written the file: names that lead outside the folder are not accepted.
    """
    path = folder / RESULT
    if not path.is_file():  # a pipe would never end
        return None
    try:
        document = json.loads(path.read_bytes())
        outputs = document["outputs"]
        names = {name: entry["path"] for name, entry in outputs.items()}
        has_all = all(isinstance(entry["sha256"], str) for entry in outputs.values())
        is_complete = {"run", "status", "pipeline", "inputs", "tiles", "seconds"} <= set(document)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    is_sound = all(
        _NAME.fullmatch(name) and file in {f"{name}{suffix}" for suffix in SUFFIXES}
        for name, file in names.items()
    )
    return PublishedResult(document, outputs) if is_sound and has_all and is_complete else None


def member_of(engine: Mapping[str, JsonValue]) -> str:
    """Return the id of a run of an engine: its name, its id of the run, and that of the DAG."""
    parts = (engine.get(name) for name in ("name", "dag", "run"))
    return ":".join(str(part) for part in parts if part is not None)


def hole_features(holes: Sequence[Hole], grids: Sequence[Grid]) -> dict[str, JsonValue]:
    """Return the failed tiles as a FeatureCollection in the CRS of the scene.

    The member `crs` has the CRS in GDAL's form; if there are several, each feature names its own.
    For a scene without a transform, coordinates are in pixels, x to the right and y down.

    Args:
        holes: The failed tiles.
        grids: The grid whose pixels the window of each counts.
    """
    features = [_feature(*each) for each in zip(holes, grids, strict=True)]
    document: dict[str, JsonValue] = {"type": "FeatureCollection", "features": [*features]}
    crs_of_all = {grid.crs for grid in grids}
    if len(crs_of_all) > 1:
        for feature, grid in zip(features, grids, strict=True):
            feature["properties"]["crs"] = grid.crs
    crs = crs_member(crs_of_all.pop() if len(crs_of_all) == 1 else None)
    if crs is not None:
        document["crs"] = crs
    return document


def result_document(
    context: RunContext,
    outputs: Mapping[str, dict[str, JsonValue]],
    record: RunRecord,
    *,
    holes: Sequence[Hole],
    manifests: Sequence[Mapping[str, JsonValue]],
) -> dict[str, JsonValue]:
    """Return the content of `result.json`.

    Args:
        context: The run.
        outputs: Output name -> its entry.
        record: The facts that the engine knows.
        holes: The failed tiles.
        manifests: Of its chunks and single calls.
    """
    plan = context.plan
    ended = datetime.now(UTC)
    skipped = sorted(set(Pipeline.parse(plan.pipeline).outputs) - set(outputs))
    tally = tile_counts(manifests)
    return {
        "status": "PARTIAL" if holes or skipped else "COMPLETE",
        "pipeline": str(plan.pipeline["name"]),
        "pipeline_digest": f"sha256:{hashlib.sha256(rfc8785.dumps(plan.pipeline)).hexdigest()}",
        "run": plan.run,
        "engine": dict(record.engine),
        "started": record.started.isoformat(timespec="seconds"),
        "seconds": round((ended - record.started).total_seconds(), 3),
        "inputs": {
            **{
                n: {"href": masked(str(s.reference)), "identity": s.identity}
                for n, s in plan.scenes.items()
            },
            **plan.parameters,
        },
        "tiles": {"computed": tally["done"], "reused": tally["reused"], "holes": len(holes)},
        "verified_tiles": record.verified_tiles,
        "chunks": sum("tiles" in manifest for manifest in manifests),
        "bytes_read": sum(int(str(each.get("bytes_read", 0))) for each in manifests),
        "phases": _phases(context, record),
        "stages": _stages(context, manifests),
        "outputs": dict(outputs),
        "skipped": list(skipped),
        "warnings": list(plan.warnings),
        "versions": dict(_versions()),
        "cpu": list(_cpu_features()),
    }


def _phases(context: RunContext, record: RunRecord) -> list[JsonValue]:
    return [
        {
            "kind": phase.kind,
            "stages": [*phase.stages, *phase.reduces],
            "reduces": list(phase.reduces),
            "chunks": len(phase.chunks),
            "tile": list(phase.tile),
            "seconds": round(record.phase_seconds[n], 3) if n < len(record.phase_seconds) else None,
        }
        for n, phase in enumerate(context.plan.phases)
    ]


def _stages(
    context: RunContext, manifests: Sequence[Mapping[str, JsonValue]]
) -> dict[str, JsonValue]:
    """Describe every stage, with its cost summed over all chunks."""
    stages: dict[str, JsonValue] = {}
    for stage in context.stages.values():
        costs = [
            cost
            for manifest in manifests
            if isinstance(found := manifest.get("stages"), dict)
            and isinstance(cost := found.get(stage.id), dict)
        ]
        service = context.plan.services[stage.stage.process]
        stages[stage.id] = {
            "process": stage.description.name,
            "version": stage.description.version,
            "build": service.build,
            "where": list(service.targets),
            "calls": sum(int(str(cost["calls"])) for cost in costs),
            "seconds": round(sum(float(str(cost["seconds"])) for cost in costs), 4),
            "cpu_seconds": round(sum(float(str(cost["cpu_seconds"])) for cost in costs), 4),
        }
    return stages


def _versions() -> dict[str, str]:
    """Return package or tool -> version."""
    found = {"python": platform.python_version(), "gdal": gdal_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            found[name] = "not installed"
    return found


def _cpu_features() -> tuple[str, ...]:
    """Return the machine, and the SIMD extensions that numpy uses on it."""
    # numpy selects its loops by these extensions, so that the last bits of float results may
    # differ between machines.
    config = np.show_config(mode="dicts")
    simd = config.get("SIMD Extensions", {}) if isinstance(config, dict) else {}
    return (platform.machine(), *simd.get("baseline", []), *simd.get("found", []))


def tile_counts(manifests: Iterable[Mapping[str, JsonValue]]) -> Counter[str]:
    """Return state of a tile -> number of tiles."""
    return Counter(
        str(tile[-1])
        for manifest in manifests
        for tile in entries(manifest, "tiles")
        if isinstance(tile, list)
    )


def entries(document: Mapping[str, JsonValue], key: str) -> list[JsonValue]:
    """Return a list of a manifest; empty if it has none."""
    found = document.get(key)
    return found if isinstance(found, list) else []


def _feature(hole: Hole, grid: Grid) -> dict[str, Any]:
    window = hole.window
    transform = grid.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
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
            "errors": hole.error.get("errors", []),
        },
    }
