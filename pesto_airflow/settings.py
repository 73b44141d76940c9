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
    """Settings of a task group beside its pipeline."""

    base: str | Path | None
    """Folder that the pipeline's own targets are relative to; its file's folder by default."""
    store: str | None
    """Base href of the run store; in the output folder by default."""
    tile: int | None
    """Side of a tile, pixels; sized by memory by default."""
    max_tasks: int
    """Most mapped tasks of a phase, never above 256; 64 by default."""
    workers: int
    """Mapped tasks that run at once on one machine, which share its memory; 4 by default."""
    concurrency: int | None
    """Tiles at once in a task; by default 8 where all processes are services, else 1."""
    pool: str | None
    """Pool of all mapped tasks; by default `pesto_gpu` for those whose processes want a GPU."""
    gpu_queue: str | None
    """Queue of mapped tasks whose processes want a GPU."""
    max_active_tasks: int | None
    """Most mapped tasks of a phase at once, in one run; no limit by default."""
    assets: Mapping[str, Asset] | None
    """Output name -> Asset; by default `PIPELINE.OUTPUT` for each."""
    as_cog: bool
    """Whether image outputs become cloud-optimised GeoTIFFs."""
    keep: bool
    """Whether to keep the run store of a complete run."""


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
