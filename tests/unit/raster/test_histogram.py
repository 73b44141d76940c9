"""Histograms: every value in its bin, by numpy's own counts."""

from __future__ import annotations

import numpy as np
import pytest

from pesto_runtime.raster.histogram import BINS, histogram_of


def test_few_integers_have_a_bin_each() -> None:
    """Also those that do not occur."""
    found = histogram_of(np.array([3, 3, 5, 7, 7, 7], np.uint8))
    assert found.counts == (2, 0, 1, 0, 3)
    assert (found.least, found.most, found.mean) == (3, 7, 32 / 6)
    assert (found.start, found.stop) == (2.5, 7.5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_many_integers_have_bins_of_equal_whole_width(dtype: str) -> None:
    """No bin is empty for the reason that it contains fewer integers than its neighbour."""
    values = np.arange(200).astype(dtype)
    found = histogram_of(values)
    assert len(found.counts) <= BINS
    assert set(found.counts[:-1]) == {4}
    assert sum(found.counts) == 200


def test_floats_are_counted_as_numpy_does() -> None:
    """64 bins from the least to the greatest value."""
    values = np.random.default_rng(1).normal(size=1000)
    found = histogram_of(values)
    counts, edges = np.histogram(values, BINS)
    assert found.counts == tuple(counts)
    assert (found.start, found.stop) == (edges[0], edges[-1])


def test_nothing_and_one_value_are_no_division_by_zero() -> None:
    """Nor is a range of the whole dtype."""
    assert histogram_of(np.array([])).counts == ()
    assert histogram_of(np.full(7, 0.5)).counts == (7,)
    assert histogram_of(np.full(7, 5, np.uint16)).counts == (7,)
    wide = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert sum(histogram_of(wide).counts) == 2
