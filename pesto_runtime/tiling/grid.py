"""Divide a grid of pixels into product blocks, chunks of whole blocks, and tiles of a chunk.

Integer arithmetic only; margins and chains of steps are in `chain`.
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise, product
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.contract import BLOCK, Scale, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

Size: TypeAlias = tuple[int, int]
"""Width and height, pixels."""

BlockIndex: TypeAlias = tuple[int, int]
"""(row, col) of a block, counted from the grid's top left."""


def whole(size: Size) -> Window:
    """Return the window of the whole grid."""
    return Window(0, 0, *size)


def scaled_size(size: Size, scale: Scale) -> Size:
    """Return the size of a grid at `scale`, without incomplete pixels at the far edges.

    >>> scaled_size((627, 603), Scale.of("1/4"))
    (156, 150)
    """
    if scale.is_one:
        return size
    return (math.floor(size[0] * scale.x), math.floor(size[1] * scale.y))


def scaled_window(window: Window, scale: Scale) -> Window:
    """Return the output pixels that an input window covers completely.

    The output pixel `o` covers the inputs from `o / scale` to `(o + 1) / scale`. Nothing is rounded
    if the window's edges are multiples of the scale's denominators.
    """
    if scale.is_one:
        return window
    return Window.spanning(
        math.ceil(window.col_off * scale.x),
        math.ceil(window.row_off * scale.y),
        math.floor(window.col_stop * scale.x),
        math.floor(window.row_stop * scale.y),
    )


def covering_window(window: Window, scale: Scale) -> Window:
    """Return the input pixels under an output window, rounded outward; inverts `scaled_window`."""
    if scale.is_one:
        return window
    return Window.spanning(
        math.floor(window.col_off / scale.x),
        math.floor(window.row_off / scale.y),
        math.ceil(window.col_stop / scale.x),
        math.ceil(window.row_stop / scale.y),
    )


def block_count(size: Size) -> tuple[int, int]:
    """Return rows and columns of product blocks that cover a grid."""
    return (-(-size[1] // BLOCK), -(-size[0] // BLOCK))


def block_window(index: BlockIndex, size: Size) -> Window:
    """Return the window of a block (row, col) within the grid; edge blocks are smaller.

    >>> block_window((1, 1), (627, 603))
    Window(col_off=512, row_off=512, width=115, height=91)
    """
    row, col = index
    return Window(col * BLOCK, row * BLOCK, BLOCK, BLOCK).intersection(whole(size))


def blocks_of(size: Size) -> Iterator[BlockIndex]:
    """Return every block (row, col) of a grid, row-major."""
    rows, cols = block_count(size)
    return ((row, col) for row in range(rows) for col in range(cols))


def blocks_touching(window: Window) -> Iterator[BlockIndex]:
    """Return the blocks (row, col) that have a pixel in the window, row-major."""
    if not window.pixels:
        return iter(())
    rows = range(window.row_off // BLOCK, -(-window.row_stop // BLOCK))
    cols = range(window.col_off // BLOCK, -(-window.col_stop // BLOCK))
    return ((row, col) for row in rows for col in cols)


def tiles_of(chunk: Window, tile: Size, *, group: Size = (BLOCK, BLOCK)) -> Iterator[Window]:
    """Divide a chunk into tiles from its top left; the last ones are smaller.

    All tiles that begin in one block come before those of the next: a kill then costs the tiles of
    one unfinished block, not those of a whole row of blocks.

    Args:
        chunk: The chunk.
        tile: Width and height of a tile.
        group: Width and height, in the chunk's grid, of the blocks whose tiles stay together.

    >>> [tuple(tile) for tile in tiles_of(Window(0, 0, 5, 2), (3, 2))]
    [(0, 0, 3, 2), (3, 0, 2, 2)]
    >>> [tuple(tile[:2]) for tile in tiles_of(Window(0, 0, 4, 2), (1, 1), group=(2, 2))]
    [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (2, 1), (3, 1)]
    """
    width, height = tile
    for rows in _grouped(range(chunk.row_off, chunk.row_stop, height), group[1]):
        for cols in _grouped(range(chunk.col_off, chunk.col_stop, width), group[0]):
            for row_off, col_off in product(rows, cols):
                yield Window(col_off, row_off, width, height).intersection(chunk)


def tile_count(chunk: Window, tile: Size) -> int:
    """Return the number of tiles into which `tiles_of` divides a chunk.

    >>> tile_count(Window(0, 0, 5, 2), (3, 2))
    2
    """
    return -(-chunk.width // tile[0]) * -(-chunk.height // tile[1])


def _grouped(offsets: range, size: int) -> Iterator[tuple[int, ...]]:
    """Yield the offsets in groups that lie in the same block."""
    for _, found in groupby(offsets, key=lambda offset: offset // size):
        yield tuple(found)


def chunk_quantum(scales: Iterable[Scale]) -> Size:
    """Return the smallest width and height whose multiples are whole blocks in every output grid.

    >>> chunk_quantum([Scale(), Scale.of(2), Scale.of("1/4")])
    (2048, 2048)
    """
    found = tuple(scales) or (Scale(),)
    return (_quantum([s.x for s in found]), _quantum([s.y for s in found]))


def _quantum(ratios: list[Fraction]) -> int:
    return math.lcm(*(r.denominator * (BLOCK // math.gcd(BLOCK, r.numerator)) for r in ratios))


def tile_quantum(scales: Iterable[Scale], aligns: Iterable[int] = ()) -> Size:
    """Return the smallest width and height whose multiples are whole, aligned pixels everywhere."""
    found, wanted = tuple(scales), tuple(aligns)
    return (
        math.lcm(1, *wanted, *(s.x.denominator for s in found)),
        math.lcm(1, *wanted, *(s.y.denominator for s in found)),
    )


def chunks_of(size: Size, *, quantum: Size, at_most: int) -> tuple[Window, ...]:
    """Divide a grid into at most `at_most` rectangles of whole quanta, near-square, row-major.

    Near-square rectangles read the least margin for their area; equal ones end at the same time.

    Raises:
        ValueError: `at_most` is below 1.
    """
    if at_most < 1:
        raise ValueError(f"at most {at_most} chunks is not a partition; give 1 or more")
    cols, rows = -(-size[0] // quantum[0]), -(-size[1] // quantum[1])
    chunk_rows, chunk_cols = _split(rows, cols, at_most, ratio=quantum[0] / quantum[1])
    edges_y = [rows * i // chunk_rows * quantum[1] for i in range(chunk_rows + 1)]
    edges_x = [cols * i // chunk_cols * quantum[0] for i in range(chunk_cols + 1)]
    grid = whole(size)
    return tuple(
        Window.spanning(x0, y0, x1, y1).intersection(grid)
        for y0, y1 in pairwise(edges_y)
        for x0, x1 in pairwise(edges_x)
    )


def _split(rows: int, cols: int, at_most: int, *, ratio: float) -> tuple[int, int]:
    """Return rows and columns of chunks: many and square; a ratio of 2:1 costs a sixth of them."""

    def worth(shape: tuple[int, int]) -> float:
        longness = abs(math.log((cols / shape[1] * ratio) / (rows / shape[0])))
        return shape[0] * shape[1] * math.exp(-longness / 4)

    shapes = [(n, min(cols, at_most // n)) for n in range(1, min(rows, at_most) + 1)]
    return max(shapes, key=worth)
