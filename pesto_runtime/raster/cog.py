"""Write a product with overviews: a cloud-optimised GeoTIFF, or a plain one whose overviews follow.

The header has the directories of all images. In a cloud-optimised file the smallest overview is
first and the product last, and each block stands between its size and its last four bytes, as
GDAL's driver COG writes them: https://gdal.org/en/stable/drivers/raster/cog.html
Overviews are made in `overviews`; files are written in `product`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import ProductForm
from pesto_runtime.raster.block_codec import block_table
from pesto_runtime.raster.image import Georeference
from pesto_runtime.raster.product import BIG_BYTES, product_header
from pesto_runtime.raster.tiff_directory import as_overview, read_directories, write_directories
from pesto_runtime.tiling import block_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pesto_runtime.raster.overviews import Level, Overviews
    from pesto_runtime.raster.product import Layout

_METADATA = 42112
"""The tag GDAL_METADATA: names and tags of bands, which overviews do not have."""
_FRAME = 4  # bytes before a block, and as many after it
_FEATURES = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
"""What GDAL reads of the layout, at the start of the file; the blank is the room of a `YES`."""
_NOTE = f"GDAL_STRUCTURAL_METADATA_SIZE={len(_FEATURES):06} bytes\n{_FEATURES}".encode()


@dataclass(frozen=True, slots=True)
class _Part:
    """The blocks of one image in the file: its directory, and the bytes of its blocks."""

    image: int
    sizes: Sequence[int]


class OverviewFile:
    """The header and the blocks of a product with overviews, in the order of the file.

    Attributes:
        data: The header, without the places of blocks.
        sizes: Bytes of each block with its frame, in the order of `blocks`.
    """

    def __init__(self, layout: Layout, overviews: Overviews, form: ProductForm) -> None:
        """Lay out the file.

        Args:
            layout: Size, dtype and metadata.
            overviews: Its overviews, made.
            form: Whether the file is cloud-optimised.
        """
        self._overviews, self._has_mask = overviews, layout.has_mask
        self._frame = _FRAME if form is ProductForm.COG else 0
        numbers = [*range(len(overviews.levels))]
        self._order = numbers[::-1] if self._frame else numbers
        self.data = _header(layout, overviews.levels, _NOTE if self._frame else b"")
        self._parts = [part for number in self._order for part in self._images(number)]
        self.sizes = [size + 2 * self._frame for part in self._parts for size in part.sizes]
        self.count = len(overviews.levels[0].sizes)

    @property
    def total(self) -> int:
        """Blocks of all images."""
        return len(self.sizes)

    def filled(self, sizes: np.ndarray) -> bytes:
        """Return the header with the places of all blocks.

        Args:
            sizes: Bytes of each block with its frame, array (block,), in the order of `blocks`.

        Raises:
            StoreFailed: there are more bytes than a TIFF can address.
        """
        file, at, done = bytearray(self.data), len(self.data), 0
        for part in self._parts:
            own = sizes[done : done + len(part.sizes)]
            starts = at + np.concatenate(([0], np.cumsum(own[:-1])))
            table = block_table(self.data, image=part.image)
            for array, numbers in (
                (table.offsets, starts + self._frame),
                (table.sizes, own - 2 * self._frame),
            ):
                packed = array.pack(numbers)
                file[array.position : array.position + len(packed)] = packed
            at, done = at + int(own.sum()), done + len(own)
        return bytes(file)

    def blocks(self, product: Iterable[bytes]) -> Iterator[bytes]:
        """Yield all blocks with their frames.

        Args:
            product: The compressed blocks of the product, row-major, without those of its mask.
        """
        made = self._overviews
        for number in self._order:
            own = made.blocks(number) if number else product
            for data in chain(own, made.masks(number)):
                yield _framed(data) if self._frame else data

    def _images(self, number: int) -> Iterator[_Part]:
        """Yield the image of a level and its mask: in the header, masks of overviews are last."""
        level, count = self._overviews.levels[number], len(self._overviews.levels) - 1
        yield _Part(number + self._has_mask if number else 0, level.sizes)
        if self._has_mask:
            yield _Part(1 + count + number if number else 1, level.mask_sizes)


def _framed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data + data[-_FRAME:]


def _header(layout: Layout, levels: Sequence[Level], note: bytes) -> bytes:
    main = read_directories(product_header(layout))
    images, masks = [], []
    for level in levels[1:]:
        width, height = level.size
        own = replace(layout, width=width, height=height, georeference=Georeference())
        image, *mask = read_directories(product_header(own))
        images.append(as_overview(image, without=[_METADATA]))
        masks += [as_overview(each, without=[]) for each in mask]
    pixels = sum(rows * cols for rows, cols in (block_count(each.size) for each in levels))
    raw = pixels * np.dtype(layout.dtype).itemsize * layout.count << 18  # pixels of a block: 2^18
    return write_directories([*main, *images, *masks], note=note, is_big=raw > BIG_BYTES)
