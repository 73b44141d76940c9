"""Compressed blocks: the bytes that GDAL writes, and pixels that every reader gets back."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window

from pesto_runtime.contract import NUMERIC_DTYPES, Compression
from pesto_runtime.errors import InvalidInput, StoreFailed
from pesto_runtime.raster.block_codec import BlockCodec, block_table, compress_mask
from pesto_runtime.raster.product import Layout
from tests.support.packs import write_blocks
from tests.support.rasters import pixels_of

SIDE = 512
AS_GDAL = Compression("deflate", 7)
CODECS = ["deflate", "deflate:1", "deflate:7", "deflate:12", "zstd", "zstd:22", "none"]


def blocks() -> st.SearchStrategy[np.ndarray]:
    """Blocks (band, row, col) of any dtype and bit pattern, often not full."""
    side = st.one_of(st.integers(1, 9), st.sampled_from([511, SIDE]))
    return st.tuples(st.sampled_from(NUMERIC_DTYPES), st.integers(1, 5), side, side).flatmap(
        lambda drawn: arrays(np.dtype(drawn[0]), drawn[1:], fill=st.integers(0, 100))
    )


def by_gdal(pixels: np.ndarray, image: int = 0, **options: object) -> bytes:
    """The only block of a file of 512 x 512 pixels that GDAL itself has written."""
    count, rows, cols = pixels.shape
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=SIDE, height=SIDE, count=count, dtype=pixels.dtype,
            tiled=True, blockxsize=SIDE, blockysize=SIDE, interleave="pixel", compress="deflate",
            transform=Affine.scale(2, -2), photometric="MINISBLACK", **options,
        ) as dataset:  # fmt: skip
            if image:
                dataset.write_mask(pixels[0].astype(bool), window=Window(0, 0, cols, rows))
            else:
                dataset.write(pixels, window=Window(0, 0, cols, rows))
        data = bytes(memory.getbuffer())
    table = block_table(data, image=image)
    (offset,), (size,) = table.offsets.unpack(data), table.sizes.unpack(data)
    return data[offset : offset + size]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(pixels=blocks())
def test_blocks_of_level_7_are_those_that_gdal_writes(pixels: np.ndarray) -> None:
    """Every dtype, number of bands and edge; with another level (control) the bytes differ."""
    kind, name = pixels.dtype.kind, pixels.dtype.name
    written = by_gdal(pixels, predictor={"f": 3, "c": 1}.get(kind, 2), zlevel=6)
    assert BlockCodec(pixels.shape[0], name, AS_GDAL).compress(pixels) == written
    assert BlockCodec(pixels.shape[0], name, Compression("deflate", 1)).compress(pixels) != written


@settings(deadline=None, derandomize=True, max_examples=60)
@given(pixels=blocks(), text=st.sampled_from(CODECS))
def test_blocks_come_back_bit_by_bit(pixels: np.ndarray, text: str) -> None:
    """NaN with its bits, negative zero and every codec; pixels beyond the edge are 0."""
    codec = BlockCodec(pixels.shape[0], pixels.dtype.name, Compression.parse(text))
    again = codec.decompress(codec.compress(pixels))
    expected = np.zeros((pixels.shape[0], SIDE, SIDE), pixels.dtype)
    expected[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    assert again.dtype == pixels.dtype
    assert again.tobytes() == expected.tobytes()


@pytest.mark.parametrize("text", ["deflate", "deflate:7", "zstd", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "complex64"])
def test_gdal_reads_products_of_every_codec(tmp_path: Path, text: str, dtype: str) -> None:
    """Three bands and a mask of 700 x 600 pixels, through a file with the tags of its codec."""
    generator = np.random.default_rng(5)
    pixels = generator.normal(0, 50, (3, 600, 700)).astype(dtype)
    valid = generator.random((600, 700)) > 0.3
    compression = Compression.parse(text)
    codec = BlockCodec(3, dtype, compression)
    parts = [np.s_[r : r + SIDE, c : c + SIDE] for r in (0, SIDE) for c in (0, SIDE)]
    data = [codec.compress(pixels[(slice(None), *part)]) for part in parts]
    data += [compress_mask(valid[part], compression) for part in parts]
    layout = Layout(700, 600, 3, dtype, has_mask=True, compression=compression)
    write_blocks(tmp_path / "p.tif", layout, data)

    assert np.array_equal(pixels_of(tmp_path / "p.tif"), pixels)
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert np.array_equal(dataset.dataset_mask() > 0, valid)
        name = dataset.compression.name if dataset.compression else "none"
        assert name == compression.codec
        predictor = {"f": "3", "c": None}.get(np.dtype(dtype).kind, "2")
        tag = dataset.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR")
        assert tag == (predictor if text != "none" else None)


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (3, 500)])
def test_blocks_of_a_mask_are_those_that_gdal_writes(shape: tuple[int, int]) -> None:
    """One bit a pixel; a mask with one other pixel (control) has other bytes."""
    valid = np.random.default_rng(1).random(shape) > 0.5
    written = by_gdal(valid[None].astype("uint8"), image=1, zlevel=6)
    assert compress_mask(valid, AS_GDAL) == written
    valid[0, 0] ^= True
    assert compress_mask(valid, AS_GDAL) != written


@pytest.mark.parametrize("text", CODECS)
def test_a_block_that_is_cut_or_too_long_is_refused(text: str) -> None:
    """Never pixels of a part, and never an endless one; the whole block (control) is read."""
    codec = BlockCodec(2, "uint16", Compression.parse(text))
    larger = BlockCodec(4, "uint16", codec.compression)
    data = codec.compress(np.full((2, SIDE, SIDE), 7, "uint16"))
    assert codec.decompress(data).min() == 7
    for wrong in (data[:-9], b"", larger.compress(np.zeros((4, SIDE, SIDE), "uint16"))):
        with pytest.raises(StoreFailed, match="block"):
            codec.decompress(wrong)


@pytest.mark.parametrize("text", [*CODECS, "deflate:4", "zstd:19"])
def test_a_codec_is_its_text(text: str) -> None:
    """What is written into a plan is read again; a default level is written too."""
    read = Compression.parse(text)
    assert Compression.parse(str(read)) == read
    assert str(read).startswith(text)


@pytest.mark.parametrize(
    "text", ["", "lzw", "deflate:", "deflate:0", "deflate:13", "deflate:+4", "deflate:04",
             "zstd:23", "zstd:-1", "none:0", "none:1", "DEFLATE", "deflate:4 ", "deflate:٤"],
)  # fmt: skip
def test_any_other_codec_or_level_is_refused_with_the_way_out(text: str) -> None:
    """The message has the value, all codecs and their levels."""
    with pytest.raises(InvalidInput, match=r"deflate:1 to deflate:12.*zstd:1 to zstd:22, or none"):
        Compression.parse(text)
