"""Previews: what they show, what they claim, and what they cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rasterio.io import MemoryFile

from pesto_runtime.errors import InvalidInput, RasterUnreadable, TooLarge
from pesto_runtime.raster import samples
from pesto_runtime.raster.preview import read_preview
from pesto_runtime.tiling import sample_grid
from tests.unit.report.sample_run import write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.raster.preview import Preview

RNG = np.random.default_rng(7)


def pixels_of(shown: Preview) -> np.ndarray:
    """The picture as an array (band, row, col)."""
    with MemoryFile(shown.data) as memory, memory.open() as dataset:
        pixels: np.ndarray = dataset.read()
        if len(pixels) == 1:
            table = dataset.colormap(1)
            pixels = np.array([table[n] for n in sorted(table)])[pixels[0]].transpose(2, 0, 1)
    return pixels


def test_a_mask_is_shown_in_classes_with_exact_shares(tmp_path: Path) -> None:
    """Shares are of valid pixels only, nodata is transparent, and no colour is blended."""
    mask = np.zeros((40, 50), np.uint8)
    mask[:10] = 1
    mask[30:] = 255
    shown = read_preview(write_raster(tmp_path / "mask.tif", mask, nodata=255))
    assert shown.kind == "classes"
    assert [(each.value, each.share) for each in shown.classes] == [(0, 2 / 3), (1, 1 / 3)]
    assert (shown.valid, shown.is_sampled) == (0.75, False)
    pixels = pixels_of(shown)
    assert np.array_equal(pixels[3] == 0, mask == 255)
    assert [tuple(pixels[:3, row, 0]) for row in (20, 0)] == [each.colour for each in shown.classes]


def test_a_decimated_mask_keeps_its_values(tmp_path: Path) -> None:
    """Nearest, never an average: a picture of 0 and 200 has two colours, at any size."""
    mask = ((RNG.random((300, 200)) > 0.5) * 200).astype(np.uint8)
    shown = read_preview(write_raster(tmp_path / "mask.tif", mask), max_side=30)
    assert (shown.picture, shown.size, shown.step) == ((20, 30), (200, 300), 10)
    assert len(np.unique(pixels_of(shown)[0])) == 2
    assert [each.value for each in shown.classes] == [0, 200]
    assert sum(each.share for each in shown.classes) == pytest.approx(1)


def test_nine_values_are_no_classes(tmp_path: Path) -> None:
    """Control: eight values are; with one more the raster is a ramp."""
    for count, kind in ((8, "classes"), (9, "ramp")):
        band = np.arange(900, dtype=np.int16).reshape(30, 30) % count
        assert read_preview(write_raster(tmp_path / f"{count}.tif", band)).kind == kind


def test_many_values_outside_the_middle_are_seen(tmp_path: Path) -> None:
    """A raster whose middle is constant is not taken for a mask."""
    band = np.zeros((400, 400), np.uint16)
    band[:60] = np.arange(400) % 20
    assert read_preview(write_raster(tmp_path / "edge.tif", band)).kind == "ramp"


def test_named_bands_make_true_colour(tmp_path: Path) -> None:
    """Red, green and blue are found by name, whatever their order; control: without names, one."""
    bands = RNG.integers(0, 4000, (4, 20, 20)).astype(np.uint16)
    names = ("Blue", "green", "RED", "nir")
    named = read_preview(write_raster(tmp_path / "named.tif", bands, names=names))
    bare = read_preview(write_raster(tmp_path / "bare.tif", bands))
    assert (named.kind, named.bands, named.of_bands) == ("colour", ("RED", "green", "Blue"), 4)
    assert (bare.kind, bare.bands) == ("ramp", ("1",))


def test_a_stretch_ignores_nodata_and_not_a_number(tmp_path: Path) -> None:
    """The limits are percentiles of valid pixels; what is not a number is transparent."""
    band = np.linspace(0, 100, 10_000, dtype=np.float32).reshape(100, 100)
    band[:, :20] = np.nan
    band[:, 20:40] = -9999
    shown = read_preview(write_raster(tmp_path / "ndvi.tif", band, nodata=-9999), ramp="viridis")
    ((low, high),) = shown.limits
    valid = band[:, 40:]
    assert (low, high) == pytest.approx(tuple(np.percentile(valid, (2, 98))))
    assert shown.valid == pytest.approx(0.6)
    assert (pixels_of(shown)[3, :, :40] == 0).all()


@pytest.mark.parametrize("nodata", [0, math.nan])
def test_a_raster_without_valid_pixels_is_transparent(tmp_path: Path, nodata: float) -> None:
    """Nodata everywhere is normal: no class, nothing to see, no division by zero."""
    band = np.full((5, 6), nodata, np.float32)
    shown = read_preview(write_raster(tmp_path / "empty.tif", band, nodata=nodata))
    assert (shown.valid, shown.classes) == (0.0, ())


@pytest.mark.parametrize("shape", [(1, 1), (603, 1), (1, 9000)])
def test_a_raster_one_pixel_wide_has_a_picture(tmp_path: Path, shape: tuple[int, int]) -> None:
    """No side of a picture is ever 0."""
    band = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    assert min(read_preview(write_raster(tmp_path / "thin.tif", band)).picture) == 1


def test_a_raster_too_dear_to_decode_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without overviews every block is decoded; control: with them, few are."""
    monkeypatch.setattr(samples, "MOST_BYTES", 100_000)
    monkeypatch.setattr(sample_grid, "MOST_SAMPLES", 64)
    band = RNG.integers(0, 60_000, (512, 512)).astype(np.uint16)
    with pytest.raises(TooLarge, match="overviews"):
        read_preview(write_raster(tmp_path / "bare.tif", band))
    assert read_preview(write_raster(tmp_path / "built.tif", band, overviews=(2, 4, 8))).data


def test_what_is_no_raster_is_said(tmp_path: Path) -> None:
    """A missing file, a truncated one and a missing band: errors of ours that name it."""
    with pytest.raises(RasterUnreadable, match="does not exist"):
        read_preview(tmp_path / "none.tif")
    cut = write_raster(tmp_path / "cut.tif", RNG.integers(0, 9999, (300, 300)).astype(np.uint16))
    cut.write_bytes(cut.read_bytes()[:50_000])
    with pytest.raises(RasterUnreadable, match=r"cut\.tif"):
        read_preview(cut)
    path = write_raster(tmp_path / "one.tif", np.zeros((3, 3), np.uint8))
    with pytest.raises(InvalidInput, match="no band"):
        read_preview(path, bands=["red"])
