"""The product writer: the same blocks are the same file, whoever made them and however often."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window as RasterioWindow

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.raster.product import (
    Layout,
    block_checksums,
    discard_unfinished,
    write_product,
)
from pesto_runtime.tiling import BlockIndex, block_window, blocks_of
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


def written(path: Path, pixels: np.ndarray, *, key: str = "k") -> str:
    return write_product(path, layout_of(pixels), row_major(pixels), key=key).sha256


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
    first = write_product(
        tmp_path / "a.tif", layout_of(pixels), (blocks[i] for i in straight), key="k"
    )

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
    write_product(tmp_path / "p.tif", layout_of(pixels), blocks, key="k")
    assert (tmp_path / "p.tif").read_bytes().endswith(b"".join(blocks))


class Killed(BaseException):
    """Stands for a kill: no code of ours catches it."""


def killed_after(blocks: list[bytes], count: int) -> Iterator[bytes]:
    yield from blocks[:count]
    raise Killed


@pytest.mark.parametrize("count", range(6))
def test_a_writer_killed_after_any_block_goes_on_there(tmp_path: Path, count: int) -> None:
    """Nothing has the final name before; after, the file is that of an undisturbed writer."""
    pixels = noise(*SIZE)
    blocks, layout, path = row_major(pixels), layout_of(pixels), tmp_path / "p.tif"
    expected = written(tmp_path / "whole.tif", pixels)
    with pytest.raises(Killed):
        write_product(path, layout, killed_after(blocks, count), key="k")
    assert not path.exists()

    product = write_product(path, layout, blocks, key="k")

    assert product.sha256 == expected == sha256_of(path)
    assert product.appended == 6 - count
    assert tree(tmp_path) == {"p.tif", "whole.tif"}


@settings(
    deadline=None, derandomize=True, max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data(), count=st.integers(0, 6))
def test_a_part_and_a_journal_cut_anywhere_are_finished_to_the_same_bytes(
    tmp_path: Path, data: st.DataObject, count: int
) -> None:
    """A kill leaves any prefix of either file: what is not proven by the journal is redone."""
    pixels, blocks, expected = usual_product()
    layout, path = layout_of(pixels), tmp_path / "p.tif"
    discard_unfinished(path)
    with pytest.raises(Killed):
        write_product(path, layout, killed_after(blocks, count), key="k")
    for suffix in (".part", ".journal"):
        file = path.with_name(path.name + suffix)
        content = file.read_bytes()
        cut = data.draw(st.integers(max(0, len(content) - 300), len(content)), label=suffix)
        file.write_bytes(content[:cut])

    product = write_product(path, layout, blocks, key="k")

    assert product.sha256 == expected
    assert product.appended >= 6 - count


def test_every_byte_boundary_of_the_last_journal_line_is_survived(tmp_path: Path) -> None:
    """Exhaustive where it hurts: the line that a kill cuts short, cut at each of its bytes."""
    pixels = noise(600, 100)
    blocks, layout, path = row_major(pixels), layout_of(pixels), tmp_path / "p.tif"
    expected = written(tmp_path / "whole.tif", pixels)
    journal = path.with_name("p.tif.journal")
    with pytest.raises(Killed):
        write_product(path, layout, killed_after(blocks, 2), key="k")
    part, text = path.with_name("p.tif.part").read_bytes(), journal.read_bytes()
    last = text.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(last, len(text) + 1):
        path.with_name("p.tif.part").write_bytes(part)
        journal.write_bytes(text[:cut])
        product = write_product(path, layout, blocks, key="k")
        assert product.sha256 == expected
        assert product.appended == (0 if cut >= len(text) - 1 else 1)


@pytest.mark.parametrize("count", [0, 3, 6])
@pytest.mark.parametrize("wrong", [0, 1])
def test_sizes_that_are_known_before_never_change_a_file(
    tmp_path: Path, count: int, wrong: int
) -> None:
    """Right or wrong, after a kill too: the same bytes, and the hash and checksums are theirs."""
    pixels, blocks, expected = usual_product()
    sizes = [len(block) + wrong for block in blocks]
    layout, path = layout_of(pixels), tmp_path / "p.tif"
    with pytest.raises(Killed):
        write_product(path, layout, killed_after(blocks, count), key="k", sizes=sizes)
    assert (path.with_name("p.tif.part").read_bytes().find(blocks[0]) > 0) == (count > 0)

    product = write_product(path, layout, blocks, key="k", sizes=sizes)

    assert product.sha256 == sha256_of(path) == expected
    assert product.size == path.stat().st_size
    assert product.crc32 == block_checksums(path) == "".join(f"{crc32(b):08x}" for b in blocks)
    assert product.appended == 6 - count


def test_a_journal_of_swapped_or_lost_lines_never_swaps_blocks(tmp_path: Path) -> None:
    """A line counts only at its own place; without the harm (control) all lines count."""
    pixels, blocks, expected = usual_product()
    layout, path = layout_of(pixels), tmp_path / "p.tif"
    journal = path.with_name("p.tif.journal")
    for order, kept in (([0, 1, 2, 3], 3), ([0, 2, 1, 3], 0), ([0, 1, 3], 1), ([0, 1, 2, 2], 2)):
        discard_unfinished(path)
        with pytest.raises(Killed):
            write_product(path, layout, killed_after(blocks, 3), key="k")
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(lines[number] for number in order))
        product = write_product(path, layout, blocks, key="k")
        assert (product.sha256, product.appended) == (expected, 6 - kept)


def test_a_damaged_part_is_redone_from_the_damage_on(tmp_path: Path) -> None:
    """The journal's sums find a block whose bytes did not reach the disk."""
    pixels = noise(*SIZE)
    blocks, layout, path = row_major(pixels), layout_of(pixels), tmp_path / "p.tif"
    with pytest.raises(Killed):
        write_product(path, layout, killed_after(blocks, 4), key="k")
    part = path.with_name("p.tif.part")
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)

    product = write_product(path, layout, blocks, key="k")

    assert product.appended == 3
    assert np.array_equal(pixels_of(path), pixels)


def test_what_another_key_left_is_never_gone_on_with(tmp_path: Path) -> None:
    """Pixels of other parameters would look right and be wrong."""
    old, new = noise(*SIZE, seed=1), noise(*SIZE, seed=2)
    path = tmp_path / "p.tif"
    with pytest.raises(Killed):
        write_product(path, layout_of(old), killed_after(row_major(old), 4), key="old")

    product = write_product(path, layout_of(new), row_major(new), key="new")

    assert product.appended == 6
    assert np.array_equal(pixels_of(path), new)


@pytest.mark.parametrize("count", [5, 7])
def test_too_few_or_too_many_blocks_make_no_product(tmp_path: Path, count: int) -> None:
    """A file with a missing block would be read as zeros."""
    pixels = noise(*SIZE)
    blocks = [*row_major(pixels), b"one more"][:count]
    with pytest.raises(StoreFailed, match="blocks"):
        write_product(tmp_path / "p.tif", layout_of(pixels), blocks, key="k")
    assert not (tmp_path / "p.tif").exists()


def test_a_folder_that_cannot_be_written_is_a_store_failure_by_name(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    pixels = noise(10, 10)
    with pytest.raises(StoreFailed, match="Not a directory"):
        written(tmp_path / "file" / "p.tif", pixels)
