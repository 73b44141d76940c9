"""Manage the output folder of a run: its lock, its run store, and the end of the run in it.

The end is: publish the outputs, write the report, delete the run store.
"""

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
_POLL_S = 0.1
_PATIENCE_S = 60.0
"""Wait for the lock at the end of a run: an orchestrator may retry a task that still publishes."""


def run_store(folder: Path, store: str | None = None) -> str:
    """Return the base href of a run store: `store`, or the one in the output folder."""
    return store or Workspace(folder).store


class Workspace:
    """The folder `DIR/.pesto`: locked by one run at a time, deleted when it is empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / _FOLDER

    @property
    def store(self) -> str:
        """Base href of the run store inside it."""
        return file_href(self.path)

    def clear(self) -> None:
        """Delete everything except the lock."""
        for entry in self.path.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @property
    def is_empty(self) -> bool:
        """Whether it contains only the lock."""
        return all(entry.name == "lock" for entry in self.path.iterdir())

    def forget(self, plan: Plan) -> None:
        """Delete the objects of one run, and clear the folder if it has no other files.

        Raises:
            StoreFailed: the run store cannot be written.
        """
        forget_run(plan)
        if not any(path.is_file() and path.name != "lock" for path in self.path.rglob("*")):
            self.clear()

    def remove(self) -> None:
        """Delete the folder, while this process still has the lock."""
        (self.path / "lock").unlink(missing_ok=True)
        self.path.rmdir()


@contextmanager
def locked_workspace(folder: Path, *, patience_s: float = 0) -> Iterator[Workspace]:
    """Lock an output folder until the block ends; then delete empty folders.

    The operating system releases the lock when the process is killed.

    Args:
        folder: The output folder; created if it is missing.
        patience_s: Seconds to wait for another run that uses it.

    Raises:
        StoreRefused: not a directory, not writable, or in use by another run.
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
    """Open and lock the lock file, and return its descriptor."""
    while True:
        handle = _opened(workspace)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and flock, the previous owner may have deleted the file. A lock on the
            # deleted file does not exclude a run that creates a new one: compare the inodes.
            if (workspace.path / "lock").stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)
        if time.monotonic() >= deadline:
            raise StoreRefused(
                f"{workspace.folder} is in use by another run; wait for it, or choose another "
                "directory"
            )
        time.sleep(_POLL_S)


def _opened(workspace: Workspace) -> int:
    try:
        workspace.path.mkdir(parents=True, exist_ok=True)
        return os.open(workspace.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreRefused(
            f"{workspace.folder} cannot be an output folder: {error.strerror}; choose a directory "
            "that is writable"
        ) from error


def end_run(
    plan_href: str,
    workspace: Workspace,
    record: RunRecord,
    *,
    as_cog: bool,
    watcher: ProgressListener,
) -> dict[str, JsonValue]:
    """Publish a run into a locked folder, and write its report.

    Args:
        plan_href: Href of the plan.
        workspace: The locked folder.
        record: The facts that the engine knows.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        watcher: Receives warnings.

    Returns:
        The content of `result.json`.

    Raises:
        RunFailed: no output could be computed, objects are missing in the run store, or a raster
            with holes has no nodata to fill them with.
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
    except StoreFailed as error:  # the outputs are complete without their report
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
    """Publish a run as a task of an orchestrator; a second call returns the result of the first.

    Args:
        plan_href: Href of the plan.
        folder: The output folder.
        record: The facts that the engine knows.
        watcher: Receives warnings.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        keep: Whether the run store stays after a complete run.

    Raises:
        NotFound: neither the plan nor a result of its run exists.
        StoreRefused: another run has used the folder for 60 s.
        PestoError: as for `end_run`.
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
