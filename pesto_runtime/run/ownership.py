"""Let one run own an output folder, from its plan until it is published, on every engine.

The owner is the file `DIR/.pesto/owner.json`; whoever works for the run touches it. Tasks of one
run join by the key of the run, on any machine that sees the folder. An owner that is silent for ten
minutes, that has failed, or whose process has ended on this machine owns nothing any more. The lock
of `run/workspace.py` excludes processes of one machine for a moment; ownership lasts for a run.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from dataclasses import replace as changed
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeGuard

from pesto_runtime.errors import FolderInUse, StoreFailed
from pesto_runtime.hrefs import path_of
from pesto_runtime.run.result import read_result

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.contract import Plan

WORKSPACE = ".pesto"
OWNER = "owner.json"

_EXPIRES_S = 600.0
_BEAT_S = 30.0


@dataclass(frozen=True)
class Owner:
    """The run that owns a folder.

    Attributes:
        run: Key of the run.
        pipeline: Name of its pipeline.
        host: Machine that planned it.
        pid: Process that the whole run depends on; None if it has tasks of an orchestrator.
        since: Time of the first claim, ISO 8601.
        members: Identical runs that share the folder, each by its engine's id.
    """

    run: str
    pipeline: str
    host: str
    pid: int | None
    since: str
    members: tuple[str, ...] = ()

    @property
    def is_gone(self) -> bool:
        """Whether the process of the run has ended, for a caller that has the folder's lock."""
        # Such a process has the lock as long as it lives.
        return self.pid is not None and self.host == socket.gethostname()


def claim(
    folder: Path,
    plan: Plan,
    *,
    member: str,
    pid: int | None = None,
    take_over: bool = False,
    replace: bool = False,
) -> bool:
    """Make a run the owner of a folder; the same run joins. Call it under the folder's lock.

    Args:
        folder: The output folder, with its workspace.
        plan: The plan of the run.
        member: The engine's id of this run.
        pid: The process that the whole run depends on, if there is one.
        take_over: Whether to take the folder from a run that still owns it.
        replace: Whether the finished result of another pipeline or scene is overwritten.

    Returns:
        Whether an identical run is at work in the folder.

    Raises:
        FolderInUse: another run owns it, or has finished in it; names that run.
        StoreFailed: the folder cannot be written.
    """
    require_free(folder, plan, member=member, take_over=take_over, replace=replace)
    owner, since = owner_of(folder), datetime.now(UTC).isoformat(timespec="seconds")
    others: tuple[str, ...] = ()
    if owner is not None and owner.run == plan.run and _is_at_work(folder, owner):
        others = tuple(each for each in owner.members if each != member)
        since = owner.since
    name, host = str(plan.pipeline["name"]), socket.gethostname()
    _write(folder, Owner(plan.run, name, host, pid, since, (*others, member)))
    return bool(others)


def require_free(
    folder: Path,
    plan: Plan,
    *,
    member: str = "",
    take_over: bool = False,
    replace: bool = False,
) -> None:
    """Require that a run may claim a folder; call it under the folder's lock.

    A run that plans again, because a task is repeated, may have another key: it is its own member.

    Raises:
        FolderInUse: as for `claim`.
    """
    owner = owner_of(folder)
    is_other = owner is not None and owner.run != plan.run and _is_at_work(folder, owner)
    if owner is not None and is_other and not take_over and owner.members != (member,):
        raise in_use(folder)
    is_owner = owner is not None and owner.run == plan.run  # and was asked when it claimed
    if not replace and not is_owner:
        _require_own_result(folder, plan)


def release(folder: Path, run: str, *, member: str) -> bool:
    """End the part of a member in the ownership of its run. Call it under the folder's lock.

    Returns:
        Whether no identical run shares the folder any more.

    Raises:
        StoreFailed: the disk refuses; the ownership ends by itself.
    """
    owner = owner_of(folder)
    if owner is None or owner.run != run:
        return True
    others = tuple(each for each in owner.members if each not in (member, ""))
    if others and _is_at_work(folder, owner):
        _write(folder, changed(owner, members=others))
        return False
    path = folder / WORKSPACE / OWNER
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
    return True


def abandon(plan: Plan) -> None:
    """Let other runs claim the folder of a run that failed, until a task of it works again."""
    path = _owner_path(plan)
    if path is not None and _owner_at(path, plan.run):
        with suppress(OSError):
            os.utime(path, (0, 0))


