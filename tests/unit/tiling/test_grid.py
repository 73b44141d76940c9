"""Blocks, chunks and tiles partition their grid: no pixel twice, none left out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import BLOCK, Scale, Window
from pesto_runtime.tiling import (
    Chain,
    Size,
    Step,
    block_count,
    block_window,
    blocks_of,
    blocks_touching,
    chunk_quantum,
    chunks_of,
    covering_window,
    scaled_size,
    scaled_window,
    tile_count,
    tile_quantum,
    tiles_of,
    whole,
)

QUIET = settings(deadline=None, derandomize=True)
LENGTHS = st.integers(1, 130)
SCENES = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))
RATIOS = st.sampled_from([1, 2, 3, 4, "1/2", "1/3", "1/4", "3/2", "2/3"])


def times_covered(size: Size, windows: list[Window]) -> np.ndarray:
    """How often each pixel (row, col) of a grid is in a window."""
    count = np.zeros((size[1], size[0]), np.uint8)
    for window in windows:
        assert whole(size).contains(window)
        count[window.slices] += 1
    return count


def area(windows: list[Window]) -> int:
    return sum(window.pixels for window in windows)


def overlap(windows: list[Window]) -> bool:
    return any(a.intersection(b).pixels for n, a in enumerate(windows) for b in windows[n + 1 :])


@QUIET
@given(size=st.tuples(LENGTHS, LENGTHS), tile=st.tuples(st.integers(1, 200), st.integers(1, 200)),
       off=st.tuples(st.integers(0, 99), st.integers(0, 99)))  # fmt: skip
def test_tiles_partition_a_chunk(size: Size, tile: Size, off: Size) -> None:
    """Every pixel of a chunk, wherever it lies, is in exactly one tile of at most the size."""
    chunk = Window(*off, *size)
    tiles = list(tiles_of(chunk, tile))
    assert tile_count(chunk, tile) == len(tiles)
    assert (times_covered(size, [each.relative_to(chunk) for each in tiles]) == 1).all()
    assert all(0 < t.width <= tile[0] and 0 < t.height <= tile[1] for t in tiles)
    assert tiles == sorted(tiles, key=lambda each: (each.row_off, each.col_off))


@QUIET
@given(size=SCENES, at_most=st.integers(1, 300), scales=st.lists(RATIOS, max_size=3))
def test_chunks_partition_a_grid_into_whole_blocks(
    size: Size, at_most: int, scales: list[object]
) -> None:
    """Never more than asked for, each on block borders in every output's grid."""
    ratios = [Scale.of(each) for each in scales]
    chunks = list(chunks_of(size, quantum=chunk_quantum(ratios), at_most=at_most))
    assert 1 <= len(chunks) <= at_most
    assert area(chunks) == size[0] * size[1]
    assert not overlap(chunks)
    for chunk in chunks:
        assert chunk.pixels
        assert whole(size).contains(chunk)
        for scale in ratios or [Scale()]:
            assert_on_block_borders(chunk, size, scale)


def assert_on_block_borders(chunk: Window, size: Size, scale: Scale) -> None:
    made, grid = scaled_window(chunk, scale), scaled_size(size, scale)
    assert made.col_off % BLOCK == made.row_off % BLOCK == 0
    assert made.col_stop % BLOCK == 0 or chunk.col_stop == size[0]
    assert made.row_stop % BLOCK == 0 or chunk.row_stop == size[1]
    assert made.col_stop <= grid[0]
    assert made.row_stop <= grid[1]


def test_chunks_off_the_quantum_would_cut_blocks() -> None:
    """Negative control: without a scale's quantum, its blocks are cut."""
    half = Scale.of("1/2")
    chunks = chunks_of((4096, 4096), quantum=chunk_quantum([]), at_most=64)
    assert any(scaled_window(chunk, half).col_off % BLOCK for chunk in chunks)


def test_at_most_no_chunk_is_no_partition() -> None:
    """It is refused, not rounded up."""
    with pytest.raises(ValueError, match="at most 0 chunks"):
        chunks_of((10, 10), quantum=(512, 512), at_most=0)


@pytest.mark.parametrize("size", [(8192, 8192), (51_200, 51_200), (100_000, 700), (600, 90_000)])
def test_chunks_are_many_and_level(size: Size) -> None:
    """Most of the chunks asked for are made, and none is twice another."""
    chunks = chunks_of(size, quantum=(BLOCK, BLOCK), at_most=64)
    blocks = math.prod(block_count(size))
    assert len(chunks) >= min(blocks, 48) * 0.75
    counts = [sum(1 for _ in blocks_touching(chunk)) for chunk in chunks]
    assert max(counts) <= 2.3 * min(counts)


