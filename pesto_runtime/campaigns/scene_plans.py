"""Keep the plans of new scenes together, until the first task of a scene begins its run.

A scene without a folder has nothing that another run could own. Its plan is one of many in one
object of the campaign, so that ten thousand scenes need some forty objects; the first task of the
scene claims the folder, and stores the plan in the run store there.
"""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from pesto_runtime.campaigns.campaign_plan import CAMPAIGNS
from pesto_runtime.contract import Plan
from pesto_runtime.errors import NotFound
from pesto_runtime.places import RemotePath, output_place
from pesto_runtime.run.context import load_context
from pesto_runtime.run.ownership import claim, owner_of
from pesto_runtime.run.plan_files import plan_name, save_plan
from pesto_runtime.run.result import read_result
from pesto_runtime.run.workspace import locked_workspace
from pesto_runtime.store import open_store

if TYPE_CHECKING:
    from pesto_runtime.campaigns.campaign_plan import Campaign, SceneRun
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.store import Store

LOCK_WAIT_S = 60.0
_MOST_PLANS = 256
"""Plans in one object: what a task holds in memory for one of them."""
_PLANS = "scene-plans"


class PlanPacks:
    """Writes the plans of a campaign, many in one object.

    Args:
        store: The run store of the campaign.
        folder: Folder of the campaign in it.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._waiting: list[bytes] = []
        self._hrefs: list[str] = []

    def add(self, plan: Plan) -> tuple[str, tuple[int, int]]:
        """Add a plan; return its href in its own run store, and its place: object, line.

        Raises:
            StoreFailed: the store cannot be written.
        """
        data = plan.model_dump_json().encode()
        self._waiting.append(data)
        place = len(self._hrefs), len(self._waiting) - 1
        if len(self._waiting) == _MOST_PLANS:
            self._write()
        return f"{plan.store}/{plan_name(plan, data)}", place

    def finish(self) -> tuple[str, ...]:
        """Return the hrefs of all objects.

        Raises:
            StoreFailed: the store cannot be written.
        """
        if self._waiting:
            self._write()
        return tuple(self._hrefs)

    def _write(self) -> None:
        data = zlib.compress(b"\n".join(self._waiting), level=1)
        # Another start of the same command, at the same time, has plans of its own.
        name = f"{self._folder}/{_PLANS}/{hashlib.sha256(data).hexdigest()[:16]}"
        self._store.put(name, data)
        self._hrefs.append(self._store.href(name))
        self._waiting.clear()


def planned_scene(campaign: Campaign, scene: SceneRun) -> Plan | None:
    """Return the plan of a scene; None if it is published, and its plan deleted.

    Raises:
        NotFound: its run store was deleted.
    """
    try:
        return load_context(scene.plan).plan
    except NotFound:
        if is_published(scene):
            return None
        if scene.packed is None:
            raise
    return _packed_plan(campaign, scene.packed)


def begin_scene(campaign: Campaign, scene: SceneRun) -> RunContext | None:
    """Return the run of a scene, and begin it if no task has; None if it is published.

    Raises:
        FolderInUse: another run has the folder by now, or has finished in it.
        NotFound: its run store was deleted.
        StoreFailed: the folder cannot be written.
    """
    context: RunContext | None = None
    try:
        context = load_context(scene.plan)
    except NotFound:
        if scene.packed is None and not is_published(scene):
            raise
    if scene.packed is None:  # its folder was claimed when it was planned
        return context
    folder = output_place(scene.folder)
    owner = owner_of(folder)
    if context and owner and owner.run == context.plan.run and campaign.member in owner.members:
        return context
    if is_published(scene):
        return None
    plan = context.plan if context else _packed_plan(campaign, scene.packed)
    with locked_workspace(folder, run=plan.run, patience_s=LOCK_WAIT_S):
        claim(folder, plan, member=campaign.member)
        save_plan(plan)
    return load_context(scene.plan)


def folders_in(folder: AnyPath) -> set[str]:
    """Return the names of what is directly in the folder of a campaign.

    Raises:
        StoreFailed: no permission, no such bucket.
    """
    if isinstance(folder, RemotePath):
        return set(folder.folders())
    return {each.name for each in folder.iterdir()} if folder.is_dir() else set()


def is_published(scene: SceneRun) -> bool:
    """Whether the run of a scene has published it: a later try finds nothing to do."""
    result = read_result(output_place(scene.folder))
    run = scene.plan.rpartition("/")[2].partition("-")[0]
    return result is not None and result.document["run"] == run


def _packed_plan(campaign: Campaign, packed: tuple[int, int]) -> Plan:
    pack, line = packed
    return Plan.model_validate_json(_lines(campaign.packs[pack])[line])


@lru_cache(maxsize=2)
def _lines(href: str) -> list[bytes]:
    base, _, name = href.rpartition(f"/{CAMPAIGNS}/")
    return zlib.decompress(open_store(base).get(f"{CAMPAIGNS}/{name}")).split(b"\n")