class OwnerBeat:
    """Keeps the ownership of a run while a task of it works; belongs to one task."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._path = _owner_path(plan)
        self._next = 0.0

    def keep(self) -> None:
        """Verify the ownership, and renew it, at most every 30 s; claims a folder without owner.

        Raises:
            FolderInUse: another run has taken the folder over.
        """
        now = time.monotonic()
        if self._path is None or now < self._next:
            return
        self._next = now + _BEAT_S
        folder = self._path.parents[1]
        owner = owner_of(folder)
        if owner is None:
            claim(folder, self._plan, member="", replace=True)
        elif owner.run != self._plan.run:
            raise _in_use(folder, owner)
        with suppress(OSError):  # the run has just been published by another task
            os.utime(self._path)


def owner_of(folder: Path) -> Owner | None:
    """Return the owner that a folder names, even if it is silent; None without a readable one."""
    try:
        found = json.loads((folder / WORKSPACE / OWNER).read_bytes())
        return Owner(**{**found, "members": tuple(found["members"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def in_use(folder: Path) -> FolderInUse:
    """Return the error that names the owner of a folder."""
    owner = owner_of(folder)
    if owner is None:
        return FolderInUse(f"{folder} is in use by another run; wait for it, or choose another")
    return _in_use(folder, owner)


def _require_own_result(folder: Path, plan: Plan) -> None:
    """Require that a finished result in the folder is of this pipeline and these scenes."""
    result = read_result(folder)
    if result is None:
        return
    pipeline, inputs = result.document["pipeline"], result.document["inputs"]
    named = inputs.items() if isinstance(inputs, dict) else ()
    scenes = {name: str(each["href"]) for name, each in named if _is_scene(each)}
    wanted = {name: str(scene.reference) for name, scene in plan.scenes.items()}
    if (pipeline, scenes) != (plan.pipeline["name"], wanted):
        found = ", ".join([str(pipeline), *scenes.values()])
        raise FolderInUse(
            f"{folder} has the finished result of another run ({found}; run "
            f"{result.document['run']}): choose another folder, or overwrite it (--replace, or "
            "replace=True of the task that plans)"
        )


def _is_scene(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict) and set(value) == {"href", "identity"}


def _in_use(folder: Path, owner: Owner) -> FolderInUse:
    age = max(0.0, _age_s(folder))
    silent = f"last sign {age:.0f} s ago" if age < 10 * _EXPIRES_S else "without a sign of life"
    process = f" in process {owner.pid}" if owner.pid else ""
    # A process has the folder's lock as long as it lives: nobody can take that away.
    way_out = (
        f"wait for it, end process {owner.pid}, or choose another folder"
        if owner.pid
        else "wait for it, choose another folder, or take the folder over (--take-over, or "
        "take_over=True of the task that plans)"
    )
    return FolderInUse(
        f"{folder} is in use by run {owner.run} of pipeline {owner.pipeline!r} on {owner.host}"
        f"{process}, since {owner.since}, {silent}: {way_out}"
    )


def _age_s(folder: Path) -> float:
    """Return the seconds since the last sign of the owner, by the clock of the folder's disk."""
    # The workers' clocks may differ; both times are written by the same file system.
    clock = folder / WORKSPACE / "lock"
    with suppress(OSError):
        os.utime(clock)
    try:
        now = clock.stat().st_mtime if clock.exists() else time.time()
        # A sign from the future is none: it would never expire.
        return abs(now - (folder / WORKSPACE / OWNER).stat().st_mtime)
    except OSError:
        return _EXPIRES_S


def _owner_path(plan: Plan) -> Path | None:
    """Return the owner's file of a run; None if this machine does not see its folder."""
    if not plan.folder.startswith("file:"):
        return None
    path = path_of(plan.folder) / WORKSPACE / OWNER
    return path if path.parent.is_dir() else None


def _owner_at(path: Path, run: str) -> bool:
    owner = owner_of(path.parents[1])
    return owner is not None and owner.run == run


def _is_at_work(folder: Path, owner: Owner) -> bool:
    return not owner.is_gone and _age_s(folder) < _EXPIRES_S


def _write(folder: Path, owner: Owner) -> None:
    path = folder / WORKSPACE / OWNER
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_text(json.dumps(asdict(owner)) + "\n")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
