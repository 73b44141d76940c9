"""What an author may say of a process beside its hints."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pesto_runtime.contract import Fold, Margin, Tileable


class ProcessOptions(TypedDict, total=False):
    """What `@process(...)` takes."""

    name: str
    """Name of the process; by default the function's, with `-` for `_`."""
    version: str
    """Its version."""
    title: str
    """A few words for people."""
    family: str
    """Group of processes that it belongs to."""
    organization: str
    """Its author's organization."""
    email: str
    """Its author's address."""
    keywords: Sequence[str]
    """Words to find it by."""
    margin: int | Mapping[str, int] | Margin
    """Margin of every image input without its own, pixels; makes the process a map."""
    align: int
    """Alignment of every image input without its own, pixels."""
    reduce: Mapping[str, Fold]
    """Fold of each key of the partial that the function returns; makes the process a reduce."""
    finish: Callable[..., object]
    """Turns the folded partial of a reduce into the outputs."""
    tileable: Tileable
    """`map`, `reduce` or `whole`, where it does not follow from the other options."""
    releases_gil: bool
    """Whether threads speed it up."""
    batched: bool
    """Whether a request may carry several calls; the function is called once for each."""
    max_batch_size: int
    """Most calls of such a request; 16 by default."""
    resources: Mapping[str, float]
    """What one instance wants: `cpu` (cores), `gpu` (devices), `ram` (GiB)."""
    setup: Callable[[], object]
    """Called once, before the service reports that it is ready."""
