"""Samples for previews: the same pixels, whatever windows they are taken from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Window
from pesto_runtime.tiling import SampleGrid
from pesto_runtime.tiling.sample_grid import MOST_SAMPLE_BYTES, MOST_SAMPLES

SIDES = st.integers(1, 70)


@settings(deadline=None, derandomize=True)
@given(SIDES, SIDES, st.integers(1, 90), st.data())
def test_samples_of_a_window_are_those_of_the_whole(
    width: int, height: int, step: int, data: st.DataObject
) -> None:
    """A window has exactly the samples of numpy's slice of the whole raster that are in it."""
    grid = SampleGrid((width, height), step)
    raster = np.arange(width * height).reshape(height, width)
    start = [min(step // 2, (side - 1) // 2) for side in (width, height)]
    expected = raster[start[1] :: step, start[0] :: step]
    assert (grid.height, grid.width) == expected.shape
    col, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    size = data.draw(st.integers(1, width - col)), data.draw(st.integers(1, height - row))
    window = Window(col, row, *size)
    samples = grid.samples_in(window)
    taken = raster[window.slices][grid.slices(samples, window)]
    inside = np.isin(expected, raster[window.slices])
    assert np.array_equal(taken.ravel(), expected[inside])
    assert taken.shape == (samples.height, samples.width)


@pytest.mark.parametrize(
    ("size", "pixel_bytes", "step"),
    [
        ((1024, 5), 8, 1),
        ((1025, 5), 8, 2),
        ((6144, 5), 8, 6),
        ((9000, 5), 8, 6),  # 1500 samples, a sixth
        ((12_288, 5), 8, 6),
        ((12_289, 5), 8, 7),
        ((10_980, 10_980), 8, 11),
        ((10_980, 10_980), 1, 6),
        ((1, 1), 1_000, 1),
        ((1024, 1024), 8, 1),
        ((1024, 1024), 9, 2),
        ((1, 300_000), 2, 147),
    ],
)
def test_the_finest_grid_within_the_limits(
    size: tuple[int, int], pixel_bytes: int, step: int
) -> None:
    """The step is the least with 8 MiB, 2048 samples a side, and a sixth of more than 1024."""
    grid = SampleGrid.of(size, pixel_bytes=pixel_bytes)
    assert grid.step == step
    assert max(grid.width, grid.height) <= MOST_SAMPLES
    assert grid.width * grid.height * pixel_bytes <= MOST_SAMPLE_BYTES
