"""Read the objects of finished chunks, and compute those that are damaged or lost again.

A damaged object has been deleted by its reader: running its chunk again makes exactly what is
missing. Without damage nothing is computed here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pesto_runtime.contract import Chunk
from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.run.chunk import process, tiles_at_once
from pesto_runtime.run.context import load_context
from pesto_runtime.tiling import blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_runtime.tiling import BlockIndex

_CHUNKS = re.compile(r"/(\d+)-(\d+)-(\d+)\.json$")


def read_block_object(plan_href: str, owner: str, index: BlockIndex, name: str) -> bytes:
    """Read an object that a chunk has stored for a block; compute it again if it is damaged.

    Args:
        plan_href: Href of the plan.
        owner: The raster or vector of the object, or the id of the reduce.
        index: The block (row, col).
        name: Name of the object.

    Raises:
        NotFound: it is not there, and running its chunk again did not make it: a tile failed.
        PestoError: as for `process`.
    """
    store = load_context(plan_href).store
    try:
        return store.get(name)
    except Damaged:
        _compute_again(plan_href, owner, index)
    return store.get(name)


def repaired_manifests(plan_href: str) -> list[dict[str, JsonValue]]:
    """Return every manifest of a run; the chunks of damaged ones run again.

    The costs of a single call whose manifest is damaged are lost.

    Raises:
        PestoError: as for `process`.
    """
    context = load_context(plan_href)
    found = []
    for name in sorted(context.store.names(f"manifests/{context.plan.run}")):
        try:
            document = context.store.get_json(name)
        except Damaged:
            numbers = _CHUNKS.search(name)
            if numbers is None:
                continue
            phase, start, stop = map(int, numbers.groups())
            _run(Chunk(plan=plan_href, phase=phase, start=start, stop=stop))
            document = context.store.get_json(name)
        if isinstance(document, dict):
            found.append(dict(document))
    return found


def _compute_again(plan_href: str, owner: str, index: BlockIndex) -> None:
    for chunk in _chunks_of(plan_href, owner, index):
        _run(chunk)


def _chunks_of(plan_href: str, owner: str, index: BlockIndex) -> Iterator[Chunk]:
    """Yield the chunk that stores the objects of a block."""
    context = load_context(plan_href)
    for number, phase in enumerate(context.phases):
        reduces = {stage.id: str(next(iter(stage.rasters.values()))) for stage in phase.reduces}
        if owner not in phase.writes and owner not in reduces:
            continue
        scale = context.grid_type(reduces.get(owner, owner)).scale
        for start, window in enumerate(context.plan.phases[number].chunks):
            if index in blocks_touching(scaled_window(window, scale)):
                yield Chunk(plan=plan_href, phase=number, start=start, stop=start + 1)


def _run(chunk: Chunk) -> None:
    try:
        process(chunk, threads=tiles_at_once(load_context(chunk.plan), chunk.phase))
    except NotFound as error:
        raise error.prefixed("a damaged object cannot be computed again") from error
