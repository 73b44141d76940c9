"""The plan of a campaign: its scenes, and the tasks of each phase; what its tasks record."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from pesto_runtime.contract import ReportForm
from pesto_runtime.contract.base import ClosedValue
from pesto_runtime.errors import NotFound
from pesto_runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.store import Store


CAMPAIGNS = "campaigns"
"""Folder of the campaigns in a run store."""


class ScenePart(NamedTuple):
    """Some chunks of one scene."""

    scene: int
    start: int
    stop: int


class SceneRun(ClosedValue):
    """A scene and its run."""

    id: str
    folder: str = Field(description="href of the folder of its outputs")
    plan: str = Field(default="", description="href of its plan; empty if it has none")
    packed: tuple[int, int] | None = Field(
        default=None,
        description="place of the plan of a scene without a folder, until its first task: index of "
        "the object in `packs`, line",
    )
    is_complete: bool = Field(default=False, description="an earlier run has made its outputs")
    tiles: int = Field(default=0, description="tiles of all its phases")
    error: str = Field(default="", description="why it has no plan")
    bbox: tuple[float, float, float, float] | None = Field(
        default=None, description="west, south, east, north of its first image, degrees"
    )


class Campaign(ClosedValue):
    """One pipeline over many scenes."""

    format: Literal[1] = 1
    pipeline: str
    folder: str = Field(description="href of the folder of `campaign.json`")
    report: ReportForm = Field(default="links", description="whether reports are written")
    member: str = Field(default="", description="the engine's id of the campaign, in its folders")
    packs: tuple[str, ...] = Field(default=(), description="hrefs of the plans of new scenes")
    scenes: tuple[SceneRun, ...]
    tasks: tuple[tuple[tuple[ScenePart, ...], ...], ...] = Field(
        description="phase -> task -> its parts; a phase without chunks has no task"
    )


class CampaignRecords:
    """The objects of a campaign in its run store; every record of a task is replaced as a whole.

    Args:
        href: Href of the plan of the campaign.
    """

    def __init__(self, href: str) -> None:
        base, _, name = href.rpartition(f"/{CAMPAIGNS}/")
        self._store = open_store(base)
        self.identity, number, _ = name.split("/")
        """Short digest of pipeline, folder and scenes: the same for the same command."""
        self._folder = f"{CAMPAIGNS}/{self.identity}/{number}"

    def end_task(self, phase: int, task: int, failed: Mapping[str, JsonValue]) -> None:
        """Record that a task has ended: scene id -> why it failed.

        Raises:
            StoreFailed: the store cannot be written.
        """
        self._store.put_json(f"{self._folder}/tasks/{phase}-{task}", dict(failed))

    def of_task(self, phase: int, task: int) -> dict[str, str] | None:
        """Return what a task has recorded; None if it has not ended."""
        return self._read(f"tasks/{phase}-{task}")

    def close_phase(self, phase: int, failed: Mapping[str, JsonValue]) -> None:
        """Record the scenes that have failed in this phase or before: id -> reason.

        Raises:
            StoreFailed: the store cannot be written.
        """
        self._store.put_json(f"{self._folder}/phases/{phase}", dict(failed))

    def failed_before(self, phase: int) -> dict[str, str]:
        """Return the scenes that failed before a phase: id -> reason."""
        return (self._read(f"phases/{phase - 1}") or {}) if phase else {}

    @property
    def are_deleted(self) -> bool:
        """Whether another start of the same command has completed the campaign meanwhile."""
        return not self._store.has(f"{self._folder}/plan.json")

    def delete(self) -> None:
        """Delete the objects of the campaign, of earlier attempts too.

        Raises:
            StoreFailed: no permission.
        """
        self._store.delete_folder(f"{CAMPAIGNS}/{self.identity}")

    def _read(self, name: str) -> dict[str, str] | None:
        try:
            found = self._store.get_json(f"{self._folder}/{name}")
        except NotFound:
            return None
        return (
            {str(key): str(value) for key, value in found.items()}
            if isinstance(found, dict)
            else {}
        )


def campaign_folder(pipeline: str, folder: str, scenes: Iterable[str]) -> str:
    """Return the folder of a campaign in its run store, the same for the same command.

    Args:
        pipeline: Name of the pipeline.
        folder: Href of the folder of the campaign.
        scenes: Ids of the scenes.
    """
    return f"{CAMPAIGNS}/{_digest(repr((pipeline, folder, [*scenes])).encode())}"


def save_campaign(campaign: Campaign, store: Store, folder: str) -> str:
    """Store the plan of a campaign; return its href.

    Args:
        campaign: The campaign.
        store: Its run store.
        folder: Its `campaign_folder`.

    Raises:
        StoreFailed: the store cannot be written.
    """
    data = campaign.model_dump_json().encode()
    name = f"{folder}/{_digest(data)}/plan.json"
    store.put(name, data)
    return store.href(name)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


@lru_cache(maxsize=2)
def load_campaign(href: str) -> Campaign:
    """Load the plan of a campaign, once per process.

    Raises:
        NotFound: it does not exist: its run store was deleted.
        InvalidInput: this version cannot read it.
    """
    base, _, name = href.rpartition(f"/{CAMPAIGNS}/")
    data = open_store(base).get(f"{CAMPAIGNS}/{name}")
    return Campaign.model_validate_json(data)
