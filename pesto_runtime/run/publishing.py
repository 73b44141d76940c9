"""The last verb of a run: put its outputs where they were asked for, and say what came of it.

Outputs are made whole inside the run's own folder and then moved, `result.json` last of all: a
reader never sees half a product, nor a result that tells of one that is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pesto_runtime.contract import Hole, Pipeline, parse_binding
from pesto_runtime.errors import NotFound, RunFailed, StoreFailed
from pesto_runtime.pipeline import RasterType, VectorType
from pesto_runtime.raster.product import file_sha256, write_cog
from pesto_runtime.run.closing import merge, mosaic
from pesto_runtime.run.context import (
    RunContext,
    cpu_features,
    load_context,
    unmade_stages,
    versions,
)
from pesto_runtime.run.features import crs_member
from pesto_runtime.run.records import manifests_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Reference, Scene


@dataclass(frozen=True)
class RunRecord:
    """What an engine knows of a run beside its plan; all else is in the run store.

    Attributes:
        engine: Name and settings of the engine, and its id of the run.
        started: When.
        phase_seconds: Of every phase that ran, where the engine has measured them.
    """

    engine: Mapping[str, JsonValue]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    phase_seconds: Sequence[float] = ()


_HOLES, _RESULT = "holes.geojson", "result.json"
_SUFFIXES = (".tif", ".json", ".geojson")
_LOST = (
    ": did somebody clean it, or another run in it end? the same command makes again what is gone"
)


@dataclass(frozen=True)
class _Output:
    """An output that is made, but not yet where it belongs."""

    part: Path
    told: dict[str, JsonValue]


def publish(
    plan_href: str, folder: Path, *, workspace: Path, record: RunRecord, as_cog: bool = False
) -> dict[str, JsonValue]:
    """Write a run's outputs, `holes.geojson` where there are any, and `result.json`; answer it.

    Args:
        plan_href: Of the run's plan.
        folder: Where outputs go.
        workspace: A folder on the same disk, for what is not finished.
        record: What the engine knows.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.

    Raises:
        RunFailed: nothing could be made, or holes have no nodata to stand for them.
        StoreFailed: disk full, or not writable.
    """
    context = load_context(plan_href)
    manifests = list(manifests_of(context))
    holes = [Hole.model_validate(each) for m in manifests for each in _list(m, "holes")]
    bindings = Pipeline.parse(context.plan.pipeline).outputs
    unmade = unmade_stages(context)
    if unmade and not holes:
        raise RunFailed(f"{', '.join(sorted(unmade))} left nothing in the run store{_LOST}")
    wanted = _references(bindings, unmade=unmade)
    tally = _tally(manifests)
    if not wanted or (holes and not tally["done"] and not tally["reused"]):
        raise RunFailed(f"no output could be made{_because(holes)}")
    try:
        made = {
            name: _made(context, plan_href, name, reference, workspace=workspace, as_cog=as_cog)
            for name, reference in wanted.items()
        }
        if not holes:
            _refuse_lost_blocks(made)
        result = _result(context, made, record, holes=holes, manifests=manifests)
        result["form"] = _form(as_cog=as_cog)
        moves = {output.part: folder / str(output.told["path"]) for output in made.values()}
        features = {_HOLES: hole_features(holes, context.plan.scenes)} if holes else {}
        for name, document in {**features, _RESULT: result}.items():
            moves[_written(workspace / name, document)] = folder / name
        _move(moves, forget=_stale(folder, set(bindings) - set(made), holes=bool(holes)))
    except RunFailed as error:
        raise RunFailed(f"{error.detail}{_because(holes)}") from error
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror or error}") from error
    return result


def _references(bindings: Mapping[str, str], *, unmade: Set[str]) -> dict[str, Reference]:
    """Output -> what it is bound to, where its stage was made."""
    found = {name: parse_binding(binding) for name, binding in bindings.items()}
    return {name: each for name, each in found.items() if each and each.owner not in unmade}


def _refuse_lost_blocks(made: Mapping[str, _Output]) -> None:
    """Fail where blocks are gone though no tile failed: a product of nodata would be COMPLETE."""
    lost = [name for name, output in made.items() if output.told.get("blocks_with_holes")]
    if lost:
        raise RunFailed(f"blocks of {', '.join(lost)} are gone from the run store{_LOST}")


def _because(holes: list[Hole]) -> str:
    """What the first hole says, where there is one."""
    return f"\n  the first hole: {holes[0].error['detail']}" if holes else ""


def finished_result(folder: Path, run: str, *, as_cog: bool = False) -> dict[str, JsonValue] | None:
    """The result of a complete run of this key and form whose outputs are there, unchanged."""
    wanted = (run, "COMPLETE", _form(as_cog=as_cog))
    try:
        result = json.loads((folder / _RESULT).read_text())
        complete = (result["run"], result["status"], result["form"]) == wanted
        outputs = [(folder / each["path"], each["sha256"]) for each in result["outputs"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    intact = all(path.is_file() and file_sha256(path)[0] == digest for path, digest in outputs)
    return result if complete and intact else None


def _form(*, as_cog: bool) -> str:
    return "cog" if as_cog else "tif"


def _made(
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
        whole = mosaic(plan_href, str(reference), part)
        digest, size = whole.product.sha256, whole.product.size
        if as_cog:
            plain = part.rename(workspace / f"{name}.plain.tif")
            write_cog(plain, part)
            plain.unlink()
            digest, size = file_sha256(part)
        told: dict[str, JsonValue] = {
            "path": part.name,
            "sha256": digest,
            "bytes": size,
            "blocks_with_holes": len(whole.holes),
        }
        return _Output(part, told)
    if isinstance(context.types[str(reference)], VectorType):
        return _made_vector(plan_href, str(reference), workspace / f"{name}.geojson")
    try:
        value = context.value(reference)
    except NotFound as error:
        raise RunFailed(f"output {name!r}: {error.detail}") from error
    part = workspace / f"{name}.json"
    data = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    part.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return _Output(part, {"path": part.name, "sha256": digest, "value": value})


def _made_vector(plan_href: str, vector: str, part: Path) -> _Output:
    merged = merge(plan_href, vector, part)
    told: dict[str, JsonValue] = {
        "path": part.name,
        "sha256": merged.sha256,
        "bytes": merged.size,
        "features": merged.features,
        "blocks_with_holes": len(merged.holes),
    }
    return _Output(part, told)


def _result(
    context: RunContext,
    made: Mapping[str, _Output],
    record: RunRecord,
    *,
    holes: list[Hole],
    manifests: list[dict[str, JsonValue]],
) -> dict[str, JsonValue]:
    plan = context.plan
    ended = datetime.now(UTC)
    outputs = Pipeline.parse(plan.pipeline).outputs
    skipped = sorted(set(outputs) - set(made))
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
        "outputs": {name: output.told for name, output in made.items()},
        "skipped": list(skipped),
        "warnings": list(plan.warnings),
        "versions": dict(versions()),
        "cpu": list(cpu_features()),
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
    """What every stage is, and took over all chunks."""
    told: dict[str, JsonValue] = {}
    for stage in context.stages.values():
        costs = [
            cost
            for manifest in manifests
            if isinstance(found := manifest.get("stages"), dict)
            and isinstance(cost := found.get(stage.id), dict)
        ]
        service = context.plan.services[stage.stage.process]
        told[stage.id] = {
            "process": stage.description.name,
            "version": stage.description.version,
            "build": service.build,
            "where": list(service.targets),
            "calls": sum(int(str(cost["calls"])) for cost in costs),
            "seconds": round(sum(float(str(cost["seconds"])) for cost in costs), 4),
            "cpu_seconds": round(sum(float(str(cost["cpu_seconds"])) for cost in costs), 4),
        }
    return told


def _tally(manifests: Iterable[Mapping[str, JsonValue]]) -> Counter[str]:
    """State of a tile -> how many."""
    return Counter(
        str(tile[-1])
        for manifest in manifests
        for tile in _list(manifest, "tiles")
        if isinstance(tile, list)
    )


def _list(document: Mapping[str, JsonValue], key: str) -> list[JsonValue]:
    found = document.get(key)
    return found if isinstance(found, list) else []


def _written(path: Path, document: dict[str, JsonValue]) -> Path:
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path


def _stale(folder: Path, skipped: set[str], *, holes: bool) -> list[Path]:
    """What an earlier run left that would be believed to be of this one."""
    names = [f"{name}{suffix}" for name in sorted(skipped) for suffix in _SUFFIXES]
    return [folder / name for name in (*names, *(() if holes else (_HOLES,)))]


def _move(moves: Mapping[Path, Path], *, forget: list[Path]) -> None:
    """Put whole files where they belong: renames, which need no room on the disk."""
    for path in forget:
        path.unlink(missing_ok=True)
    for part, path in moves.items():
        part.replace(path)


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
