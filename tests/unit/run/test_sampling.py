"""Samples for the report: exactly the pixels of the whole raster, however it was run."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.raster.sampled import read_subject
from pesto_runtime.run import publishing, sampling
from pesto_runtime.tiling import sample_grid
from tests.support.packs import drop_blocks
from tests.support.processes import MARKER
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import Done, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.raster.samples import Samples
    from pesto_runtime.report import ReportData
    from tests.support.runs import Settings

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks, chunks of one


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[ReportData]:
    """The facts of each report that is written; samples of every 11th pixel, of scenes too."""
    found: list[ReportData] = []

    def write_report(path: Path, data: ReportData) -> None:
        found.append(data)
        path.write_text("<!doctype html>")

    monkeypatch.setattr(publishing, "write_report", write_report)
    monkeypatch.setattr(sampling, "_READ_AGAIN", 0)
    monkeypatch.setattr(sample_grid, "MOST_SAMPLES", 100)
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of two bands; the processes read its first."""
    return write_scene(tmp_path / "s.tif", noise(WIDTH, HEIGHT, bands=1))


def samples_of(data: ReportData) -> list[Samples]:
    """The samples of the scene, then of the output."""
    found = [image.samples for image in data.images]
    assert None not in found
    return [each for each in found if each is not None]


def by_hand(pixels: np.ndarray, step: int) -> np.ndarray:
    """Every `step`-th pixel of (band, row, col), from the middle of the first cell."""
    return pixels[:, step // 2 :: step, step // 2 :: step]


def require_by_hand(data: ReportData, scene: Path, done: Done) -> None:
    """Every sample is known, and is numpy's of the whole raster."""
    of_scene, of_output = samples_of(data)
    for samples, pixels in ((of_scene, noise(WIDTH, HEIGHT)), (of_output, done.pixels())):
        assert samples.grid.step == 11
        assert samples.is_complete
        assert np.array_equal(samples.pixels, by_hand(pixels, 11))


@pytest.mark.parametrize(
    "settings", [{"tile": 200}, {"tile": 64}, {"tile": 1024, "workers": 1}, {"max_tasks": 1}]
)
def test_samples_are_those_of_the_whole_raster(
    tmp_path: Path, scene: Path, reports: list[ReportData], settings: Settings
) -> None:
    """For every size of tiles and chunks, with margins around the tiles."""
    done = run_local(chain("grow"), tmp_path / "out", {"scene": scene}, **settings)
    require_by_hand(reports[-1], scene, done)


def test_an_output_of_another_resolution_has_its_own_samples(
    tmp_path: Path, scene: Path, reports: list[ReportData]
) -> None:
    """Of its own grid: the chunks are those of the scene."""
    done = run_local(chain("shrink"), tmp_path / "out", {"scene": scene})
    _, of_output = samples_of(reports[-1])
    assert of_output.is_complete
    assert of_output.grid.size == done.pixels().shape[:0:-1]
    step, (col, row) = of_output.grid.step, of_output.grid.first
    assert np.array_equal(of_output.pixels, done.pixels()[:, row::step, col::step])


def test_reused_blocks_have_their_samples(
    tmp_path: Path, scene: Path, reports: list[ReportData]
) -> None:
    """Of an earlier run with other chunks; nothing is computed or read again."""
    done = run_local(chain("grow"), tmp_path / "out", {"scene": scene}, keep=True)
    (done.folder / "result.json").unlink()
    drop_blocks(done.folder / ".pesto", [(0, 0)])
    again = run_local(
        chain("grow"), tmp_path / "out", {"scene": scene}, keep=True, tile=300, max_tasks=2
    )
    assert 0 < again.tiles[0] < 8
    require_by_hand(reports[-1], scene, again)


def test_lost_samples_are_read_again_from_the_products(
    tmp_path: Path, scene: Path, reports: list[ReportData]
) -> None:
    """A store without samples, or with damaged ones, is no damaged run."""
    done = run_local(chain("grow"), tmp_path / "out", {"scene": scene}, keep=True)
    (done.folder / "result.json").unlink()
    found = [p for p in sorted((done.folder / ".pesto" / "samples").rglob("*")) if p.is_file()]
    found[0].write_bytes(found[0].read_bytes()[:-100])
    for path in found[1::2]:
        path.unlink()
    run_local(chain("grow"), tmp_path / "out", {"scene": scene}, keep=True)
    for image, pixels in zip(
        reports[-1].images, (noise(WIDTH, HEIGHT), done.pixels()), strict=True
    ):
        assert image.samples is not None
        assert not image.samples.is_complete
        subject = read_subject(image.href, samples=image.samples, numbers=image.numbers)
        assert np.array_equal(subject.samples.pixels, by_hand(pixels, 11))


def test_a_hole_has_no_samples_and_its_repair_has(
    tmp_path: Path, reports: list[ReportData]
) -> None:
    """Nodata in place of failed pixels is never taken for a pixel."""
    flag = tmp_path / "broken"
    flag.touch()
    pixels = noise(WIDTH, HEIGHT)
    pixels[0, 50, 50] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("fragile", broken=str(flag))
    partial = run_local(document, tmp_path / "out", {"scene": scene}, keep=True)
    assert partial.tiles[2]
    assert not samples_of(reports[-1])[1].is_complete
    flag.unlink()
    done = run_local(document, tmp_path / "out", {"scene": scene}, keep=True)
    assert not done.tiles[2]
    assert np.array_equal(samples_of(reports[-1])[1].pixels, by_hand(done.pixels(), 11))


def test_worker_processes_store_samples(
    tmp_path: Path, reports: list[ReportData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as threads; with the limits of the package, which the workers have."""
    monkeypatch.setattr(sample_grid, "MOST_SAMPLES", 2048)
    scene = write_scene(tmp_path / "wide.tif", noise(2100, 520))
    done = run_local(
        chain("grow"), tmp_path / "out", {"scene": scene}, executor="processes", tile=1024
    )
    samples = reports[-1].images[1].samples
    assert samples is not None
    assert samples.grid.step == 3
    assert np.array_equal(samples.pixels, by_hand(done.pixels(), 3))


def test_without_a_report_nothing_is_collected(
    tmp_path: Path, scene: Path, reports: list[ReportData]
) -> None:
    """`none` writes neither samples nor a page, and the same bytes; control: with a report."""
    plain = run_local(chain("grow"), tmp_path / "a", {"scene": scene}, keep=True, report="none")
    shown = run_local(chain("grow"), tmp_path / "b", {"scene": scene}, keep=True)
    assert plain.sha256() == shown.sha256()
    assert len(reports) == 1
    assert not (plain.folder / "report.html").exists()
    for done, has_samples in ((plain, False), (shown, True)):
        names = tree(done.folder / ".pesto")
        assert any(name.startswith("samples/") for name in names) == has_samples
    again = run_local(chain("grow"), tmp_path / "a", {"scene": scene}, keep=True, report="none")
    assert again.result == plain.result
    assert not (plain.folder / "report.html").exists()


def test_samples_are_deleted_with_their_run(
    tmp_path: Path, scene: Path, reports: list[ReportData]
) -> None:
    """In a store elsewhere, those of the scene too."""
    store = tmp_path / "store"
    where = store.as_uri()
    run_local(chain("grow"), tmp_path / "out", {"scene": scene}, keep=True, store=where)
    assert any(name.startswith("samples/") for name in tree(store))
    shutil.rmtree(tmp_path / "out")
    run_local(chain("grow"), tmp_path / "out", {"scene": scene}, store=where)
    assert not any(name.startswith("samples/") for name in tree(store))
    assert len(reports) == 2
