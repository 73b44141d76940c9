"""Stream a product to a place that takes bytes in order: header and offsets first, then blocks.

The bytes are those of `raster/product.py`, which writes the offsets last. Therefore the size of
each block must be known before the first one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.product import header_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pesto_runtime.raster.product import Layout
    from pesto_runtime.raster.tiff_directory import FileHeader


class ProductStream:
    """The bytes of one product, in order."""

    def __init__(self, layout: Layout | FileHeader, sizes: Sequence[int]) -> None:
        """Lay out the file.

        Args:
            layout: Size, dtype and metadata; or a header, for a file of other images.
            sizes: Bytes of every compressed block, row-major; then those of its mask.

        Raises:
            StoreFailed: too few or too many blocks, or more bytes than a TIFF can address.
        """
        header = header_of(layout)
        self._count, self._sizes = header.count, sizes
        if len(sizes) != header.total:
            raise StoreFailed(f"{len(sizes)} blocks for a file of {header.total}")
        self._header = header.filled(sizes)
        self._checksums: list[str] = []
        self.size = len(self._header) + sum(sizes)

    def chunks(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of the file.

        Args:
            blocks: The compressed blocks in the order of their sizes.

        Raises:
            StoreFailed: a block has another size, or there are too few or too many.
        """
        yield self._header
        number = -1
        for number, block in enumerate(blocks):
            if number >= len(self._sizes) or len(block) != self._sizes[number]:
                raise StoreFailed(f"block {number} has {len(block)} bytes, which is not its size")
            if number < self._count:
                self._checksums.append(f"{crc32(block):08x}")
            yield block
        if number + 1 != len(self._sizes):
            raise StoreFailed(f"{number + 1} blocks for a file of {len(self._sizes)}")

    @property
    def checksums(self) -> str:
        """CRC-32 of every block of the first image, as `block_checksums` returns them."""
        return "".join(self._checksums)
