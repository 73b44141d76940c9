"""End a run: its outputs and its report where they were asked for.

What every engine does last, whatever process it does it in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.activities import (
    Workspace,
    finished_result,
    load_context,
    locked_workspace,
    publish,
    tile_records,
)
from pesto_runtime.errors import NotFound, StoreFailed
from pesto_runtime.report import ReportData, write_report

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.activities import RunRecord
    from pesto_runtime.engines import ProgressListener

_PATIENCE_S = 60.0
"""An orchestrator may begin a task anew while the first attempt still publishes."""


def end_run(
    plan_href: str,
    workspace: Workspace,
    record: RunRecord,
    *,
    as_cog: bool,
    watcher: ProgressListener,
) -> dict[str, JsonValue]:
    """Publish a run into a folder that is locked, and write its report.

    Returns:
        What `result.json` holds.

    Raises:
        RunFailed: nothing could be made, or holes have no nodata to stand for them.
        StoreFailed: disk full, or not writable.
    """
    context, folder = load_context(plan_href), workspace.folder
    result = publish(plan_href, folder, workspace=workspace.path, record=record, as_cog=as_cog)
    plan = context.plan
    report = ReportData(
        result=result,
        pipeline=plan.pipeline,
        tiles=tuple(tile_records(context)),
        size=plan.size,
        scenes={name: scene.href for name, scene in plan.scenes.items()},
        folder=folder,
    )
    try:
        write_report(folder / "report.html", report)
    except StoreFailed as error:  # the outputs are all there
        watcher.warn(str(error))
    return result


def publish_run(
    plan_href: str,
    folder: Path,
    record: RunRecord,
    *,
    watcher: ProgressListener,
    as_cog: bool = False,
    keep: bool = False,
) -> dict[str, JsonValue]:
    """End a run from a task of its own; called again after it succeeded, answers the same.

    Raises:
        NotFound: there is no such plan, nor a result of its run.
        StoreRefused: another run stays in the folder.
        PestoError: as `end_run`.
    """
    with locked_workspace(folder, patience_s=_PATIENCE_S) as workspace:
        try:
            load_context(plan_href)
        except NotFound:
            run = plan_href.rpartition("/")[2].partition("-")[0]
            finished = finished_result(folder, run, as_cog=as_cog)
            if finished is None:
                raise
            return finished
        plan = load_context(plan_href).plan
        result = end_run(plan_href, workspace, record, as_cog=as_cog, watcher=watcher)
        if result["status"] == "COMPLETE" and not keep:
            workspace.forget(plan)
    return result
