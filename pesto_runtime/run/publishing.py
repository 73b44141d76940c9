"""Publish a run: write its outputs, `holes.geojson` and `result.json` into the output folder.

All files are completed in the workspace and then moved, `result.json` last: a reader never sees
half a product, nor a result whose products are missing. The report is not written here: see
`run/workspace.py`.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Hole, Pipeline, parse_binding
from pesto_runtime.errors import NotFound, RunFailed, StoreFailed
from pesto_runtime.pipeline import RasterType, VectorType
from pesto_runtime.raster.product import file_sha256, write_cog
from pesto_runtime.raster.read import gdal_version
from pesto_runtime.run.closing import merge, mosaic
from pesto_runtime.run.context import RunContext, load_context, skipped_stages
from pesto_runtime.run.features import crs_member
from pesto_runtime.run.records import manifests_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Reference, Scene


_HOLES, _RESULT = "holes.geojson", "result.json"
_SUFFIXES = (".tif", ".json", ".geojson")

_LOST = (
    ": was the store cleaned, or did another run that uses it end? run the same command again: it "
    "computes the missing objects"
)

_PACKAGES = ("pesto-workflows", "numpy", "rasterio", "obstore", "pydantic")


@dataclass(frozen=True)
class RunRecord:
    """The facts of a run that only its engine knows; all others are in the run store.

    Attributes:
        engine: Name and settings of the engine, and its id of the run.
        started: Time of the start.
        phase_seconds: Seconds of each phase that ran, if the engine has measured them.
    """

    engine: Mapping[str, JsonValue]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    phase_seconds: Sequence[float] = ()


def publish(
    plan_href: str, folder: Path, *, workspace: Path, record: RunRecord, as_cog: bool = False
) -> dict[str, JsonValue]:
    """Write the outputs of a run, `holes.geojson` if there are holes, and `result.json`.

    Args:
        plan_href: Href of the plan.
        folder: Folder for the outputs.
        workspace: Folder on the same disk, for unfinished files.
        record: The facts that the engine knows.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.

    Returns:
        The content of `result.json`.

    Raises:
        RunFailed: no output could be computed, objects are missing in the run store, or a raster
            with holes has no nodata to fill them with.
        StoreFailed: disk full, or not writable.
    """
    context = load_context(plan_href)
    manifests = list(manifests_of(context))
    holes = [Hole.model_validate(each) for m in manifests for each in _list(m, "holes")]
    bindings = Pipeline.parse(context.plan.pipeline).outputs
    skipped = skipped_stages(context)
    if skipped and not holes:
        raise RunFailed(f"the run store has no outputs of {', '.join(sorted(skipped))}{_LOST}")
    references = _references(bindings, skipped=skipped)
    tally = _tally(manifests)
    if not references or (holes and not tally["done"] and not tally["reused"]):
        raise RunFailed(f"no output could be computed{_first_hole(holes)}")
    try:
        outputs = {
            name: _output(context, plan_href, name, each, workspace=workspace, as_cog=as_cog)
            for name, each in references.items()
        }
        if not holes:
            _refuse_lost_blocks(outputs)
        result = _result(context, outputs, record, holes=holes, manifests=manifests)
        result["form"] = _form(as_cog=as_cog)
        moves = {output.part: folder / str(output.entry["path"]) for output in outputs.values()}
        features = {_HOLES: hole_features(holes, context.plan.scenes)} if holes else {}
        # `result.json` is the last entry, and so the last file that moves.
        for name, document in {**features, _RESULT: result}.items():
            moves[_written(workspace / name, document)] = folder / name
        _move(moves, delete=_stale(folder, set(bindings) - set(outputs), holes=bool(holes)))
    except RunFailed as error:
        raise RunFailed(f"{error.detail}{_first_hole(holes)}") from error
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror or error}") from error
    return result


def finished_result(folder: Path, run: str, *, as_cog: bool = False) -> dict[str, JsonValue] | None:
    """Return the result of a complete run of this key and form, if its outputs are unchanged.

    Args:
        folder: The output folder.
        run: Key of the run.
        as_cog: Whether its image outputs are cloud-optimised GeoTIFFs.
    """
    wanted = (run, "COMPLETE", _form(as_cog=as_cog))
    try:
        result = json.loads((folder / _RESULT).read_text())
        complete = (result["run"], result["status"], result["form"]) == wanted
        outputs = [(folder / each["path"], each["sha256"]) for each in result["outputs"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    intact = all(path.is_file() and file_sha256(path)[0] == digest for path, digest in outputs)
    return result if complete and intact else None


def hole_features(holes: Sequence[Hole], scenes: Mapping[str, Scene]) -> dict[str, JsonValue]:
    """Return the failed tiles as a FeatureCollection in the CRS of the scene.

    The member `crs` has the CRS in GDAL's form. For a scene without a transform, coordinates are in
    pixels, x to the right and y down.
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


@dataclass(frozen=True)
class _Output:
    """An output that is complete in the workspace, but not yet published.

    Attributes:
        part: The file in the workspace.
        entry: Its entry in `result.json`.
    """

    part: Path
    entry: dict[str, JsonValue]


