"""Product blocks as compressed bytes: the same pixels are the same bytes, whoever makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from pesto_runtime.contract import BLOCK
from pesto_runtime.raster.tiff import block_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEVEL = 6
_SOMEWHERE = Affine.scale(2, -2)  # a raster without a place makes rasterio warn


def creation_options(dtype: str) -> Mapping[str, object]:
    """GDAL's options for a product of this dtype: block size, codec, predictor, interleave."""
    kind = np.dtype(dtype).kind
    return {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": _LEVEL,
        "predictor": {"f": 3, "c": 1}.get(kind, 2),
        "interleave": "pixel",
        "num_threads": 1,
    }


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """Compresses blocks of one raster.

    Attributes:
        count: Bands.
        dtype: Of all bands.
    """

    count: int
    dtype: str

    def compress(self, block: np.ndarray) -> bytes:
        """Compress one block.

        Args:
            block: Array (band, row, col) of this dtype; smaller than 512 x 512 at the grid's far
                edges, where it is padded with 0.
        """
        _, rows, cols = block.shape
        if (rows, cols) != (BLOCK, BLOCK):
            padded = np.zeros((self.count, BLOCK, BLOCK), self.dtype)
            padded[:, :rows, :cols] = block
            block = padded
        with MemoryFile() as memory:
            with memory.open(
                width=BLOCK,
                height=BLOCK,
                count=self.count,
                dtype=self.dtype,
                transform=_SOMEWHERE,
                **creation_options(self.dtype),
            ) as dataset:
                dataset.write(block)
            data = bytes(memory.getbuffer())
        table = block_table(data)
        (offset,), (size,) = table.offsets.unpack(data), table.sizes.unpack(data)
        return data[offset : offset + size]
