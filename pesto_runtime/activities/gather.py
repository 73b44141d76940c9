"""Gather the features of a chunk's tiles into product blocks; a block leaves when it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.tiling import BlockIndex, Size, block_window, blocks_touching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import JsonValue

    from pesto_runtime.activities.features import Feature
    from pesto_runtime.contract import Window


@dataclass
class FeatureBlock:
    """The features of a block, while its tiles come in.

    Attributes:
        index: (row, col) in the vector's grid.
        missing: Pixels whose tiles are not there yet.
        features: That the block owns.
        has_hole: Whether a tile of it failed.
    """

    index: BlockIndex
    missing: int
    features: list[Feature] = field(default_factory=list)
    has_hole: bool = False

    def encode(self) -> bytes:
        """The features as a JSON list, in their canonical order; never empty bytes."""
        return f"[{','.join(each.content for each in sorted(self.features))}]".encode()


def decode_block(data: bytes) -> list[JsonValue]:
    """Features of a block as it is kept, in pixels of the vector's grid."""
    features: list[JsonValue] = json.loads(data)
    return features


@dataclass
class FeatureBlocks:
    """Blocks of one vector within one chunk.

    Attributes:
        name: The vector's reference.
        size: Width and height of its grid.
        wanted: Blocks to gather; features of others are let go.
    """

    name: str
    size: Size
    wanted: set[BlockIndex]
    _open: dict[BlockIndex, FeatureBlock] = field(default_factory=dict)

    def wants(self, window: Window) -> bool:
        """Whether any block that is still wanted has a pixel in the window."""
        return any(index in self.wanted for index in blocks_touching(window))

    def add(self, window: Window, features: Iterable[Feature]) -> Iterator[FeatureBlock]:
        """Take those features of a tile that its window owns; yield the blocks that became whole.

        Args:
            window: What the tile writes, its margin not included, in the vector's grid.
            features: All that were found, those in the margin too.
        """
        blocks = {block.index: block for block in self._touched(window)}
        for feature in features:
            if feature.block in blocks and feature.is_within(window):
                blocks[feature.block].features.append(feature)
        for block in blocks.values():
            yield from self._written(block, window)

    def spoil(self, window: Window) -> Iterator[FeatureBlock]:
        """Take note that a tile failed, and yield the blocks that became whole."""
        for block in list(self._touched(window)):
            block.has_hole = True
            yield from self._written(block, window)

    def _touched(self, window: Window) -> Iterator[FeatureBlock]:
        for index in blocks_touching(window):
            if index in self.wanted:
                pixels = block_window(index, self.size).pixels
                yield self._open.setdefault(index, FeatureBlock(index, pixels))

    def _written(self, block: FeatureBlock, window: Window) -> Iterator[FeatureBlock]:
        block.missing -= block_window(block.index, self.size).intersection(window).pixels
        if not block.missing:
            del self._open[block.index]
            self.wanted.discard(block.index)
            yield block
