"""Publish a run into its output folder: outputs, `holes.geojson`, report, `result.json` last.

All files are completed in the workspace and then moved: a reader never sees half a product, nor a
result whose products or report are missing. The result of an earlier run is withdrawn first. After
a kill, the next call finishes what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Hole, Pipeline, parse_binding
from pesto_runtime.errors import NotFound, RunFailed, StoreFailed
from pesto_runtime.pipeline import RasterType, VectorType
from pesto_runtime.raster.cog import write_cog
from pesto_runtime.raster.product import block_checksums, file_sha256
from pesto_runtime.report import write_report
from pesto_runtime.run.closing import merge, mosaic
from pesto_runtime.run.context import RunContext, context_of, load_context, skipped_stages
from pesto_runtime.run.ownership import claim, release
from pesto_runtime.run.repairing import complete, recorded_holes, repaired_manifests
from pesto_runtime.run.reporting import report_data
from pesto_runtime.run.result import (
    RESULT,
    SUFFIXES,
    hole_features,
    read_result,
    result_document,
    tile_counts,
)
from pesto_runtime.run.workspace import locked_workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan, Reference
    from pesto_runtime.run.result import RunRecord
    from pesto_runtime.run.workspace import Workspace


_HOLES, _REPORT = "holes.geojson", "report.html"
_PATIENCE_S = 60.0
"""Wait for the lock at the end of a run: an orchestrator may retry a task that still publishes."""

_LOST = (
    ": was the store cleaned, or did another run that uses it end? run the same command again: it "
    "computes the missing objects"
)


def publish(
    plan_href: str, workspace: Workspace, record: RunRecord, *, as_cog: bool = False
) -> dict[str, JsonValue]:
    """Publish a run into a locked folder.

    Args:
        plan_href: Href of the plan.
        workspace: The locked folder.
        record: The facts that the engine knows.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.

    Returns:
        The content of `result.json`.

    Raises:
        RunFailed: no output could be computed, objects are missing in the run store, or a raster
            with holes has no nodata to fill them with.
        StoreFailed: disk full, or not writable; the same command goes on.
    """
    context = load_context(plan_href)
    holes = recorded_holes(plan_href)
    for owner in _gridded_outputs(context):
        if complete(plan_href, owner, holes):
            holes = recorded_holes(plan_href)
    manifests = repaired_manifests(plan_href)
    references = _references(context, holes, manifests)
    try:
        outputs = {
            name: _output(context, plan_href, name, each, workspace=workspace.path, as_cog=as_cog)
            for name, each in references.items()
        }
        if not holes:
            _refuse_lost_blocks(outputs)
        found = {name: output.entry for name, output in outputs.items()}
        result = result_document(context, found, record, holes=holes, manifests=manifests)
        result["form"] = _form(as_cog=as_cog)
        features = hole_features(holes, context.plan.scenes) if holes else None
        _move(context, workspace, outputs, features, result)
    except RunFailed as error:
        raise RunFailed(f"{error.detail}{_first_hole(holes)}") from error
    except OSError as error:
        raise StoreFailed(f"{workspace.folder}: {error.strerror or error}") from error
    return result


def publish_run(
    plan_href: str,
    folder: Path,
    record: RunRecord,
    *,
    as_cog: bool = False,
    keep: bool = False,
) -> dict[str, JsonValue]:
    """Publish a run as a task of an orchestrator; a second call returns the result of the first.

    Args:
        plan_href: Href of the plan.
        folder: The output folder.
        record: The facts that the engine knows.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        keep: Whether the run store stays after a complete run.

    Raises:
        NotFound: neither the plan nor a result of its run exists.
        FolderInUse: another run owns the folder, or has used it for 60 s.
        PestoError: as for `publish`.
    """
    run = plan_href.rpartition("/")[2].partition("-")[0]
    with locked_workspace(folder, run=run, patience_s=_PATIENCE_S) as workspace:
        try:
            plan = load_context(plan_href).plan
        except NotFound:
            finished = finished_result(folder, run, as_cog=as_cog)
            if finished is None:
                raise
            release(folder, run, member=record.member)
            return finished
        claim(folder, plan, member=record.member)
        result = finished_result(folder, run, as_cog=as_cog)
        if result is None:
            result = publish(plan_href, workspace, record, as_cog=as_cog)
        finish(plan, workspace, result, keep=keep, member=record.member)
    return result


def finish(
    plan: Plan, workspace: Workspace, result: dict[str, JsonValue], *, keep: bool, member: str
) -> bool:
    """End a published run: what a kill may have left is made, what is not needed is deleted.

    Args:
        plan: The plan of the run.
        workspace: The locked folder.
        result: Its result.
        keep: Whether the run store stays after a complete run.
        member: The engine's id of this run; the store stays as long as others share it.

    Returns:
        Whether no identical run shares the folder any more.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    if not (workspace.folder / _REPORT).exists():  # somebody deleted it
        _publish_report(context_of(plan), workspace, result)
    is_last = release(workspace.folder, plan.run, member=member)
    if result["status"] == "COMPLETE" and not keep and is_last:
        workspace.forget(plan)
    return is_last


