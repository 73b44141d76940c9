"""Pictures as PNG, read back by GDAL's driver."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.io import MemoryFile

from pesto_runtime.raster.png import png

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (64, 51)])
def test_gdal_reads_the_same_entries_and_colours(shape: tuple[int, int], smooth: bool) -> None:
    """All 256 entries; entry 0 is transparent, and no other."""
    colours = [(n, 255 - n, n // 2) for n in range(256)]
    entries = RNG.integers(0, 256, shape).astype(np.uint8)
    with MemoryFile(png(entries, colours, smooth=smooth)) as file, file.open() as dataset:
        assert np.array_equal(dataset.read(1), entries)
        table = dataset.colormap(1)
    assert table == {n: (*colour, 255 * (n > 0)) for n, colour in enumerate(colours)}


@pytest.mark.parametrize("smooth", [False, True])
def test_gdal_reads_the_same_red_green_blue_and_alpha(smooth: bool) -> None:
    """Also from an array whose pixels are not in order."""
    bands = RNG.integers(0, 256, (4, 30, 20)).astype(np.uint8)
    with MemoryFile(png(np.moveaxis(bands, 0, -1), smooth=smooth)) as file, file.open() as dataset:
        assert np.array_equal(dataset.read(), bands)


def test_differences_of_a_smooth_picture_take_fewer_bytes() -> None:
    """The control: noise takes as many either way."""
    hill = np.add.outer(np.arange(200), np.arange(200)) / 2 + RNG.normal(0, 1, (200, 200))
    noise = RNG.integers(0, 255, (200, 200)).astype(np.uint8)
    grey = [(n, n, n) for n in range(256)]
    hills, noises = (
        [len(png(each, grey, smooth=smooth)) for smooth in (True, False)]
        for each in (hill.clip(0, 255).astype(np.uint8), noise)
    )
    assert hills[0] < 0.8 * hills[1]
    assert noises[0] == pytest.approx(noises[1], rel=0.02)
