"""Publish a run into its output folder: outputs, `holes.geojson`, report, `result.json` last.

On a disk, all files are completed in the workspace and then moved; in a bucket, each is uploaded to
its place, where it appears whole: a reader never sees half a product, nor a result whose products
or report are missing. The result of an earlier run is withdrawn first. After a kill, the next call
finishes what is left.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Hole, Pipeline, ProductForm, parse_binding
from pesto_runtime.errors import NotFound, RunFailed, StoreFailed
from pesto_runtime.pipeline import JsonType, RasterType, VectorType
from pesto_runtime.raster.product import file_sha256
from pesto_runtime.report import write_report
from pesto_runtime.run.closing import merge, mosaic
from pesto_runtime.run.context import (
    RunContext,
    context_of,
    load_context,
    missing_blocks,
    skipped_outputs,
)
from pesto_runtime.run.kept_costs import keep_costs
from pesto_runtime.run.output_files import (
    HOLES,
    REPORT,
    json_text,
    move,
    require_replaceable,
    withdraw,
    write_json,
)
from pesto_runtime.run.ownership import OwnerBeat, claim, owner_of, release
from pesto_runtime.run.repairing import complete, recorded_holes, repaired_manifests
from pesto_runtime.run.reporting import report_data
from pesto_runtime.run.result import (
    RESULT,
    hole_features,
    read_result,
    result_document,
    tile_counts,
)
from pesto_runtime.run.workspace import RemoteWorkspace, Workspace, locked_workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan, Reference
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.result import RunRecord
    from pesto_runtime.run.workspace import AnyWorkspace


_PATIENCE_S = 60.0
"""Wait for the lock at the end of a run: an orchestrator may retry a task that still publishes."""

_LOST = (
    ": was the store cleaned, or did another run that uses it end? run the same command again: it "
    "computes the missing objects"
)


def publish(
    plan_href: str,
    workspace: AnyWorkspace,
    record: RunRecord,
    *,
    form: ProductForm = ProductForm.TIF,
) -> dict[str, JsonValue]:
    """Publish a run into a locked folder.

    Args:
        plan_href: Href of the plan.
        workspace: The locked folder.
        record: The facts that the engine knows.
        form: Form of image outputs.

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
        if isinstance(workspace, RemoteWorkspace):
            if not holes:
                _require_blocks(context, references)
            OwnerBeat(context.plan).keep()
            withdraw(context.plan, workspace.folder, keep=_files(context, references))
        outputs = {
            name: _output(context, plan_href, name, each, folder=workspace.parts, form=form)
            for name, each in references.items()
        }
        if not holes:
            _refuse_lost_blocks(outputs)
        found = {name: output.entry for name, output in outputs.items()}
        result = result_document(context, found, record, holes=holes, manifests=manifests)
        result["form"] = form.value
        features = _hole_features(context, holes) if holes else None
        _move(context, workspace, outputs, features, result)
        keep_costs(context, manifests)
    except RunFailed as error:
        raise RunFailed(f"{error.detail}{_first_hole(holes)}") from error
    except OSError as error:
        raise StoreFailed(f"{workspace.folder}: {error.strerror or error}") from error
    return result


