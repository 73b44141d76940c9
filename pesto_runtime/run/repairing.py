"""Read what finished chunks have stored, and compute what is damaged or lost again.

A damaged object or pack has been deleted by its reader: running its chunk again makes exactly what
is missing. Without damage nothing is computed here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import BLOCK, Chunk, Hole, Scale
from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.run.chunk import process, tiles_at_once
from pesto_runtime.run.context import (
    grid_of,
    holed_name,
    load_context,
    missing_blocks,
    stored_blocks,
)
from pesto_runtime.run.partials import blocks_with_partials
from pesto_runtime.run.result import entries
from pesto_runtime.run.tile_values import partial_indices
from pesto_runtime.tiling import block_window, blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from pydantic import JsonValue

    from pesto_runtime.raster.product import Blocks
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.packs import StoredBlocks
    from pesto_runtime.tiling import BlockIndex

_CHUNKS = re.compile(r"/(\d+)-(\d+)-(\d+)\.json$")


def read_block(plan_href: str, raster: str, index: BlockIndex) -> bytes:
    """Read the block (row, col) of a raster or a vector; compute it again if it is damaged.

    Raises:
        NotFound: it is not there, and running its chunk again did not make it: a tile failed.
        PestoError: as for `process`.
    """
    context = load_context(plan_href)
    window = block_window(index, context.sizes[raster])
    try:
        return stored_blocks(context, raster, window=window).read(index)
    except Damaged:
        _run_chunks_of(plan_href, raster, [index])
    return stored_blocks(context, raster, window=window).read(index)


def blocks_in_order(
    plan_href: str, owner: str, stored: StoredBlocks
) -> Iterator[Blocks | BlockIndex]:
    """Read the blocks of a raster or a vector, row-major; compute damaged ones again.

    Args:
        plan_href: Href of the plan.
        owner: The raster or vector.
        stored: Its stored blocks.

    Yields:
        Stored blocks; and the index (row, col) of each block that was missing in `stored`.

    Raises:
        NotFound: running the chunk of a damaged block again did not make it: a tile failed.
        PestoError: as for `process`.
    """
    at, repaired = 0, -1
    for number in [*stored.missing.tolist(), len(stored.places)]:
        while at < number:
            try:
                for blocks in stored.in_order(at, number):
                    yield blocks
                    at += len(blocks.sizes)
            except Damaged:
                if repaired == at:  # again, at the same place
                    raise
                repaired = at
                stored = _repaired(plan_href, owner, stored)
        if number < len(stored.places):
            yield divmod(number, stored.columns)  # of the whole grid
        at = number + 1


def _repaired(plan_href: str, owner: str, before: StoredBlocks) -> StoredBlocks:
    """Compute the blocks again that were stored before and are not any more."""
    context = load_context(plan_href)
    now = stored_blocks(context, owner)
    lost = np.setdiff1d(now.missing, before.missing)
    _run_chunks_of(plan_href, owner, now.indices(lost))
    return stored_blocks(context, owner)


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
    scale = _scale_of(context, owner)
    missing: Iterable[BlockIndex]
    if owner in context.stages:
        there = blocks_with_partials(context, owner)
        missing = sorted(partial_indices(context, owner) - there)
    else:
        missing = missing_blocks(context, owner)
    failed = {
        index for hole in holes for index in blocks_touching(scaled_window(hole.window, scale))
    }
    lost = [
        index for index in missing if not (index in failed and _has_hole(context, owner, index))
    ]
    return _run_chunks_of(plan_href, owner, lost)


def _scale_of(context: RunContext, owner: str) -> Scale:
    """Return the scale of the grid whose blocks have the objects of a raster, vector or stage."""
    if owner in context.stages and context.stages[owner].is_folded:
        return Scale()  # tiles are known by blocks of the phase's grid
    return context.grid_type(grid_of(context, owner)).scale


def _has_hole(context: RunContext, owner: str, index: BlockIndex) -> bool:
    """Whether the pixels beside a hole are stored; a reduce has none."""
    return owner in context.stages or context.store.has(holed_name(context, owner, index))


def _run_chunks_of(plan_href: str, owner: str, blocks: Collection[BlockIndex]) -> bool:
    """Run the chunks that store the objects of some blocks (row, col); False for no block."""
    if not blocks:
        return False
    context = load_context(plan_href)
    indices = np.array([*blocks])
    scale = _scale_of(context, owner)
    for number, phase in enumerate(context.phases):
        if owner not in (*phase.writes, *phase.values):
            continue
        for start, window in enumerate(context.plan.phases[number].chunks):
            own = scaled_window(window, scale)
            first = (own.row_off // BLOCK, own.col_off // BLOCK)
            last = ((own.row_stop - 1) // BLOCK, (own.col_stop - 1) // BLOCK)
            if own.pixels and ((first <= indices) & (indices <= last)).all(axis=1).any():
                _run(Chunk(plan=plan_href, phase=number, start=start, stop=start + 1))
    return True


def _run(chunk: Chunk) -> None:
    try:
        process(chunk, threads=tiles_at_once(load_context(chunk.plan), chunk.phase))
    except NotFound as error:
        raise error.prefixed("a damaged object cannot be computed again") from error
