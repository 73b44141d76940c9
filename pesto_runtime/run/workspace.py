"""The folder of a run: its lock, its store while it runs, and what is left of it afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pesto_runtime.errors import NotFound, StoreFailed, StoreRefused
from pesto_runtime.hrefs import file_href
from pesto_runtime.report import ReportData, write_report
from pesto_runtime.run.context import forget_run, load_context
from pesto_runtime.run.publishing import finished_result, publish
from pesto_runtime.run.records import tile_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan
    from pesto_runtime.engines import ProgressListener
    from pesto_runtime.run.publishing import RunRecord


_FOLDER = ".pesto"
_LOOK_S = 0.1


def run_store(folder: Path, store: str | None = None) -> str:
    """Base href of the run store of an output folder: its own, or the one that was asked for."""
    return store or Workspace(folder).store


class Workspace:
    """`DIR/.pesto`: locked by one run at a time, deleted when it is no longer needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / _FOLDER

    @property
    def store(self) -> str:
        """Base href of the run store inside it."""
        return file_href(self.path)

    def clear(self) -> None:
        """Forget what earlier runs left, the lock aside."""
        for entry in self.path.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @property
    def is_empty(self) -> bool:
        """Whether nothing but the lock is left in it."""
        return all(entry.name == "lock" for entry in self.path.iterdir())

    def forget(self, plan: Plan) -> None:
        """Forget one run, and clear the folder where nothing else is kept in it.

        Raises:
            StoreFailed: the run store cannot be written.
        """
        forget_run(plan)
        if not any(path.is_file() and path.name != "lock" for path in self.path.rglob("*")):
            self.clear()

    def remove(self) -> None:
        """Delete it; the lock is still held by this process."""
        (self.path / "lock").unlink(missing_ok=True)
        self.path.rmdir()


@contextmanager
def locked_workspace(folder: Path, *, patience_s: float = 0) -> Iterator[Workspace]:
    """Keep other runs out of a folder until the block ends, and leave nothing empty behind.

    The operating system lets go of the lock when a process is killed.

    Args:
        folder: Of the outputs; made where it is not there.
        patience_s: Seconds to wait for a run that is in it.

    Raises:
        StoreRefused: not a directory, not writable, or another run is in it.
    """
    workspace = Workspace(folder)
    is_new = not folder.exists()
    handle = _locked(workspace, time.monotonic() + patience_s)
    try:
        yield workspace
    finally:
        try:
            if workspace.is_empty:
                workspace.remove()
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
        finally:
            os.close(handle)


def _locked(workspace: Workspace, deadline: float) -> int:
    """Open and lock the lock's file, and make sure that it is the one which others will see."""
    while True:
        handle = _opened(workspace)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (workspace.path / "lock").stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)
        if time.monotonic() >= deadline:
            raise StoreRefused(
                f"{workspace.folder} is in use by another run; wait for it, or choose another "
                "directory"
            )
        time.sleep(_LOOK_S)


def _opened(workspace: Workspace) -> int:
    try:
        workspace.path.mkdir(parents=True, exist_ok=True)
        return os.open(workspace.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreRefused(
            f"{workspace.folder} cannot hold a run: {error.strerror}; choose a directory that is "
            "writable"
        ) from error


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
