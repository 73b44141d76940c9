"""What a task group may be told beside its pipeline, and what holds where it is not told."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, TypedDict

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from airflow.sdk import Asset


class GroupSettings(TypedDict, total=False):
    """What a group may be told beside its pipeline.

    Attributes:
        base: What the pipeline's own targets are relative to; its file's folder by default.
        store: Base href of the run store, where that is not in the output folder.
        tile: Side of a tile, pixels; absent to size it by memory.
        max_tasks: Most mapped tasks of a phase, never above 256.
        workers: Mapped tasks that run at once on one machine.
        concurrency: Tiles at once in a task; by default 8 where services are waited for, else 1.
        pool: Pool of all mapped tasks; by default `pesto_gpu` for those whose processes want one.
        gpu_queue: Queue of mapped tasks whose processes want a GPU.
        max_active_tasks: Most mapped tasks of a phase at once, in one run.
        assets: Output name -> Asset; by default `PIPELINE.OUTPUT` for each.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        keep: Whether to keep the run store of a complete run.
    """

    base: str | Path | None
    store: str | None
    tile: int | None
    max_tasks: int
    workers: int
    concurrency: int | None
    pool: str | None
    gpu_queue: str | None
    max_active_tasks: int | None
    assets: Mapping[str, Asset] | None
    as_cog: bool
    keep: bool


DEFAULTS: GroupSettings = {
    "base": None,
    "store": None,
    "tile": None,
    "max_tasks": 64,
    "workers": 4,
    "concurrency": None,
    "pool": None,
    "gpu_queue": None,
    "max_active_tasks": None,
    "assets": None,
    "as_cog": False,
    "keep": False,
}


def settled(given: GroupSettings, *, arguments: Iterable[str]) -> GroupSettings:
    """All settings: those that are given, the others as they are by default.

    Args:
        given: As they were called with.
        arguments: What else there is that a misspelt name may mean.

    Raises:
        InvalidInput: a name is none of a setting; says which it may mean.
    """
    unknown = [name for name in given if name not in DEFAULTS]
    if unknown:
        told = (_unknown(name, {*DEFAULTS, *arguments}) for name in unknown)
        raise InvalidInput(f"pesto_pipeline: {', '.join(told)}")
    return {**DEFAULTS, **given}


def _unknown(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(DEFAULTS))}"
    return f"it has no setting {name!r}; {hint}"
