"""Rasters stay open during one run, so that it never reads an older state."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pesto_runtime.contract import Window
from pesto_runtime.errors import RasterUnreadable, SceneChanged
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.run.readers import ReaderCache
from tests.support.rasters import noise, write_scene

WHOLE = Window(0, 0, 40, 30)


def test_a_raster_is_opened_once_in_a_run(tmp_path: Path) -> None:
    """Two chunks of a run share the open raster, and the blocks that GDAL decoded for it."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    assert used(cache, "one", href) is used(cache, "one", href)


def test_another_run_opens_it_anew(tmp_path: Path) -> None:
    """A raster that was replaced between two runs is read as it is now; within one it is not."""
    cache, path = ReaderCache(), tmp_path / "s.tif"
    before = read(cache, "one", str(write_scene(path, noise(40, 30, seed=1))))
    path.unlink()
    write_scene(path, noise(40, 30, seed=2))
    assert np.array_equal(read(cache, "one", str(path)), before)
    assert np.array_equal(read(cache, "two", str(path)), noise(40, 30, seed=2))


def test_a_local_raster_has_the_planned_identity_once_it_is_open(tmp_path: Path) -> None:
    """One that was replaced between the start of a chunk and its opening is never read."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    for _ in range(2):
        with pytest.raises(SceneChanged):
            used(cache, "one", href, "1-2-3")
    assert used(cache, "one", href, identity_of(href)) is used(cache, "one", href)


def test_a_raster_is_of_one_thread_at_a_time(tmp_path: Path) -> None:
    """An open raster is never read by two threads at once; a thread that has ended leaves its."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    with cache.reader("one", href) as mine, ThreadPoolExecutor(1) as pool:
        other = pool.submit(used, cache, "one", href).result()
    assert other is not mine
    assert {id(used(cache, "one", href)) for _ in range(2)} <= {id(mine), id(other)}


def test_a_raster_that_failed_is_opened_again(tmp_path: Path) -> None:
    """So a retry reads the header of the file anew; every open one of the raster is closed."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    with cache.reader("one", href) as first, cache.reader("one", href):
        pass
    failure = RasterUnreadable("a block is corrupt")
    with pytest.raises(RasterUnreadable), cache.reader("one", href) as second:
        raise failure
    assert used(cache, "one", href) not in (first, second)


def test_few_rasters_stay_open(tmp_path: Path) -> None:
    """A worker that runs for weeks does not keep the files of all of its runs open."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    first = used(cache, "first", href)
    for number in range(64):
        used(cache, str(number), href)
    assert used(cache, "first", href) is not first
    assert used(cache, "63", href).read(WHOLE).any()


def test_what_could_not_be_opened_is_not_kept(tmp_path: Path) -> None:
    """A raster that appears later is found by the next attempt."""
    cache, path = ReaderCache(), tmp_path / "late.tif"
    with pytest.raises(RasterUnreadable):
        used(cache, "one", str(path))
    write_scene(path, noise(40, 30))
    assert read(cache, "one", str(path)).shape == (1, 30, 40)


def used(cache: ReaderCache, run: str, href: str, identity: str = "") -> RasterReader:
    """The raster that a thread gets, which gives it back."""
    with cache.reader(run, href, identity) as reader:
        return reader


def read(cache: ReaderCache, run: str, href: str) -> np.ndarray:
    """Its pixels."""
    with cache.reader(run, href) as reader:
        return reader.read(WHOLE)