def _references(bindings: Mapping[str, str], *, skipped: Set[str]) -> dict[str, Reference]:
    """Return output -> binding, without the outputs of skipped stages."""
    found = {name: parse_binding(binding) for name, binding in bindings.items()}
    return {name: each for name, each in found.items() if each and each.owner not in skipped}


def _output(
    context: RunContext,
    plan_href: str,
    name: str,
    reference: Reference,
    *,
    workspace: Path,
    as_cog: bool,
) -> _Output:
    if isinstance(context.types[str(reference)], RasterType):
        part = workspace / f"{name}.tif"
        mosaicked = mosaic(plan_href, str(reference), part)
        digest, size = mosaicked.product.sha256, mosaicked.product.size
        if as_cog:
            plain = part.rename(workspace / f"{name}.plain.tif")
            write_cog(plain, part)
            plain.unlink()
            digest, size = file_sha256(part)
        entry: dict[str, JsonValue] = {
            "path": part.name,
            "sha256": digest,
            "bytes": size,
            "blocks_with_holes": len(mosaicked.holes),
        }
        return _Output(part, entry)
    if isinstance(context.types[str(reference)], VectorType):
        return _vector_output(plan_href, str(reference), workspace / f"{name}.geojson")
    try:
        value = context.value(reference)
    except NotFound as error:
        raise RunFailed(f"output {name!r}: {error.detail}") from error
    part = workspace / f"{name}.json"
    data = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    part.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return _Output(part, {"path": part.name, "sha256": digest, "value": value})


def _vector_output(plan_href: str, vector: str, part: Path) -> _Output:
    merged = merge(plan_href, vector, part)
    entry: dict[str, JsonValue] = {
        "path": part.name,
        "sha256": merged.sha256,
        "bytes": merged.size,
        "features": merged.features,
        "blocks_with_holes": len(merged.holes),
    }
    return _Output(part, entry)


def _refuse_lost_blocks(outputs: Mapping[str, _Output]) -> None:
    """Fail if blocks are missing although no tile failed: nodata would pass for COMPLETE."""
    lost = [name for name, output in outputs.items() if output.entry.get("blocks_with_holes")]
    if lost:
        raise RunFailed(f"blocks of {', '.join(lost)} are missing in the run store{_LOST}")


def _first_hole(holes: list[Hole]) -> str:
    """Return the error of the first hole as the end of a message; empty without holes."""
    return f"\n  the first hole: {holes[0].reason}" if holes else ""


def _result(
    context: RunContext,
    outputs: Mapping[str, _Output],
    record: RunRecord,
    *,
    holes: list[Hole],
    manifests: list[dict[str, JsonValue]],
) -> dict[str, JsonValue]:
    plan = context.plan
    ended = datetime.now(UTC)
    skipped = sorted(set(Pipeline.parse(plan.pipeline).outputs) - set(outputs))
    tally = _tally(manifests)
    return {
        "status": "PARTIAL" if holes or skipped else "COMPLETE",
        "pipeline": str(plan.pipeline["name"]),
        "run": plan.run,
        "engine": dict(record.engine),
        "started": record.started.isoformat(timespec="seconds"),
        "seconds": round((ended - record.started).total_seconds(), 3),
        "inputs": {
            **{n: {"href": s.href, "identity": s.identity} for n, s in plan.scenes.items()},
            **plan.parameters,
        },
        "tiles": {"computed": tally["done"], "reused": tally["reused"], "holes": len(holes)},
        "chunks": sum("tiles" in manifest for manifest in manifests),
        "bytes_read": sum(int(str(each.get("bytes_read", 0))) for each in manifests),
        "phases": _phases(context, record),
        "stages": _stages(context, manifests),
        "outputs": {name: output.entry for name, output in outputs.items()},
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


def _stages(context: RunContext, manifests: list[dict[str, JsonValue]]) -> dict[str, JsonValue]:
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


def _tally(manifests: Iterable[Mapping[str, JsonValue]]) -> Counter[str]:
    """Return state of a tile -> number of tiles."""
    return Counter(
        str(tile[-1])
        for manifest in manifests
        for tile in _list(manifest, "tiles")
        if isinstance(tile, list)
    )


def _list(document: Mapping[str, JsonValue], key: str) -> list[JsonValue]:
    found = document.get(key)
    return found if isinstance(found, list) else []


def _form(*, as_cog: bool) -> str:
    return "cog" if as_cog else "tif"


def _written(path: Path, document: dict[str, JsonValue]) -> Path:
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path


def _stale(folder: Path, skipped: set[str], *, holes: bool) -> list[Path]:
    """Return files of earlier runs that a reader would take for outputs of this run."""
    names = [f"{name}{suffix}" for name in sorted(skipped) for suffix in _SUFFIXES]
    return [folder / name for name in (*names, *(() if holes else (_HOLES,)))]


def _move(moves: Mapping[Path, Path], *, delete: list[Path]) -> None:
    """Move complete files into the output folder; a rename needs no space on a full disk."""
    for path in delete:
        path.unlink(missing_ok=True)
    for part, path in moves.items():
        part.replace(path)


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
            "errors": hole.error.get("errors", []),
        },
    }