def publish_run(
    plan_href: str,
    folder: AnyPath,
    record: RunRecord,
    *,
    form: ProductForm = ProductForm.TIF,
    keep: bool = False,
) -> dict[str, JsonValue]:
    """Publish a run as a task of an orchestrator; a second call returns the result of the first.

    Args:
        plan_href: Href of the plan.
        folder: The output folder.
        record: The facts that the engine knows.
        form: Form of image outputs.
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
            finished = finished_result(folder, run, form=form)
            if finished is None:
                raise
            release(folder, run, member=record.member)
            return finished
        claim(folder, plan, member=record.member)
        result = finished_result(folder, run, form=form)
        if result is None:
            result = publish(plan_href, workspace, record, form=form)
        finish(plan, workspace, result, keep=keep, member=record.member)
    return result


def finish(
    plan: Plan, workspace: AnyWorkspace, result: dict[str, JsonValue], *, keep: bool, member: str
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
    if not (workspace.folder / REPORT).exists():  # somebody deleted it
        _publish_report(context_of(plan), workspace, result)
    is_done = result["status"] == "COMPLETE" and not keep
    if isinstance(workspace, RemoteWorkspace) and is_done:
        owner = owner_of(workspace.folder)
        # Before the release: without a lock, another run may store objects right after it.
        if owner is not None and owner.run == plan.run and {*owner.members} <= {member, ""}:
            workspace.clear()
    is_last = release(workspace.folder, plan.run, member=member)
    if is_done and is_last:
        workspace.forget(plan)
    return is_last


def finished_result(
    folder: AnyPath, run: str, *, form: ProductForm = ProductForm.TIF
) -> dict[str, JsonValue] | None:
    """Return the result of a complete run of this key and form, if its outputs are unchanged.

    Args:
        folder: The output folder.
        run: Key of the run.
        form: Form of its image outputs.
    """
    result = read_result(folder)
    if result is None or not result.outputs:
        return None
    wanted = (run, "COMPLETE", form.value)
    if tuple(result.document.get(name) for name in ("run", "status", "form")) != wanted:
        return None
    is_intact = all(
        _has_sha256(folder / str(entry["path"]), entry["sha256"])
        for entry in result.outputs.values()
    )
    return result.document if is_intact else None


def _has_sha256(path: AnyPath, digest: object) -> bool:
    try:
        return path.is_file() and file_sha256(path)[0] == digest
    except OSError:
        return False


@dataclass(frozen=True)
class _Output:
    """An output that is complete, but not yet part of a result.

    Attributes:
        part: The file in the workspace; in a bucket, the object at its place.
        entry: Its entry in `result.json`.
    """

    part: AnyPath
    entry: dict[str, JsonValue]


def _gridded_outputs(context: RunContext) -> list[str]:
    """Return the rasters and vectors among the outputs whose phases were not skipped."""
    skipped = skipped_outputs(context)
    outputs = Pipeline.parse(context.plan.pipeline).outputs.values()
    names = [each for each in outputs if each not in skipped]
    return [name for name in names if isinstance(context.types[name], (RasterType, VectorType))]


def _references(
    context: RunContext, holes: Sequence[Hole], manifests: Sequence[Mapping[str, JsonValue]]
) -> dict[str, Reference]:
    """Return output -> binding, without the skipped ones.

    Raises:
        RunFailed: none remains, or one is missing although no tile failed.
    """
    skipped = skipped_outputs(context)
    if skipped and not holes:
        raise RunFailed(f"the run store has no outputs of {', '.join(sorted(skipped))}{_LOST}")
    bindings = Pipeline.parse(context.plan.pipeline).outputs.items()
    found = {name: parse_binding(binding) for name, binding in bindings}
    references = {n: each for n, each in found.items() if each and str(each) not in skipped}
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
    folder: AnyPath,
    form: ProductForm,
) -> _Output:
    part = folder / _file(context, name, reference)
    if isinstance(context.types[str(reference)], RasterType):
        mosaicked = mosaic(plan_href, str(reference), part, form=form)
        entry: dict[str, JsonValue] = {
            "path": part.name,
            "sha256": mosaicked.product.sha256,
            "bytes": mosaicked.product.size,
            "blocks_with_holes": len(mosaicked.holes),
            "crc32": mosaicked.product.crc32,
        }
        return _Output(part, entry)
    if isinstance(context.types[str(reference)], VectorType):
        return _vector_output(plan_href, str(reference), part)
    try:
        value = context.value(reference)
    except NotFound as error:
        raise RunFailed(f"output {name!r}: {error.detail}") from error
    data = (json_text(value) + "\n").encode()
    part.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return _Output(part, {"path": part.name, "sha256": digest, "value": value})


def _vector_output(plan_href: str, vector: str, part: AnyPath) -> _Output:
    merged = merge(plan_href, vector, part)
    entry: dict[str, JsonValue] = {
        "path": part.name,
        "sha256": merged.sha256,
        "bytes": merged.size,
        "features": merged.features,
        "blocks_with_holes": len(merged.holes),
    }
    return _Output(part, entry)


def _file(context: RunContext, name: str, reference: Reference) -> str:
    """Return the name of an output's file."""
    kinds = {RasterType: ".tif", VectorType: ".geojson"}
    return f"{name}{kinds.get(type(context.types[str(reference)]), '.json')}"


def _files(context: RunContext, references: Mapping[str, Reference]) -> set[str]:
    return {_file(context, name, each) for name, each in references.items()}


def _require_blocks(context: RunContext, references: Mapping[str, Reference]) -> None:
    """Fail if blocks are missing although no tile failed, before anything is uploaded."""
    grids = {
        n: str(each)
        for n, each in references.items()
        if not isinstance(context.types[str(each)], JsonType)
    }
    _refuse_lost([name for name, grid in grids.items() if missing_blocks(context, grid)])


def _refuse_lost_blocks(outputs: Mapping[str, _Output]) -> None:
    """Fail if blocks are missing although no tile failed: nodata would pass for COMPLETE."""
    _refuse_lost([n for n, output in outputs.items() if output.entry.get("blocks_with_holes")])


def _refuse_lost(lost: Sequence[str]) -> None:
    if lost:
        raise RunFailed(f"blocks of {', '.join(lost)} are missing in the run store{_LOST}")


def _hole_features(context: RunContext, holes: Sequence[Hole]) -> dict[str, JsonValue]:
    stages = [context.stages.get(hole.stage) for hole in holes]
    return hole_features(holes, [context.bases[stage.grid if stage else ""] for stage in stages])


def _first_hole(holes: Sequence[Hole]) -> str:
    """Return the error of the first hole as the end of a message; empty without holes."""
    return f"\n  the first hole: {holes[0].reason}" if holes else ""


def _move(
    context: RunContext,
    workspace: AnyWorkspace,
    outputs: Mapping[str, _Output],
    features: dict[str, JsonValue] | None,
    result: dict[str, JsonValue],
) -> None:
    """Move complete files into the output folder; a rename needs no space on a full disk.

    Raises:
        OSError: the disk is full, or the folder is not writable.
        StoreFailed: the same for the report.
        FolderInUse: another run has taken a folder of a bucket over.
    """
    if isinstance(workspace, Workspace):
        names = {str(output.entry["path"]) for output in outputs.values()}
        require_replaceable(workspace.folder, names)
        withdraw(context.plan, workspace.folder, keep=names)
    for output in outputs.values():
        move(output.part)
    if features is not None:
        write_json(workspace, HOLES, features)
    _publish_report(context, workspace, result)
    if isinstance(workspace, RemoteWorkspace):
        OwnerBeat(context.plan).keep()
    write_json(workspace, RESULT, result)


def _publish_report(
    context: RunContext, workspace: AnyWorkspace, result: dict[str, JsonValue]
) -> None:
    """Write the report of a run whose outputs are in the folder, if its plan has one.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    if context.plan.report == "none":
        return
    part = workspace.parts / REPORT
    write_report(part, report_data(context, workspace.folder, result))
    move(part)
