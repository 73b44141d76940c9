"""The facts that a header gives are those that GDAL reads, for files of every kind."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.shutil import copy
from rasterio.transform import Affine

from pesto_runtime.contract import ImageReference, Window
from pesto_runtime.errors import InvalidInput, RasterUnreadable
from pesto_runtime.raster import known_headers
from pesto_runtime.raster.known_headers import scene_of_image
from pesto_runtime.raster.read import read_scene
from pesto_runtime.raster.tiff_directory import Field
from tests.support.rasters import UTM, noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROTATED = (20.0, 5.0, 452475.0, -5.0, -30.0, 3408645.0)


def moved(transform: tuple[float, ...], number: int) -> tuple[float, ...]:
    """The transform of a neighbour."""
    a, b, c, d, e, f = transform
    return (a, b, c + 960 * number, d, e, f - 960.5 * number)


def plain(path: Path, number: int, **more: object) -> None:
    """A scene of another place and other pixels for each number."""
    settings: dict[str, object] = {"transform": moved(UTM, number), **more}
    write_scene(path, noise(64, 48, seed=number), **settings)  # type: ignore[arg-type]


def with_overviews_and_mask(path: Path, number: int) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        plain(path, number, options={"tiled": True, "blockxsize": 16, "blockysize": 16})
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(np.arange(64 * 48).reshape(48, 64) % 5 > 0)
            dataset.build_overviews([2, 4])


def with_points(path: Path, number: int) -> None:
    points = [
        GroundControlPoint(row, col, 1000.0 * number + col, 500.0 - row)
        for row, col in ((0, 0), (0, 60), (40, 0), (40, 60))
    ]
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=48, count=1, dtype="uint8", gcps=points,
        crs="EPSG:32616",
    ) as dataset:  # fmt: skip
        dataset.write(noise(64, 48, seed=number))


def tagged(path: Path, number: int) -> None:
    plain(path, number)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NUMBER=str(number))
        dataset.scales, dataset.offsets = (0.5,), (float(number),)


def beside(path: Path, number: int) -> None:
    plain(path, number, crs=None, transform=None)
    path.with_suffix(".tfw").write_text("\n".join(map(str, (30, 0, 0, -30, 15 + number, 15))))


def as_format(path: Path, number: int, driver: str) -> None:
    plain(path.with_name("plain.tif"), number, **({} if driver == "COG" else {"crs": None}))
    copy(path.with_name("plain.tif"), path, driver=driver)


KINDS: dict[str, tuple[Callable[[Path, int], None], bool]] = {
    "plain": (plain, True),
    "nodata": (lambda p, n: plain(p, n, nodata=7), True),
    "big": (lambda p, n: plain(p, n, options={"bigtiff": "YES"}), True),
    "tiled": (lambda p, n: plain(p, n, options={"tiled": True, "compress": "zstd"}), True),
    "degrees": (lambda p, n: plain(p, n, crs="EPSG:4326"), True),
    "no CRS": (lambda p, n: plain(p, n, crs=None), True),
    "COG": (lambda p, n: as_format(p, n, "COG"), True),
    "overviews and mask": (with_overviews_and_mask, True),
    "rotated": (lambda p, n: plain(p, n, transform=moved(ROTATED, n)), False),
    "points": (with_points, False),
    "tags": (tagged, False),
    "beside": (beside, False),
    "big-endian": (lambda p, n: plain(p, n, options={"endianness": "BIG"}), False),
    "PNG": (lambda p, n: as_format(p, n, "PNG"), False),
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known_headers._known.clear()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that GDAL has opened."""
    found: list[str] = []

    def counted(image: str | ImageReference) -> object:
        found.append(str(image))
        return read_scene(image)

    monkeypatch.setattr(known_headers, "read_scene", counted)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_has_the_facts_that_gdal_reads(
    tmp_path: Path, kind: str, opened: list[str]
) -> None:
    """Three files; where only place and pixels differ, GDAL opens the first one alone."""
    write, is_shared = KINDS[kind]
    for number in range(3):
        path = tmp_path / f"{number}.tif"
        write(path, number)
        assert scene_of_image(str(path)) == read_scene(str(path))
    assert len(opened) == (1 if is_shared else 3)


