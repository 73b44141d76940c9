"""Reading: windows as rasterio reads them; every way a raster can be bad is one clear error."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pesto_runtime.contract import Window
from pesto_runtime.errors import InvalidInput, RasterUnreadable
from pesto_runtime.raster.read import RasterReader, read_image, read_scene
from tests.support.rasters import UTM, noise, pixels_of, write_scene

NAMES = ("blue", "green", "red")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(300, 200, bands=3), names=NAMES, nodata=0)


def test_a_window_is_what_rasterio_reads_there(scene: Path) -> None:
    """Bands by name, in the order asked; the window has a transform of its own."""
    image = read_image(str(scene), window=Window(40, 30, 20, 10), bands=["red", 1])
    whole = pixels_of(scene)
    assert np.array_equal(image.pixels, whole[[2, 0], 30:40, 40:60])
    assert image.transform == (30.0, 0.0, UTM[2] + 40 * 30, 0.0, -30.0, UTM[5] - 30 * 30)
    assert image.bands == ("red", "blue")
    assert (image.crs, image.nodata) == ("EPSG:32616", 0)


def test_a_scene_is_facts_and_its_identity_changes_with_the_file(scene: Path) -> None:
    """The identity is what block keys hold: a rewritten scene is another one."""
    facts = read_scene(str(scene))
    assert (facts.width, facts.height, facts.bands, facts.dtype) == (300, 200, NAMES, "uint8")
    assert read_scene(str(scene)).identity == facts.identity
    write_scene(scene, noise(300, 200, bands=3, seed=5), names=NAMES)
    assert read_scene(str(scene)).identity != facts.identity


def test_a_scene_rewritten_within_a_second_is_another_one(scene: Path) -> None:
    """Its size may be the same, so that only the time tells; an untouched one (control) is not."""
    second = 1_700_000_000 * 10**9
    identities = []
    for nanoseconds in (second, second, second + 10**6):
        os.utime(scene, ns=(nanoseconds, nanoseconds))
        identities.append(read_scene(str(scene)).identity)
    assert identities[0] == identities[1] != identities[2]


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no raster" * 100)


def beheaded(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def no_pixel_wide(path: Path) -> None:
    """Say 0 in the TIFF's ImageWidth (tag 256), which GDAL itself never writes."""
    tag = struct.pack("<HHI", 256, 3, 1)
    path.write_bytes(path.read_bytes().replace(tag + b"\x2c\x01", tag + b"\0\0"))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "told"),
    [(missing, "does not exist"), (empty, "empty"), (corrupt, "not a raster"),
     (beheaded, "not a raster"), (no_pixel_wide, "not a raster"),
     (a_folder, "is not a file but a folder")],
)  # fmt: skip
def test_a_bad_raster_is_refused_by_name_and_reason(scene: Path, harm: object, told: str) -> None:
    """Missing, empty, corrupt, cut off in its header, without a pixel, or no file at all."""
    assert callable(harm)
    harm(scene)
    with pytest.raises(RasterUnreadable, match=told) as caught:
        read_scene(str(scene))
    assert str(scene) in caught.value.detail
    assert caught.value.exit_code == 2


def test_a_truncated_raster_says_where_it_ends(tmp_path: Path) -> None:
    """Its header opens; the pixels behind the cut do not, those before it do (control)."""
    path = write_scene(tmp_path / "s.tif", noise(300, 2000), names=())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with RasterReader(str(path)) as reader:
        assert reader.read(Window(0, 0, 300, 100)).any()
        with pytest.raises(RasterUnreadable, match=r"\[0, 1900, 300, 100\].*truncated"):
            reader.read(Window(0, 1900, 300, 100))


@pytest.mark.parametrize("band", ["nir", 4, 0])
def test_a_missing_band_is_refused_with_those_there_are(scene: Path, band: str | int) -> None:
    """By name or by number; the error lists the bands."""
    with pytest.raises(InvalidInput, match="blue, green, red"):
        read_image(str(scene), bands=[band])


@pytest.mark.parametrize("window", [(290, 0, 20, 10), (-1, 0, 5, 5), (0, 195, 5, 6)])
def test_a_window_outside_the_raster_is_refused(
    scene: Path, window: tuple[int, int, int, int]
) -> None:
    """Never padded in silence."""
    with pytest.raises(InvalidInput, match="300 x 200"):
        read_image(str(scene), window=Window(*window))


def test_a_vrt_is_never_opened(tmp_path: Path, scene: Path) -> None:
    """A VRT can point at any file of the machine; GDAL itself (control) would follow it."""
    vrt = tmp_path / "s.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="300" rasterYSize="200"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{scene}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert pixels_of(vrt).any()
    with pytest.raises(RasterUnreadable, match="not a raster"):
        read_scene(str(vrt))


def test_complex_integers_are_read_as_complex_numbers(tmp_path: Path) -> None:
    """Of radar scenes (CInt16): numpy has no pairs of integers, complex64 holds each exactly."""
    stored = np.array([[[32767 - 32768j, 1 + 2j], [0, -5j]]], np.complex64)
    with rasterio.open(
        tmp_path / "c.tif", "w", driver="GTiff", width=2, height=2, count=1, dtype="complex_int16"
    ) as dataset:
        dataset.write(stored)

    assert read_scene(str(tmp_path / "c.tif")).dtype == "complex64"
    image = read_image(str(tmp_path / "c.tif"))
    assert image.pixels.dtype == np.complex64
    assert np.array_equal(image.pixels, stored)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1)])
def test_one_pixel_wide_is_a_scene(tmp_path: Path, size: tuple[int, int]) -> None:
    """Normal, not an error."""
    pixels = noise(*size)
    path = write_scene(tmp_path / "s.tif", pixels)
    assert np.array_equal(read_image(str(path)).pixels, pixels)
    assert (read_scene(str(path)).width, read_scene(str(path)).height) == size


def test_a_scene_without_a_place_has_none(tmp_path: Path) -> None:
    """No CRS and no transform are told as such, not as the identity."""
    path = write_scene(tmp_path / "s.tif", noise(4, 4), crs=None, transform=None)
    facts = read_scene(str(path))
    assert (facts.crs, facts.transform) == (None, None)
