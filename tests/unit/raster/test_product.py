"""The product writer: the same blocks are the same file, whoever made them and however often."""

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window as RasterioWindow

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.block_codec import BlockCodec, compress_mask
from pesto_runtime.raster.product import Blocks, Layout, block_checksums, write_product
from pesto_runtime.tiling import BlockIndex, block_window, blocks_of
from tests.support.packs import write_blocks
from tests.support.rasters import noise, pixels_of, sha256_of, tree

SIZE = (1100, 700)  # width, height: 3 x 2 blocks, the last ones not full


def layout_of(pixels: np.ndarray) -> Layout:
    count, height, width = pixels.shape
    return Layout(width=width, height=height, count=count, dtype=pixels.dtype.name)


def compressed(pixels: np.ndarray, order: list[BlockIndex]) -> dict[BlockIndex, bytes]:
    """Blocks, compressed in this order."""
    codec = BlockCodec(pixels.shape[0], pixels.dtype.name)
    size = (pixels.shape[2], pixels.shape[1])
    return {
        index: codec.compress(pixels[(slice(None), *block_window(index, size).slices)])
        for index in order
    }


def row_major(pixels: np.ndarray) -> list[bytes]:
    return list(compressed(pixels, list(blocks_of((pixels.shape[2], pixels.shape[1])))).values())


def written(path: Path, pixels: np.ndarray) -> str:
    return write_blocks(path, layout_of(pixels), row_major(pixels)).sha256


def masks_of(pixels: np.ndarray) -> list[bytes]:
    """The mask of the pixels of the first band above 9."""
    size = (pixels.shape[2], pixels.shape[1])
    windows = (block_window(index, size).slices for index in blocks_of(size))
    return [compress_mask(pixels[(0, *window)] > 9) for window in windows]


@functools.cache
def usual_product() -> tuple[np.ndarray, list[bytes], str]:
    """Pixels, their blocks, and the sha256 of the file that they make."""
    pixels = noise(*SIZE)
    with tempfile.TemporaryDirectory() as folder:
        return pixels, row_major(pixels), written(Path(folder) / "p.tif", pixels)


def by_rasterio(path: Path, pixels: np.ndarray, order: list[BlockIndex]) -> str:
    """The same image through plain rasterio, its blocks written in this order."""
    _, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=pixels.shape[0],
        dtype=pixels.dtype.name, tiled=True, blockxsize=512, blockysize=512, compress="deflate",
    ) as dataset:  # fmt: skip
        for index in order:
            window = block_window(index, (width, height))
            dataset.write(pixels[(slice(None), *window.slices)], window=RasterioWindow(*window))
    return sha256_of(path)


def test_the_order_in_which_blocks_are_computed_leaves_no_trace(tmp_path: Path) -> None:
    """Blocks compressed in shuffled order give one file; plain rasterio (control) gives two."""
    pixels = noise(*SIZE, bands=2)
    straight = list(blocks_of(SIZE))
    shuffled = [straight[number] for number in (4, 0, 5, 2, 1, 3)]
    blocks = compressed(pixels, shuffled)
    first = write_blocks(tmp_path / "a.tif", layout_of(pixels), (blocks[i] for i in straight))

    assert first.sha256 == written(tmp_path / "b.tif", pixels)
    assert np.array_equal(pixels_of(tmp_path / "a.tif"), pixels)
    plain = [by_rasterio(tmp_path / f"{n}.tif", pixels, order)
             for n, order in enumerate((straight, shuffled))]  # fmt: skip
    assert plain[0] != plain[1]


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
@pytest.mark.parametrize("bands", [1, 4])
def test_every_dtype_and_number_of_bands_comes_back(tmp_path: Path, dtype: str, bands: int) -> None:
    """Two blocks across, the second one not full: pixels and dtype are what was put in."""
    pixels = noise(600, 20, bands=bands, below=120).astype(dtype)
    if np.dtype(dtype).kind == "c":
        pixels = pixels + 1j * pixels[:, ::-1]
        pixels = pixels.astype(dtype)
    written(tmp_path / "p.tif", pixels)

    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert set(dataset.dtypes) == {dtype}
        assert dataset.block_shapes[0] == (512, 512)
        assert dataset.compression.name == "deflate"
        assert np.array_equal(dataset.read(), pixels)


@pytest.mark.parametrize("bands", range(1, 14))
def test_every_number_of_bands_from_1_to_13_comes_back(tmp_path: Path, bands: int) -> None:
    """The header GDAL makes for a count of bands fits the blocks GDAL makes for it."""
    pixels = noise(30, 20, bands=bands, dtype="uint16", below=60_000)
    written(tmp_path / "p.tif", pixels)
    assert np.array_equal(pixels_of(tmp_path / "p.tif"), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (512, 512), (513, 512)])
