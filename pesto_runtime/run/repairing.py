"""Read the objects of finished chunks, and compute those that are damaged or lost again.

A damaged object has been deleted by its reader: running its chunk again makes exactly what is
missing. Without damage nothing is computed here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pesto_runtime.contract import Chunk, Hole
from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.run.chunk import process, tiles_at_once
from pesto_runtime.run.context import grid_of, holed_name, load_context, stored_blocks
from pesto_runtime.run.partials import blocks_with_partials
from pesto_runtime.run.result import entries
from pesto_runtime.tiling import blocks_of, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import JsonValue

    from pesto_runtime.run.context import RunContext
    from pesto_runtime.tiling import BlockIndex

_CHUNKS = re.compile(r"/(\d+)-(\d+)-(\d+)\.json$")


def read_block_object(
    plan_href: str,
    owner: str,
    index: BlockIndex,
    name: str,
    *,
    read: Callable[[], bytes] | None = None,
) -> bytes:
    """Read an object that a chunk has stored for a block; compute it again if it is damaged.

    Args:
        plan_href: Href of the plan.
        owner: The raster or vector of the object, or the id of the reduce.
        index: The block (row, col).
        name: Name of the object.
        read: Returns the object, where it is read ahead.

    Raises:
        NotFound: it is not there, and running its chunk again did not make it: a tile failed.
        PestoError: as for `process`.
    """
    store = load_context(plan_href).store
    try:
        return store.get(name) if read is None else read()
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


def recorded_holes(plan_href: str) -> list[Hole]:
    """Return the tiles of a run that failed finally.

    Raises:
        PestoError: as for `process`.
    """
    manifests = repaired_manifests(plan_href)
    return [Hole.model_validate(each) for m in manifests for each in entries(m, "holes")]


def complete(plan_href: str, owner: str, holes: Sequence[Hole]) -> bool:
    """Run the chunks again whose objects are missing although no tile of their block failed.

    The store was cleaned or damaged: without this, a hole elsewhere would let them pass for holes.

    Args:
        plan_href: Href of the plan.
        owner: A raster or vector, or the id of a reduce.
        holes: The tiles that failed finally.

    Returns:
        Whether a chunk ran; the holes may then be others.

    Raises:
        PestoError: as for `process`.
    """
    context = load_context(plan_href)
    grid = grid_of(context, owner)
    scale, size = context.grid_type(grid).scale, context.sizes[grid]
    failed = {
        index for hole in holes for index in blocks_touching(scaled_window(hole.window, scale))
    }
    there = (
        blocks_with_partials(context, owner)
        if owner in context.stages
        else stored_blocks(context, owner)
    )
    lost = [
        index
        for index in blocks_of(size)
        if index not in there and not (index in failed and _has_hole(context, owner, index))
    ]
    chunks = {chunk for index in lost for chunk in _chunks_of(plan_href, owner, index)}
    for chunk in sorted(chunks, key=lambda each: each.start):
        _run(chunk)
    return bool(chunks)


def _has_hole(context: RunContext, owner: str, index: BlockIndex) -> bool:
    """Whether the pixels beside a hole are stored; a reduce has none."""
    return owner in context.stages or context.store.has(holed_name(context, owner, index))


def _compute_again(plan_href: str, owner: str, index: BlockIndex) -> None:
    for chunk in _chunks_of(plan_href, owner, index):
        _run(chunk)


def _chunks_of(plan_href: str, owner: str, index: BlockIndex) -> Iterator[Chunk]:
    """Yield the chunk that stores the objects of a block."""
    context = load_context(plan_href)
    for number, phase in enumerate(context.phases):
        if owner not in phase.writes and owner not in {stage.id for stage in phase.reduces}:
            continue
        scale = context.grid_type(grid_of(context, owner)).scale
        for start, window in enumerate(context.plan.phases[number].chunks):
            if index in blocks_touching(scaled_window(window, scale)):
                yield Chunk(plan=plan_href, phase=number, start=start, stop=start + 1)


def _run(chunk: Chunk) -> None:
    try:
        process(chunk, threads=tiles_at_once(load_context(chunk.plan), chunk.phase))
    except NotFound as error:
        raise error.prefixed("a damaged object cannot be computed again") from error