@QUIET
@given(size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_blocks_partition_a_grid(size: Size) -> None:
    """As many as counted, row-major, every pixel in exactly one."""
    blocks = list(blocks_of(size))
    windows = [block_window(each, size) for each in blocks]
    assert len(blocks) == math.prod(block_count(size))
    assert blocks == sorted(blocks)
    assert (times_covered(size, windows) == 1).all()


@QUIET
@given(window=st.builds(Window, *[st.integers(0, 2000)] * 2, *[st.integers(0, 1500)] * 2))
def test_blocks_touching_a_window_are_those_that_share_a_pixel(window: Window) -> None:
    """Compared with asking every block; an empty window touches none."""
    size = (3600, 3600)
    asked = [i for i in blocks_of(size) if block_window(i, size).intersection(window).pixels]
    assert list(blocks_touching(window)) == asked


@QUIET
@given(size=st.tuples(st.integers(8, 130), st.integers(8, 130)), x=RATIOS, y=RATIOS,
       tile=st.tuples(LENGTHS, LENGTHS))  # fmt: skip
def test_tiles_on_the_quantum_partition_every_scaled_grid(
    size: Size, x: object, y: object, tile: Size
) -> None:
    """No output pixel lies between two tiles, and none is made by two."""
    scale = Scale.of([x, y])
    quantum = tile_quantum([scale])
    tile = (-(-tile[0] // quantum[0]) * quantum[0], -(-tile[1] // quantum[1]) * quantum[1])
    made = [scaled_window(each, scale) for each in tiles_of(whole(size), tile)]
    filled = [each for each in made if each.pixels]
    assert (times_covered(scaled_size(size, scale), filled) == 1).all()


def test_tiles_off_the_quantum_lose_pixels() -> None:
    """Negative control: tiles of 3 over a grid at 1/2 make fewer pixels than it has."""
    half = Scale.of("1/2")
    made = [scaled_window(each, half) for each in tiles_of(Window(0, 0, 12, 12), (3, 3))]
    assert area([each for each in made if each.width > 0 < each.height]) < 36


@QUIET
@given(window=st.builds(Window, *[st.integers(0, 60)] * 2, *[st.integers(1, 60)] * 2), x=RATIOS,
       y=RATIOS)  # fmt: skip
def test_a_covering_window_makes_at_least_what_it_covers(
    window: Window, x: object, y: object
) -> None:
    """Rounded outward, it holds every input pixel under the window: one less would not do."""
    scale = Scale.of([x, y])
    under = covering_window(window, scale)
    assert under.col_off * scale.x <= window.col_off < (under.col_off + 1) * scale.x
    assert under.row_off * scale.y <= window.row_off < (under.row_off + 1) * scale.y
    assert (under.col_stop - 1) * scale.x < window.col_stop <= under.col_stop * scale.x
    assert (under.row_stop - 1) * scale.y < window.row_stop <= under.row_stop * scale.y


def test_a_quantum_is_whole_pixels_and_aligned() -> None:
    """The least common multiple of what scales and alignments ask for."""
    assert tile_quantum([]) == (1, 1)
    assert tile_quantum([Scale.of("1/4"), Scale.of(["1/3", 2])], [2, 8]) == (24, 8)


def test_a_chain_refuses_what_has_no_grid() -> None:
    """A raster that does not exist, and rasters of two sizes, are named."""
    with pytest.raises(ValueError, match="reads 'b', which does not exist"):
        Chain.over({"a": (5, 5)}, [Step("s", ("b",), ("c",))])
    with pytest.raises(ValueError, match=r"rasters of sizes \[\(5, 5\), \(6, 5\)\]"):
        Chain.over({"a": (5, 5), "b": (6, 5)}, [Step("s", ("a", "b"), ("c",))])


def test_what_nobody_wants_is_neither_read_nor_made() -> None:
    """An empty window wants nothing; a step without a reader has no windows."""
    steps = [Step("s", ("a",), ("b",)), Step("unread", ("a",), ("c",))]
    chain = Chain.over({"a": (5, 5)}, steps)
    windows = chain.windows({"b": Window(0, 0, 2, 2), "c": Window(0, 0, 0, 2)})
    assert set(windows.steps) == {"s"}
    assert windows.sources == {"a": Window(0, 0, 2, 2)}
    assert chain.windows({"b": Window(0, 0, 0, 0)}).sources == {}
