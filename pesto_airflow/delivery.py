"""Write one product of a run where somebody wants it: whole, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from pesto_airflow.places import require_absolute_path
from pesto_runtime.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pesto_runtime.contract import Window


class Delivered(Protocol):
    """What a verb tells of the file that it wrote."""

    @property
    def holes(self) -> Sequence[Window]:
        """Windows of blocks that are not there whole."""


M = TypeVar("M", bound=Delivered)


def delivered(path: str, write: Callable[[Path], M], *, what: str, holes: str) -> tuple[Path, M]:
    """Have a product written beside its place and then moved there.

    Args:
        path: File to write, absolute; its folder is made.
        write: Writes it, and tells what came of it.
        what: Raster or vector, as `$stage.port`.
        holes: `fail` where blocks are missing, or `keep` what there is.

    Raises:
        InvalidInput: the path is relative.
        RunFailed: blocks are missing.
        StoreFailed: disk full, or not writable.
    """
    place = require_absolute_path("path", path)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    made = write(part)
    if made.holes and holes == "fail":
        part.unlink()
        raise RunFailed(f"{what} has {len(made.holes)} holes; mend the chunks first")
    part.replace(place)
    return place, made
