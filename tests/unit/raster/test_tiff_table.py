"""The block table: the only two arrays of a TIFF that are known here."""

import numpy as np
import pytest
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.block_codec import TagArray, block_table


def tiff(**options: object) -> bytes:
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=1100, height=700, count=1, dtype="uint8", sparse_ok=True,
            transform=Affine.scale(2, -2), **options,
        ):  # fmt: skip
            pass
        return bytes(memory.getbuffer())


@pytest.mark.parametrize("bigtiff", ["YES", "NO"])
def test_classic_and_big_tiffs_have_a_place_per_block(bigtiff: str) -> None:
    """Six blocks; a sparse file says 0 for each."""
    data = tiff(tiled=True, blockxsize=512, blockysize=512, bigtiff=bigtiff)
    table = block_table(data)
    assert table.offsets.unpack(data) == table.sizes.unpack(data) == (0,) * 6


@pytest.mark.parametrize(
    ("options", "told"),
    [({"endianness": "BIG"}, "little-endian"), ({"tiled": False}, "block offsets")],
)
def test_any_other_tiff_is_refused(options: dict[str, object], told: str) -> None:
    """GDAL would have changed its mind; writing into the wrong place would corrupt in silence."""
    with pytest.raises(StoreFailed, match=told):
        block_table(tiff(**options))


def test_places_that_do_not_fit_are_refused() -> None:
    """One too few, or beyond 4 GB in a classic TIFF."""
    array = TagArray(position=0, count=2, code="I")
    assert array.pack(np.array([1, 2])) == b"\1\0\0\0\2\0\0\0"
    with pytest.raises(StoreFailed, match="1 blocks for a file of 2"):
        array.pack(np.array([1]))
    with pytest.raises(StoreFailed, match="beyond"):
        array.pack(np.array([1, 1 << 33]))
