"""What an author may say of a process beside its hints."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pesto_runtime.contract import Fold, Margin, Tileable


class ProcessOptions(TypedDict, total=False):
    """What `@process(...)` takes.

    `margin` and `align` hold for every image input without its own. `reduce` gives a fold per key
    of the partial that the function returns; `finish(partial)` then gives the outputs. `setup`
    runs once, before the service says that it is ready. `batched` lets a request carry up to
    `max_batch_size` calls (16); the function is called for one after the other.
    """

    name: str
    version: str
    title: str
    family: str
    organization: str
    email: str
    keywords: Sequence[str]
    margin: int | Mapping[str, int] | Margin
    align: int
    reduce: Mapping[str, Fold]
    finish: Callable[..., object]
    tileable: Tileable
    releases_gil: bool
    batched: bool
    max_batch_size: int
    resources: Mapping[str, float]
    setup: Callable[[], object]
