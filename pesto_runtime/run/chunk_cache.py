"""Take what a chunk stores from a cache before its tiles run, and give the cache what they made.

What the cache lacks is computed. Which blocks of other windows are equal, is in `cached_blocks`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.masking import masked
from pesto_runtime.pipeline import JsonType, VectorType
from pesto_runtime.run.cache_store import CacheStore, open_cache
from pesto_runtime.run.cached_blocks import CachedBlocks, cache_folder, run_window
from pesto_runtime.run.context import (
    folder_of,
    grid_of,
    missing_blocks,
    scalars_name,
    stored_blocks,
)
from pesto_runtime.run.packs import PackWriter
from pesto_runtime.run.partials import (
    blocks_in_partials,
    blocks_with_partials,
    may_have_partials,
    stored_partials,
)
from pesto_runtime.run.tile_values import tile_indices
from pesto_runtime.tiling import blocks_touching, scaled_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import CachePlace, Window
    from pesto_runtime.pipeline import PhaseStages
    from pesto_runtime.run.assembling import Block
    from pesto_runtime.run.blocks import ChunkWriter
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.packs import StoredBlocks
    from pesto_runtime.tiling import BlockIndex


@dataclass
class ChunkCache:
    """The cache of one chunk.

    Attributes:
        context: The run.
        stages: The phase.
        chunk: The chunk, in the grid of the scenes.
        place: The keys of the run in the cache.
        cache: The cache.
        taken: Raster -> blocks (row, col) that came from the cache.
    """

    context: RunContext
    stages: PhaseStages
    chunk: Window
    place: CachePlace
    cache: CacheStore
    taken: dict[str, set[BlockIndex]] = field(default_factory=dict)

    def restore_objects(self, context: RunContext) -> None:
        """Store features, partials and JSON outputs of equal runs in the run store.

        Args:
            context: The run, with the guarded store of the chunk.

        Raises:
            PestoError: the run store cannot be written, or a check of the guard failed.
        """
        for name in self._written:
            if self._is_vector(name):
                self._restore_features(context, name)
        for stage in self._folding:
            self._restore_partials(context, stage)
        if self.stages.kind == "whole":
            restore_outputs(context, self.stages.stages[0].id)

    def blocks_for(self, writer: ChunkWriter) -> Iterator[tuple[str, Block, bytes | None]]:
        """Yield raster, block, and its bytes if the cache has just this block, of those missing."""
        for name, assembler in writer.assemblers.items():
            if name in self.place.keys and assembler.wanted:
                cached = CachedBlocks(
                    self.context, self.stages, self.place, self.cache, name, self._part(name)
                )
                for block, data in cached.restored(sorted(assembler.wanted)):
                    self.taken.setdefault(name, set()).add(block.index)
                    yield name, block, data

    def keep(self) -> None:
        """Give the cache what it lacks of the chunk, whose scenes and code have been verified."""
        for name in self._written:
            folder, part = self._folder(name), self._part(name)
            stored = stored_blocks(self.context, name, window=part)
            known = self.cache.blocks(folder, part)
            if known is not None:
                absent = (stored.places["pack"] >= 0) & (known.places["pack"] < 0)
                self.cache.write(folder, self._blocks(name, stored, np.flatnonzero(absent)))
                self._describe(name)
        for stage in self._folding:
            self._keep_partials(stage)
        if self.stages.kind == "whole":
            keep_outputs(self.context, self.stages.stages[0].id)

    @property
    def _written(self) -> list[str]:
        return [name for name in self.stages.writes if name in self.place.keys]

    @property
    def _folding(self) -> list[str]:
        """The stages with partials: of blocks, or of tiles."""
        return [name for name in self.stages.values if name in self.place.keys]

    def _expected(self, stage: str) -> set[BlockIndex]:
        """Return the blocks (row, col) of the chunk that have partials of a stage."""
        if self.context.stages[stage].is_folded:
            return tile_indices(self.context, stage, [self.chunk])
        return set(blocks_touching(self._part(grid_of(self.context, stage))))

    def _blocks(
        self, name: str, stored: StoredBlocks, numbers: np.ndarray
    ) -> Iterator[tuple[BlockIndex, bytes]]:
        """Yield stored blocks of some row-major numbers, without those that were taken."""
        taken = self.taken.get(name, set())
        for group in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            indices = iter(stored.indices(group))
            found = stored.in_order(int(group[0]), int(group[-1]) + 1) if group.size else ()
            for data in (each for blocks in found for each in blocks.split()):
                index = next(indices)
                if index not in taken:
                    yield index, data

    def _restore_features(self, context: RunContext, name: str) -> None:
        folder, part = self._folder(name), self._part(name)
        known = self.cache.blocks(folder, part)
        if known is None:
            return
        writer = PackWriter(context.store, folder_of(context, name))
        for index in filter(known.__contains__, missing_blocks(context, name, window=part)):
            data = self.cache.read(folder, known, index)
            if data is not None:
                writer.add(index, data)
        writer.flush()

    def _restore_partials(self, context: RunContext, stage: str) -> None:
        expected = self._expected(stage)
        missing = expected - blocks_with_partials(context, stage, expected)
        for name in self.cache.names(f"partials/{self.place.keys[stage]}") if missing else ():
            data = self.cache.get(name) if may_have_partials(name, missing) else None
            # An object with a block of another chunk, or with one that is there, would repeat it.
            if data is not None and blocks_in_partials(data) <= missing:
                missing -= blocks_in_partials(data)
                context.store.put(f"{folder_of(context, stage)}/{_last(name)}", data)

    def _keep_partials(self, stage: str) -> None:
        folder = f"partials/{self.place.keys[stage]}"
        known = {_last(name) for name in self.cache.names(folder)}
        expected = self._expected(stage)
        for name, data in stored_partials(self.context, stage, expected):
            # Those of other chunks are not verified yet.
            if _last(name) not in known and blocks_in_partials(data) <= expected:
                self.cache.put(f"{folder}/{_last(name)}", data)

    def _describe(self, name: str) -> None:
        stage = self.context.stages[name[1:].partition(".")[0]]
        scene = next(iter(self.context.plan.scenes.values()))
        facts = {"process": stage.stage.process, "scene": masked(scene.href)}
        self.cache.describe(self.place.keys[name], facts)

    def _is_vector(self, name: str) -> bool:
        return isinstance(self.context.types[name], VectorType)

    def _folder(self, name: str) -> str:
        kind = "features" if self._is_vector(name) else "blocks"
        return cache_folder(self.place, kind, name, run_window(self.context))

    def _part(self, name: str) -> Window:
        """Return the pixels of a raster or a vector in the chunk."""
        return scaled_window(self.chunk, self.context.grid_type(name).scale)


def chunk_cache(context: RunContext, stages: PhaseStages, chunk: Window) -> ChunkCache | None:
    """Return the cache of a chunk; None for a run without a cache."""
    place = context.plan.cache
    cache = open_cache(place.href) if place else None
    return ChunkCache(context, stages, chunk, place, cache) if place and cache else None


def restore_outputs(context: RunContext, stage: str) -> None:
    """Store the JSON outputs of a stage, if the cache has them and the run store does not.

    Raises:
        PestoError: the run store cannot be written.
    """
    cache, key = _outputs(context, stage)
    name = scalars_name(context, stage)
    data = cache.get(key) if cache else None
    if data is not None and not context.store.has(name):
        context.store.put_json(name, json.loads(data))


def keep_outputs(context: RunContext, stage: str) -> None:
    """Give the cache the JSON outputs of a stage, if the run store has them.

    Raises:
        PestoError: the run store cannot be read.
    """
    cache, key = _outputs(context, stage)
    if cache and context.store.has(scalars_name(context, stage)):
        cache.put(key, context.store.get(scalars_name(context, stage)))


def _outputs(context: RunContext, stage: str) -> tuple[CacheStore | None, str]:
    """Return the cache and the name in it of the JSON outputs of a stage; None if it has none."""
    place = context.plan.cache
    has_any = any(isinstance(each, JsonType) for each in context.stages[stage].makes.values())
    if place is None or stage not in place.keys or not has_any:
        return None, ""
    return open_cache(place.href), f"scalars/{place.keys[stage]}.json"


def _last(name: str) -> str:
    return name.rpartition("/")[2]