def test_a_part_of_a_file_is_known_apart(tmp_path: Path, opened: list[str]) -> None:
    """Each choice of bands and window is a kind of its own; its place is that of the window."""
    for number in range(2):
        write_scene(tmp_path / f"{number}.tif", noise(64, 48, bands=2), names=("red", "nir"),
                    transform=moved(UTM, number))  # fmt: skip
        for bands in (None, (2,), ("nir", "red"), {"a": 1}):
            for window in (None, Window(3, 5, 20, 10)):
                image = ImageReference(
                    href=str(tmp_path / f"{number}.tif"), bands=bands, window=window
                )
                assert scene_of_image(image) == read_scene(image)
    assert len(opened) == 8


def test_point_pixels_are_read_by_gdal(tmp_path: Path, opened: list[str]) -> None:
    """Where the tie point is the centre of a pixel, the place is not the one of the formula."""
    for number in range(2):
        path = tmp_path / f"{number}.tif"
        plain(path, number)
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(AREA_OR_POINT="Point")
        assert scene_of_image(str(path)) == read_scene(str(path))
    assert len(opened) == 2


@pytest.mark.parametrize(
    "changed",
    [{"nodata": 9}, {"crs": "EPSG:32617"}, {"names": ("blue",)}, {"options": {"tiled": True}},
     {"transform": (10.0, 0.0, *UTM[2:4], -10.0, UTM[5])}],
    ids=lambda each: next(iter(each)),
)  # fmt: skip
def test_a_file_with_another_fact_is_another_kind(
    tmp_path: Path, changed: dict[str, object], opened: list[str]
) -> None:
    """The control of the tests above."""
    plain(tmp_path / "a.tif", 0)
    plain(tmp_path / "b.tif", 0, **changed)
    facts = [scene_of_image(str(tmp_path / name)) for name in ("a.tif", "b.tif")]
    assert facts[0].model_copy(update={"href": "", "identity": ""}) != facts[1].model_copy(
        update={"href": "", "identity": ""}
    )
    assert facts[1] == read_scene(str(tmp_path / "b.tif"))
    assert len(opened) == 2


def test_a_file_that_is_replaced_meanwhile_is_no_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its header and its facts: other files of the first header get their own facts."""
    path, other, twin = (tmp_path / f"{name}.tif" for name in "abc")
    plain(path, 0)
    shutil.copy(path, twin)
    plain(other, 0, nodata=3)

    def replaced(image: str | ImageReference) -> object:
        if other.exists():
            other.replace(path)
        return read_scene(image)

    monkeypatch.setattr(known_headers, "read_scene", replaced)
    assert scene_of_image(str(path)).nodata == 3
    assert scene_of_image(str(twin)).nodata is None


def test_errors_are_those_of_the_reader(tmp_path: Path) -> None:
    """A missing or broken file, also one that begins like a TIFF; a window beyond the raster."""
    (tmp_path / "short.tif").write_bytes(b"II*\0\x08\0\0\0\xff\xff")
    (tmp_path / "text.tif").write_text("no raster")
    for name in ("none.tif", "short.tif", "text.tif"):
        with pytest.raises(RasterUnreadable, match=name):
            scene_of_image(str(tmp_path / name))
    plain(tmp_path / "a.tif", 0)
    scene_of_image(str(tmp_path / "a.tif"))
    with pytest.raises(InvalidInput, match="is not inside"):
        scene_of_image(ImageReference(href=str(tmp_path / "a.tif"), window=Window(60, 0, 9, 9)))


def test_fields_beyond_the_first_bytes_are_read_by_gdal(tmp_path: Path, opened: list[str]) -> None:
    """Tags of 40 KB, of which only the end differs."""
    for number in range(2):
        path = tmp_path / f"{number}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=64, height=48, count=1, dtype="uint8"
        ) as dataset:
            dataset.update_tags(LONG="x" * 40_000 + str(number))
            dataset.write(noise(64, 48))
        assert scene_of_image(str(path)) == read_scene(str(path))
    assert len(opened) == 2


def test_a_file_with_directories_elsewhere_is_read_by_gdal() -> None:
    """The directory of EXIF fields is at a place that a field names; without it, all is known."""
    width = Field(3, 1, b"\x40\0")
    assert known_headers._is_whole({256: width})
    assert not known_headers._is_whole({256: width, 34665: Field(4, 1, bytes(4))})


def test_few_kinds_are_remembered(tmp_path: Path) -> None:
    """A campaign of files of all sizes does not grow in memory."""
    for side in range(1, 80):
        write_scene(tmp_path / "a.tif", noise(side, 3), transform=Affine(*UTM))
        scene_of_image(str(tmp_path / "a.tif"))
    assert len(known_headers._known) == known_headers._MOST_KINDS
