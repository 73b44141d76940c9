"""A product as a stream: the bytes of the file that `write_product` writes, in order."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.block_codec import BlockCodec, compress_mask
from pesto_runtime.raster.product import Layout, block_checksums, write_product
from pesto_runtime.raster.product_stream import ProductStream
from pesto_runtime.tiling import block_window, blocks_of
from tests.support.rasters import noise

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SIZE = (1100, 700)


def blocks_in(pixels: np.ndarray, *, has_mask: bool = False) -> list[bytes]:
    codec = BlockCodec(pixels.shape[0], pixels.dtype.name)
    windows = [block_window(index, SIZE).slices for index in blocks_of(SIZE)]
    blocks = [codec.compress(pixels[(slice(None), *window)]) for window in windows]
    masks = [compress_mask(pixels[(0, *window)] > 9) for window in windows]
    return blocks + (masks if has_mask else [])


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_stream_is_the_file(tmp_path: Path, dtype: str, *, has_mask: bool) -> None:
    """Bytes, sha256 and checksums of blocks; the writer that seeks is the other way."""
    pixels = noise(*SIZE, bands=2, below=40).astype(dtype)
    layout = Layout(*SIZE, count=2, dtype=dtype, has_mask=has_mask)
    blocks = blocks_in(pixels, has_mask=has_mask)
    path = tmp_path / "p.tif"
    product = write_product(path, layout, blocks, key="k")
    stream = ProductStream(layout, [len(each) for each in blocks])
    data = b"".join(stream.chunks(iter(blocks)))
    assert data == path.read_bytes()
    assert (hashlib.sha256(data).hexdigest(), stream.size) == (product.sha256, product.size)
    assert stream.checksums == block_checksums(path)
    changed = ProductStream(replace(layout, nodata=1), [len(each) for each in blocks])
    assert b"".join(changed.chunks(iter(blocks))) != data, "the control"


@pytest.mark.parametrize("fault", ["shorter", "fewer", "more"])
def test_blocks_that_differ_from_their_sizes_make_no_product(fault: str) -> None:
    """The header is sent already, so the upload must fail."""
    blocks = blocks_in(noise(*SIZE))
    stream = ProductStream(Layout(*SIZE, count=1, dtype="uint8"), [len(each) for each in blocks])
    wrong = {"shorter": [blocks[0][:-1], *blocks[1:]], "fewer": blocks[:-1],
             "more": [*blocks, blocks[0]]}[fault]  # fmt: skip
    with pytest.raises(StoreFailed):
        list(stream.chunks(wrong))


def test_too_few_sizes_are_refused() -> None:
    with pytest.raises(StoreFailed, match="5 blocks for a file of 6"):
        ProductStream(Layout(*SIZE, count=1, dtype="uint8"), [1] * 5)
