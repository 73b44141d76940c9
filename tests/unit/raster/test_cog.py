"""Products with overviews: their pixels and facts, and the layout of a cloud-optimised GeoTIFF."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from pesto_runtime.contract import Compression, ProductForm
from pesto_runtime.raster.block_codec import BlockCodec, compress_mask
from pesto_runtime.raster.cog import OverviewFile
from pesto_runtime.raster.image import BandFacts, Georeference
from pesto_runtime.raster.overviews import Overviews, Resampling
from pesto_runtime.raster.product import Layout, Product, block_checksums
from pesto_runtime.raster.tiff_directory import read_directories, write_directories
from pesto_runtime.tiling import block_window, blocks_of
from tests.support.cog_rules import broken_rules
from tests.support.packs import write_blocks
from tests.support.rasters import UTM, noise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = (1300, 1100)
COG, OVERVIEWS = ProductForm.COG, ProductForm.OVERVIEWS


def layout_of(pixels: np.ndarray, **facts: object) -> Layout:
    """The layout of pixels with a place and names of bands."""
    count, height, width = pixels.shape
    bands = tuple(BandFacts(description=f"band {number}") for number in range(count))
    place = Georeference(crs="EPSG:32616", transform=UTM)
    known = {"georeference": place, "bands": bands, **facts}
    return Layout(width, height, count, pixels.dtype.name, **known)  # type: ignore[arg-type]  # of the test


def blocks_in(layout: Layout, pixels: np.ndarray) -> list[bytes]:
    """The compressed blocks of pixels."""
    codec = BlockCodec(layout.count, layout.dtype, layout.compression)
    windows = (block_window(index, (layout.width, layout.height)).slices
               for index in blocks_of((layout.width, layout.height)))  # fmt: skip
    return [codec.compress(pixels[(slice(None), *window)]) for window in windows]


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    form: ProductForm = COG,
    valid: np.ndarray | None = None,
    **facts: object,
) -> Product:
    """Write pixels as a product of this form, on a disk."""
    layout = layout_of(pixels, has_mask=valid is not None, **facts)
    blocks = blocks_in(layout, pixels)
    masks = [] if valid is None else [
        compress_mask(valid[block_window(index, SIZE).slices], layout.compression)
        for index in blocks_of(SIZE)
    ]  # fmt: skip
    with Overviews(layout) as overviews:
        file = OverviewFile(layout, overviews.make(blocks, masks), form)
        return write_blocks(path, file, file.blocks(blocks))


def levels_of(path: Path) -> list[np.ndarray]:
    """The pixels (band, row, col) of the product and of each overview."""
    with rasterio.open(path) as dataset:
        levels, found = dataset.overviews(1), [dataset.read()]
    assert levels == [2**number for number in range(1, len(levels) + 1)]
    for number in range(len(levels)):
        with rasterio.open(path, overview_level=number) as dataset:
            found.append(dataset.read())
    return found


def squares(band: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Each 2 x 2 square of a band, cut at its far edges."""
    for row in range(-(-band.shape[0] // 2)):
        for col in range(-(-band.shape[1] // 2)):
            yield (row, col), band[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel()


@pytest.mark.parametrize("codec", ["deflate", "zstd", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("form", [COG, OVERVIEWS])
def test_a_product_with_overviews_has_the_pixels_and_facts(
    tmp_path: Path, form: ProductForm, dtype: str, codec: str
) -> None:
    """Overviews halve the size until one block is enough; GDAL names the layout of a COG only."""
    pixels = noise(*SIZE, bands=2, dtype=dtype)
    compression = Compression.parse(codec)
    made = write(tmp_path / "c.tif", pixels, form=form, nodata=7, compression=compression)
    levels = levels_of(tmp_path / "c.tif")
    assert [each.shape for each in levels] == [(2, 1100, 1300), (2, 550, 650), (2, 275, 325)]
    assert np.array_equal(levels[0], pixels)
    assert made.sha256 == hashlib.sha256((tmp_path / "c.tif").read_bytes()).hexdigest()
    with rasterio.open(tmp_path / "c.tif") as dataset:
        assert (dataset.crs.to_epsg(), tuple(dataset.transform)[:6]) == (32616, UTM)
        assert (dataset.nodata, dataset.descriptions) == (7, ("band 0", "band 1"))
        assert dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == ("COG" if form is COG else None)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(1300, 1100), (513, 3), (400, 300)])
def test_a_cog_keeps_the_rules(tmp_path: Path, size: tuple[int, int], *, masked: bool) -> None:
    """As GDAL's own COG (control); a plain product with overviews (control) does not."""
    pixels = noise(*size, bands=3)
    valid = noise(*SIZE, below=2)[0] == 1 if masked and size == SIZE else None
    write(tmp_path / "c.tif", pixels, valid=valid)
    assert broken_rules(tmp_path / "c.tif") == []
    rasterio.shutil.copy(tmp_path / "c.tif", tmp_path / "g.tif", driver="COG", compress="deflate")
    if valid is None:  # GDAL writes the blocks of a mask between those of the image
        assert broken_rules(tmp_path / "g.tif") == []
    if size == SIZE:
        write(tmp_path / "o.tif", pixels, form=OVERVIEWS)
        assert "blocks of the smallest overview first" in broken_rules(tmp_path / "o.tif")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_overviews_are_the_averages_that_gdal_computes(tmp_path: Path, dtype: str) -> None:
    """Of each level; nearest (control) differs."""
    pixels = noise(*SIZE, bands=2, dtype=dtype)
    write(tmp_path / "c.tif", pixels)
    for method in ("AVERAGE", "NEAREST"):
        rasterio.shutil.copy(
            tmp_path / "c.tif", tmp_path / f"{method}.tif", driver="COG",
            overviews="IGNORE_EXISTING", resampling=method,
        )  # fmt: skip
    ours, theirs, control = (
        levels_of(tmp_path / name) for name in ("c.tif", "AVERAGE.tif", "NEAREST.tif")
    )
    for number in (1, 2):
        assert np.allclose(ours[number], theirs[number], rtol=1e-6, atol=0)
        assert not np.allclose(ours[number], control[number])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64", "float32", "complex64"])
@pytest.mark.parametrize("rule", ["nodata", "mask"])
def test_pixels_that_are_not_valid_do_not_count(tmp_path: Path, dtype: str, rule: str) -> None:
    """Exact fractions of Python; without nodata (control) the same pixels give other averages."""
    pixels = noise(530, 41, dtype=dtype, below=4)
    if dtype.endswith("64") and dtype[0] in "iu":
        pixels += np.iinfo(dtype).max - 3
    nodata = pixels[0, 0, 0].real.item()
    valid = pixels[0] != pixels[0, 0, 0]
    layout = layout_of(pixels, nodata=nodata if rule == "nodata" else None)
    if rule == "mask":
        made, mask = Resampling.of(layout).halved(pixels, valid)
        assert mask is not None
    else:
        write(tmp_path / "c.tif", pixels, nodata=nodata)
        made, mask = levels_of(tmp_path / "c.tif")[1], None
    whole = dtype[0] in "iu"
    for (row, col), square in squares(pixels[0]):
        kept = [each.item() for each in square if each != pixels[0, 0, 0]]
        if mask is not None:
            assert mask[row, col] == bool(kept)
        if not kept:
            assert made[0, row, col] == pixels[0, 0, 0]
            continue
        total = sum(kept)
        wanted = (2 * total + len(kept)) // (2 * len(kept)) if whole else total / len(kept)
        if rule == "nodata" and wanted == nodata:
            wanted = kept[0]
        assert made[0, row, col] == pytest.approx(wanted, rel=0 if whole else 1e-6)
    write(tmp_path / "control.tif", pixels)
    assert not np.array_equal(levels_of(tmp_path / "control.tif")[1], made)


@pytest.mark.parametrize("facts", ["colours", "labels", "none"])
def test_classes_are_never_averaged(tmp_path: Path, facts: str) -> None:
    """Overviews of 1 and 9 have no 5; without a colour table and labels (control) they do."""
    pixels = np.where(noise(*SIZE, below=2) == 1, 9, 1).astype("uint8")
    tags = {"": {"classification_classes": "[]"}} if facts == "labels" else {}
    colours = {1: (1, 2, 3, 255), 9: (9, 9, 9, 255)} if facts == "colours" else {}
    write(tmp_path / "c.tif", pixels, bands=(BandFacts(colours=colours, tags=tags),))
    levels = levels_of(tmp_path / "c.tif")
    assert ({*np.unique(levels[2])} == {1, 9}) == (facts != "none")
    if facts != "none":
        assert np.array_equal(levels[1], pixels[:, ::2, ::2])
        assert np.array_equal(levels[2], pixels[:, ::4, ::4])


def test_a_class_beside_nodata_is_preserved(tmp_path: Path) -> None:
    """The first valid pixel of four; nodata only where all four are."""
    pixels = noise(*SIZE, below=3)
    write(tmp_path / "c.tif", pixels, nodata=0, bands=(BandFacts(colours={1: (1, 1, 1, 255)}),))
    made = levels_of(tmp_path / "c.tif")[1][0]
    for (row, col), square in squares(pixels[0]):
        assert made[row, col] == next((each for each in square if each), 0)


def test_a_transparent_pixel_gives_no_colour(tmp_path: Path) -> None:
    """Alpha itself is averaged; without alpha (control) the colour is mixed with black."""
    pixels = noise(600, 40, bands=2, below=250) + np.uint8(1)
    pixels[:, ::2] = 0
    alpha = (BandFacts(), BandFacts(colour="alpha"))
    write(tmp_path / "c.tif", pixels, bands=alpha)
    write(tmp_path / "control.tif", pixels)
    wide = pixels[:, 1::2].astype(int)
    pairs = wide[:, :, ::2] + wide[:, :, 1::2]
    made, control = (levels_of(tmp_path / name)[1] for name in ("c.tif", "control.tif"))
    assert np.array_equal(made[0], (pairs[0] + 1) // 2)
    assert np.array_equal(made[1], (pairs[1] + 2) // 4)
    assert np.array_equal(control, (pairs + 2) // 4)


@pytest.mark.parametrize("form", [COG, OVERVIEWS])
def test_a_mask_has_overviews_too(tmp_path: Path, form: ProductForm) -> None:
    """A pixel is valid where one of the four is."""
    valid = noise(*SIZE, below=4)[0] == 1
    write(tmp_path / "c.tif", noise(*SIZE, bands=2), form=form, valid=valid)
    with rasterio.open(tmp_path / "c.tif") as dataset:
        assert np.array_equal(dataset.dataset_mask() > 0, valid)
    for number in range(2):
        rows, cols = valid.shape
        valid = np.pad(valid, ((0, rows % 2), (0, cols % 2)))
        valid = valid[::2, ::2] | valid[1::2, ::2] | valid[::2, 1::2] | valid[1::2, 1::2]
        with rasterio.open(tmp_path / "c.tif", overview_level=number) as dataset:
            assert np.array_equal(dataset.dataset_mask() > 0, valid)


@pytest.mark.parametrize("form", [COG, OVERVIEWS])
def test_the_file_is_its_header_and_its_blocks_in_order(tmp_path: Path, form: ProductForm) -> None:
    """So a bucket receives it in order; checksums are those that `pesto verify` reads."""
    pixels = noise(*SIZE, dtype="uint16")
    layout = layout_of(pixels)
    blocks = blocks_in(layout, pixels)
    write(tmp_path / "c.tif", pixels, form=form)
    with Overviews(layout) as overviews:
        file = OverviewFile(layout, overviews.make(blocks), form)
        data = file.filled(np.array(file.sizes)) + b"".join(file.blocks(blocks))
    assert data == (tmp_path / "c.tif").read_bytes()
    assert overviews.checksums == block_checksums(tmp_path / "c.tif")


@pytest.mark.parametrize("is_big", [False, True])
def test_directories_can_be_written_as_a_big_tiff(tmp_path: Path, *, is_big: bool) -> None:
    """Files of more than 4 GiB have another header; the same facts are read from both."""
    write(tmp_path / "c.tif", noise(*SIZE, bands=2), nodata=3)
    data = (tmp_path / "c.tif").read_bytes()
    directories = read_directories(data)
    (tmp_path / "h.tif").write_bytes(write_directories(directories, note=b"odd", is_big=is_big))
    assert (tmp_path / "h.tif").read_bytes()[2] == (43 if is_big else 42)
    with rasterio.open(tmp_path / "h.tif") as copy, rasterio.open(tmp_path / "c.tif") as dataset:
        assert copy.profile == dataset.profile
        assert (copy.descriptions, copy.overviews(1)) == (dataset.descriptions, [2, 4])
        assert (copy.read() == 3).all(), "no blocks: nodata"
