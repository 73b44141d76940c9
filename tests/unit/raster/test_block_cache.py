"""Blocks that several windows show are decoded once, whatever thread needs them first."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Window
from pesto_runtime.raster.block_cache import BlockCache, CellGrid
from tests.support.rasters import noise

PIXELS = noise(1300, 1100, bands=2, dtype="uint16")
WHOLE = Window(0, 0, 1300, 1100)


class File:
    """Pixels that are read by window; counts how often each pixel is."""

    def __init__(self, bounds: Window = WHOLE) -> None:
        self.bounds = bounds
        self.reads: Counter[Window] = Counter()

    def read(self, window: Window) -> np.ndarray:
        """Pixels of a window of the bounds."""
        self.reads[window] += 1
        moved = Window(
            window.col_off + self.bounds.col_off, window.row_off + self.bounds.row_off, *window[2:]
        )
        return PIXELS[(slice(None), *moved.slices)].copy()


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_window_of_any_file_is_its_pixels(data: st.DataObject) -> None:
    """Blocks of all sizes, rows too; a part of the file as the raster; little room in the cache."""
    block = data.draw(
        st.sampled_from([(256, 256), (512, 512), (700, 300), (1300, 1), (1300, 16), (64, 64)])
    )
    col, row = data.draw(st.integers(0, 600)), data.draw(st.integers(0, 500))
    bounds = Window(col, row, data.draw(st.integers(1, 1300 - col)), 1100 - row)
    file, grid = File(bounds), CellGrid.of(block, bounds)
    cache = BlockCache(data.draw(st.sampled_from([0, 3 << 20, 1 << 30])))
    for _ in range(4):
        left = data.draw(st.integers(0, bounds.width - 1))
        top = data.draw(st.integers(0, bounds.height - 1))
        window = Window(
            left,
            top,
            data.draw(st.integers(1, bounds.width - left)),
            data.draw(st.integers(1, bounds.height - top)),
        )
        expected = File(bounds).read(window)
        got = cache.read("f", grid, window, read=file.read)
        assert np.array_equal(got, expected)
        got[:] = 0  # it is the caller's own
        assert np.array_equal(cache.read("f", grid, window, read=file.read), expected)


def test_overlapping_windows_of_threads_decode_each_cell_once() -> None:
    """Nine tiles with margins in four threads; without room, cells are decoded again."""
    grid = CellGrid.of((512, 512), WHOLE)
    tiles = [
        Window(x, y, 440, 380).intersection(WHOLE) for y in (0, 360, 720) for x in (0, 430, 860)
    ]
    for room, is_shared in ((1 << 30, True), (0, False)):
        file, cache = File(), BlockCache(room)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda tile: cache.read("f", grid, tile, read=file.read), tiles))  # noqa: B023
        assert (max(file.reads.values()) == 1) == is_shared
        assert len(file.reads) == 9


def test_the_bytes_are_bounded_and_the_oldest_leave() -> None:
    """Two cells of 1 MiB have room; the first that was used again stays."""
    grid, file, cache = CellGrid.of((512, 512), WHOLE), File(), BlockCache(2 << 20)
    first, second, third = (Window(x, 0, 500, 500) for x in (0, 512, 0))
    third = Window(0, 512, 500, 500)
    for window in (first, second, first, third, first, second):
        cache.read("f", grid, window, read=file.read)
    counts = [file.reads[each] for each in (next(iter(grid.cells(w))) for w in (first, second))]
    assert counts == [1, 2]
    cache.clear()
    cache.read("f", grid, first, read=file.read)
    assert file.reads[next(iter(grid.cells(first)))] == 2


def test_a_cell_that_cannot_be_read_is_tried_again() -> None:
    """The error reaches every thread that waits; the next call reads."""
    grid, cache = CellGrid.of((512, 512), WHOLE), BlockCache(1 << 30)
    begun, waiting = threading.Event(), threading.Event()

    def fails(_window: Window) -> np.ndarray:
        begun.set()
        waiting.wait(5)
        raise OSError("truncated")

    window = Window(5, 5, 10, 10)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(cache.read, "f", grid, window, read=fails)
        begun.wait(5)
        other = pool.submit(cache.read, "f", grid, window, read=File().read)
        waiting.set()
        with pytest.raises(OSError, match="truncated"):
            one.result()
        assert other.exception() is None or "truncated" in str(other.exception())
    got = cache.read("f", grid, window, read=File().read)
    assert np.array_equal(got, File().read(window))


@pytest.mark.parametrize(
    ("window", "is_aligned"),
    [
        (Window(0, 0, 512, 1024), True),
        (Window(512, 512, 788, 588), True),
        (Window(0, 0, 512, 1000), False),
        (Window(1, 0, 511, 512), False),
        (Window(512, 0, 700, 512), False),
    ],
)
def test_whole_cells_are_read_without_the_cache(window: Window, *, is_aligned: bool) -> None:
    """A window of whole cells shares none with another tile."""
    assert CellGrid.of((256, 256), WHOLE).is_aligned(window) == is_aligned
