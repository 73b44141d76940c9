"""A thread keeps rasters open during one run, so that it never reads an older state."""

import threading
from pathlib import Path

import numpy as np
import pytest

from pesto_runtime.contract import Window
from pesto_runtime.errors import RasterUnreadable, SceneChanged
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.run.readers import ReaderCache
from tests.support.rasters import noise, write_scene

WHOLE = Window(0, 0, 40, 30)


def test_a_raster_is_opened_once_in_a_run(tmp_path: Path) -> None:
    """Two chunks of a run share the open raster, and the blocks that GDAL decoded for it."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    assert cache.reader("one", href) is cache.reader("one", href)


def test_another_run_opens_it_anew(tmp_path: Path) -> None:
    """A raster that was replaced between two runs is read as it is now; within one it is not."""
    cache, path = ReaderCache(), tmp_path / "s.tif"
    before = cache.reader("one", str(write_scene(path, noise(40, 30, seed=1)))).read(WHOLE)
    path.unlink()
    write_scene(path, noise(40, 30, seed=2))
    assert np.array_equal(cache.reader("one", str(path)).read(WHOLE), before)
    assert np.array_equal(cache.reader("two", str(path)).read(WHOLE), noise(40, 30, seed=2))


def test_a_local_raster_has_the_planned_identity_once_it_is_open(tmp_path: Path) -> None:
    """One that was replaced between the start of a chunk and its opening is never read."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    with pytest.raises(SceneChanged):
        cache.reader("one", href, "1-2-3")
    with pytest.raises(SceneChanged):
        cache.reader("one", href, "1-2-3")
    assert cache.reader("one", href, identity_of(href)).read(WHOLE).any()
    assert cache.reader("one", href, identity_of(href)) is cache.reader("one", href)


def test_a_thread_has_its_own(tmp_path: Path) -> None:
    """An open raster is never read by two threads at once."""
    cache, href = ReaderCache(), str(write_scene(tmp_path / "s.tif", noise(40, 30)))
    mine, others = cache.reader("one", href), []
    thread = threading.Thread(target=lambda: others.append(cache.reader("one", href)))
    thread.start()
    thread.join()
    assert others[0] is not mine


def test_what_could_not_be_opened_is_not_kept(tmp_path: Path) -> None:
    """A raster that appears later is found by the next attempt."""
    cache, path = ReaderCache(), tmp_path / "late.tif"
    with pytest.raises(RasterUnreadable):
        cache.reader("one", str(path))
    write_scene(path, noise(40, 30))
    assert cache.reader("one", str(path)).read(WHOLE).shape == (1, 30, 40)