def finished_result(folder: Path, run: str, *, as_cog: bool = False) -> dict[str, JsonValue] | None:
    """Return the result of a complete run of this key and form, if its outputs are unchanged.

    Args:
        folder: The output folder.
        run: Key of the run.
        as_cog: Whether its image outputs are cloud-optimised GeoTIFFs.
    """
    result = read_result(folder)
    if result is None or not result.outputs:
        return None
    wanted = (run, "COMPLETE", _form(as_cog=as_cog))
    if tuple(result.document.get(name) for name in ("run", "status", "form")) != wanted:
        return None
    is_intact = all(
        _has_sha256(folder / str(entry["path"]), entry["sha256"])
        for entry in result.outputs.values()
    )
    return result.document if is_intact else None


def _has_sha256(path: Path, digest: object) -> bool:
    try:
        return path.is_file() and file_sha256(path)[0] == digest
    except OSError:
        return False


@dataclass(frozen=True)
class _Output:
    """An output that is complete in the workspace, but not yet published.

    Attributes:
        part: The file in the workspace.
        entry: Its entry in `result.json`.
    """

    part: Path
    entry: dict[str, JsonValue]


def _gridded_outputs(context: RunContext) -> list[str]:
    """Return the rasters and vectors among the outputs whose phases were not skipped."""
    skipped = skipped_stages(context)
    bindings = (
        parse_binding(each) for each in Pipeline.parse(context.plan.pipeline).outputs.values()
    )
    names = [str(each) for each in bindings if each and each.owner not in skipped]
    return [name for name in names if isinstance(context.types[name], (RasterType, VectorType))]


def _references(
    context: RunContext, holes: Sequence[Hole], manifests: Sequence[Mapping[str, JsonValue]]
) -> dict[str, Reference]:
    """Return output -> binding, without the outputs of skipped stages.

    Raises:
        RunFailed: none remains, or one is missing although no tile failed.
    """
    skipped = skipped_stages(context)
    if skipped and not holes:
        raise RunFailed(f"the run store has no outputs of {', '.join(sorted(skipped))}{_LOST}")
    bindings = Pipeline.parse(context.plan.pipeline).outputs.items()
    found = {name: parse_binding(binding) for name, binding in bindings}
    references = {name: each for name, each in found.items() if each and each.owner not in skipped}
    tally = tile_counts(manifests)
    if not references or (holes and not tally["done"] and not tally["reused"]):
        raise RunFailed(f"no output could be computed{_first_hole(holes)}")
    return references


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
            write_cog(plain, part, context.plan.compression)
            plain.unlink()
            digest, size = file_sha256(part)
        entry: dict[str, JsonValue] = {
            "path": part.name,
            "sha256": digest,
            "bytes": size,
            "blocks_with_holes": len(mosaicked.holes),
            "crc32": block_checksums(part) if as_cog else mosaicked.product.crc32,
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


def _first_hole(holes: Sequence[Hole]) -> str:
    """Return the error of the first hole as the end of a message; empty without holes."""
    return f"\n  the first hole: {holes[0].reason}" if holes else ""


def _form(*, as_cog: bool) -> str:
    return "cog" if as_cog else "tif"


def _move(
    context: RunContext,
    workspace: Workspace,
    outputs: Mapping[str, _Output],
    features: dict[str, JsonValue] | None,
    result: dict[str, JsonValue],
) -> None:
    """Move complete files into the output folder; a rename needs no space on a full disk.

    Raises:
        OSError: the disk is full, or the folder is not writable.
        StoreFailed: the same for the report.
    """
    folder = workspace.folder
    _require_replaceable(folder, [str(output.entry["path"]) for output in outputs.values()])
    _withdraw(folder, keep={str(output.entry["path"]) for output in outputs.values()})
    for name in set(Pipeline.parse(context.plan.pipeline).outputs) - set(outputs):
        for suffix in SUFFIXES:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    for output in outputs.values():
        output.part.replace(folder / str(output.entry["path"]))
    if features is not None:
        _written(workspace.path / _HOLES, features).replace(folder / _HOLES)
    _publish_report(context, workspace, result)
    _written(workspace.path / RESULT, result).replace(folder / RESULT)


def _require_replaceable(folder: Path, outputs: Sequence[str]) -> None:
    """Require that no directory has the name of a file that will be published.

    Raises:
        StoreFailed: names the directory; nothing has been deleted yet.
    """
    for name in (*outputs, _HOLES, _REPORT, RESULT):
        if (folder / name).is_dir():
            raise StoreFailed(f"{folder / name} is a directory: move it, then run again")


def _withdraw(folder: Path, *, keep: Set[str]) -> None:
    """Delete the result of an earlier run, then the files that only it had.

    The result goes first, so that no reader takes the new files for those of the old result.
    """
    earlier = read_result(folder)
    found = () if earlier is None else earlier.outputs.values()
    names = {str(each["path"]) for each in found} - keep
    (folder / RESULT).unlink(missing_ok=True)
    for name in (*names, _HOLES, _REPORT):
        (folder / name).unlink(missing_ok=True)


def _publish_report(
    context: RunContext, workspace: Workspace, result: dict[str, JsonValue]
) -> None:
    """Write the report of a run whose outputs are in the folder, if its plan has one.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    if context.plan.report == "none":
        return
    part = workspace.path / _REPORT
    write_report(part, report_data(context, workspace.folder, result))
    part.replace(workspace.folder / _REPORT)


def _written(path: Path, document: dict[str, JsonValue]) -> Path:
    """Write a JSON file that a power cut does not empty, and return its path."""
    with path.open("w") as file:
        file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return path