def test_images_of_one_pixel_or_one_block_are_products_too(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """A single block's place stands inside the tag itself, not behind a pointer."""
    pixels = noise(*size)
    written(tmp_path / "p.tif", pixels)
    assert np.array_equal(pixels_of(tmp_path / "p.tif"), pixels)


@pytest.mark.parametrize("size", [(100, 80), SIZE])
def test_a_product_over_4_gb_is_a_bigtiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """With the threshold lowered, the header is BigTIFF's and the pixels still come back."""
    pixels = noise(*size, bands=3, dtype="uint16")
    written(tmp_path / "classic.tif", pixels)
    monkeypatch.setattr("pesto_runtime.raster.product.BIG_BYTES", 1)
    written(tmp_path / "big.tif", pixels)

    assert (tmp_path / "classic.tif").read_bytes()[:4] == b"II*\0"
    assert (tmp_path / "big.tif").read_bytes()[:4] == b"II+\0"
    assert np.array_equal(pixels_of(tmp_path / "big.tif"), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64"])
def test_blocks_lie_row_major_behind_the_header_without_a_gap(tmp_path: Path, dtype: str) -> None:
    """The file is its header and its blocks, nothing else: no timestamp, no hole."""
    pixels = noise(*SIZE).astype(dtype)
    blocks = row_major(pixels)
    write_blocks(tmp_path / "p.tif", layout_of(pixels), blocks)
    assert (tmp_path / "p.tif").read_bytes().endswith(b"".join(blocks))


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 12])
def test_hash_size_and_checksums_are_those_of_the_file(
    tmp_path: Path, at_once: int, *, has_mask: bool
) -> None:
    """Blocks one by one or many together, with those of a mask; other blocks (control) differ."""
    pixels, path = noise(*SIZE, bands=2, below=40), tmp_path / "p.tif"
    layout = replace(layout_of(pixels), has_mask=has_mask)
    blocks = row_major(pixels) + (masks_of(pixels) if has_mask else [])
    sizes = np.array([len(each) for each in blocks])
    groups = [blocks[start : start + at_once] for start in range(0, len(blocks), at_once)]
    together = [
        Blocks(
            b"".join(group),
            np.array([len(each) for each in group]),
            np.array([crc32(each) for each in group], np.uint32),
        )
        for group in groups
    ]
    assert [each for group in together for each in group.split()] == blocks
    product = write_product(path, layout, together, sizes=sizes)
    assert product.sha256 == sha256_of(path)
    assert product.size == path.stat().st_size
    sums = "".join(f"{crc32(each):08x}" for each in row_major(pixels))
    assert product.crc32 == block_checksums(path) == sums
    assert tree(tmp_path) == {"p.tif"}
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(), pixels)
        assert np.array_equal(dataset.dataset_mask() > 0, (pixels[0] > 9) | (not has_mask))
    other = write_blocks(tmp_path / "q.tif", layout, [*blocks[:-2], blocks[-1], blocks[-2]])
    assert other.sha256 != product.sha256


class Killed(BaseException):
    """Stands for a kill: no code of ours catches it."""


@pytest.mark.parametrize("count", [0, 3])
def test_half_a_product_never_has_the_final_name(tmp_path: Path, count: int) -> None:
    """After a kill the next writer makes the file of an undisturbed one; nothing else is left."""
    pixels, blocks, expected = usual_product()
    path, sizes = tmp_path / "p.tif", np.array([len(each) for each in blocks])

    def killed() -> Iterator[Blocks]:
        yield from map(Blocks.of, blocks[:count])
        raise Killed

    with pytest.raises(Killed):
        write_product(path, layout_of(pixels), killed(), sizes=sizes)
    assert tree(tmp_path) == {"p.tif.part"}
    assert written(path, pixels) == sha256_of(path) == expected
    assert tree(tmp_path) == {"p.tif"}


@pytest.mark.parametrize("fault", ["shorter", "fewer", "more"])
def test_blocks_that_differ_from_their_sizes_make_no_product(tmp_path: Path, fault: str) -> None:
    """The header is written already, to a bucket sent already."""
    pixels, blocks, _ = usual_product()
    sizes = np.array([len(each) for each in blocks])
    wrong = {"shorter": [blocks[0][:-1], *blocks[1:]], "fewer": blocks[:-1],
             "more": [*blocks, blocks[0]]}[fault]  # fmt: skip
    with pytest.raises(StoreFailed, match="blocks"):
        write_product(tmp_path / "p.tif", layout_of(pixels), map(Blocks.of, wrong), sizes=sizes)
    assert not (tmp_path / "p.tif").exists()


@pytest.mark.parametrize("count", [5, 7])
def test_too_few_or_too_many_blocks_make_no_product(tmp_path: Path, count: int) -> None:
    """A file with a missing block would be read as zeros."""
    pixels = noise(*SIZE)
    blocks = [*row_major(pixels), b"one more"][:count]
    with pytest.raises(StoreFailed, match="blocks"):
        write_blocks(tmp_path / "p.tif", layout_of(pixels), blocks)
    assert not (tmp_path / "p.tif").exists()


def test_a_folder_that_cannot_be_written_is_a_store_failure_by_name(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    pixels = noise(10, 10)
    with pytest.raises(StoreFailed, match="Not a directory"):
        written(tmp_path / "file" / "p.tif", pixels)
