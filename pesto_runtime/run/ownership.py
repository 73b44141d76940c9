"""Let one run own an output folder, from its plan until it is published, on every engine.

The owner is recorded in `DIR/.pesto/owner.json`; whoever works for the run gives signs of life.
Tasks of one run join by the key of the run, on any machine that sees the folder. An owner that is
silent for ten minutes, that has failed, or whose process has ended on this machine owns nothing any
more. On a disk, the lock of `run/workspace.py` excludes processes of one machine for a moment; in a
bucket, conditional writes do (`run/owner_records.py`). Ownership lasts for a run.
"""

from __future__ import annotations

import socket
import time
from dataclasses import replace as changed
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeGuard

from pesto_runtime.errors import FolderInUse
from pesto_runtime.masking import masked
from pesto_runtime.places import RemotePath, place_of
from pesto_runtime.run.owner_records import EXPIRES_S, WORKSPACE, Owner, has_ended, record_of
from pesto_runtime.run.result import read_result

if TYPE_CHECKING:
    from pesto_runtime.contract import Plan
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.owner_records import LocalOwner, RemoteOwner

BEAT_S = 30.0


def claim(
    folder: AnyPath,
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
    while True:
        record = record_of(folder)
        owner, since = record.read(), datetime.now(UTC).isoformat(timespec="seconds")
        _require_free(folder, plan, record, owner, member, take_over=take_over, replace=replace)
        others: tuple[str, ...] = ()
        if owner is not None and owner.run == plan.run and _is_at_work(record, owner):
            others = tuple(n for n in owner.members if n != member and not has_ended(n))
            since = owner.since
        name, host = str(plan.pipeline["name"]), socket.gethostname()
        if record.write(Owner(plan.run, name, host, pid, since, (*others, member))):
            return bool(others)
        # Another run has written since: decide again with its record.


def require_free(
    folder: AnyPath,
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
    record = record_of(folder)
    owner = record.read()
    _require_free(folder, plan, record, owner, member, take_over=take_over, replace=replace)


def _require_free(
    folder: AnyPath,
    plan: Plan,
    record: LocalOwner | RemoteOwner,
    owner: Owner | None,
    member: str,
    *,
    take_over: bool,
    replace: bool,
) -> None:
    is_other = owner is not None and owner.run != plan.run and _is_at_work(record, owner)
    if owner is not None and is_other and not take_over and owner.members != (member,):
        raise _in_use(folder, record, owner)
    is_owner = owner is not None and owner.run == plan.run  # and was asked when it claimed
    if not replace and not is_owner:
        _require_own_result(folder, plan)


def release(folder: AnyPath, run: str, *, member: str) -> bool:
    """End the part of a member in the ownership of its run. Call it under the folder's lock.

    Returns:
        Whether no identical run shares the folder any more.

    Raises:
        StoreFailed: the disk refuses; the ownership ends by itself.
    """
    while True:
        record = record_of(folder)
        owner = record.read()
        if owner is None or owner.run != run:
            return True
        others = tuple(n for n in owner.members if n not in (member, "") and not has_ended(n))
        if not others or not _is_at_work(record, owner):
            record.delete()
            return True
        if record.write(changed(owner, members=others)):
            return False


def abandon(plan: Plan) -> None:
    """Let other runs claim the folder of a run that failed, until a task of it works again."""
    folder = _folder_of(plan)
    record = None if folder is None else record_of(folder)
    owner = None if record is None else record.read()
    if record is not None and owner is not None and owner.run == plan.run:
        record.abandon(owner)


class OwnerBeat:
    """Keeps the ownership of a run while a task of it works; belongs to one task."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = _folder_of(plan)
        self._next = 0.0

    def keep(self) -> None:
        """Verify the ownership, and renew it, at most every 30 s; claims a folder without owner.

        The folder of a complete run stays without one.

        Raises:
            FolderInUse: another run has taken the folder over.
        """
        now = time.monotonic()
        if self._folder is None or now < self._next:
            return
        self._next = now + BEAT_S
        record = record_of(self._folder)
        owner = record.read()
        if owner is None:
            if not _is_complete(self._folder, self._plan):
                claim(self._folder, self._plan, member="", replace=True)
        elif owner.run != self._plan.run:
            raise _in_use(self._folder, record, owner)
        else:
            record.beat(owner)


def _is_complete(folder: AnyPath, plan: Plan) -> bool:
    """Whether the run has ended: a late repetition of a task must not own the folder."""
    result = read_result(folder)
    document = {} if result is None else result.document
    return (document.get("run"), document.get("status")) == (plan.run, "COMPLETE")


def owner_of(folder: AnyPath) -> Owner | None:
    """Return the owner that a folder names, even if it is silent; None without a readable one."""
    return record_of(folder).read()


def working_owner(folder: AnyPath, run: str) -> Owner | None:
    """Return the owner of a folder if it is at work for a run, in a process that is not this one.

    Whoever starts the same run waits for that process: its result is the one that is wanted.
    """
    record = record_of(folder)
    owner = record.read()
    is_process = owner is not None and owner.run == run and owner.pid is not None
    return owner if owner is not None and is_process and _is_at_work(record, owner) else None


def in_use(folder: AnyPath) -> FolderInUse:
    """Return the error that names the owner of a folder."""
    record = record_of(folder)
    owner = record.read()
    if owner is None:
        return FolderInUse(f"{folder} is in use by another run; wait for it, or choose another")
    return _in_use(folder, record, owner)


def _require_own_result(folder: AnyPath, plan: Plan) -> None:
    """Require that a finished result in the folder is of this pipeline and these scenes."""
    result = read_result(folder)
    if result is None:
        return
    pipeline, inputs = result.document["pipeline"], result.document["inputs"]
    named = inputs.items() if isinstance(inputs, dict) else ()
    scenes = {name: str(each["href"]) for name, each in named if _is_scene(each)}
    wanted = {name: masked(str(scene.reference)) for name, scene in plan.scenes.items()}
    if (pipeline, scenes) != (plan.pipeline["name"], wanted):
        found = ", ".join([str(pipeline), *scenes.values()])
        raise FolderInUse(
            f"{folder} has the finished result of another run ({found}; run "
            f"{result.document['run']}): choose another folder, or overwrite it (--replace, or "
            "replace=True of the task that plans)"
        )


def _is_scene(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict) and set(value) == {"href", "identity"}


def _in_use(folder: AnyPath, record: LocalOwner | RemoteOwner, owner: Owner) -> FolderInUse:
    age = record.age_s()
    silent = f"last sign {age:.0f} s ago" if age < 10 * EXPIRES_S else "without a sign of life"
    process = f" in process {owner.pid}" if owner.pid else ""
    # A process has the folder's lock as long as it lives: nobody can take that away.
    is_locked = owner.pid is not None and not isinstance(folder, RemotePath)
    way_out = (
        f"wait for it, end process {owner.pid}, or choose another folder"
        if is_locked
        else "wait for it, choose another folder, or take the folder over (--take-over, or "
        "take_over=True of the task that plans)"
    )
    return FolderInUse(
        f"{folder} is in use by run {owner.run} of pipeline {owner.pipeline!r} on {owner.host}"
        f"{process}, since {owner.since}, {silent}: {way_out}"
    )


def _folder_of(plan: Plan) -> AnyPath | None:
    """Return the output folder of a run; None if this machine does not see it."""
    if not plan.folder:
        return None
    folder = place_of(plan.folder)
    is_seen = isinstance(folder, RemotePath) or (folder / WORKSPACE).is_dir()
    return folder if is_seen else None


def _is_at_work(record: LocalOwner | RemoteOwner, owner: Owner) -> bool:
    have_ended = bool(owner.members) and all(map(has_ended, owner.members))
    return not have_ended and not record.is_gone(owner) and record.age_s() < EXPIRES_S
