"""Give the compressed blocks of a product: those of its pixels, then those of its mask.

Blocks of pixels come from the run store; the mask is that of the scene from which the product
inherits. Which products carry a mask is decided in `pipeline/types.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.raster.block_codec import BlockCodec, compress_mask
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import unchanged
from pesto_runtime.raster.product import Blocks
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.run.context import RunContext, holed_name, load_context
from pesto_runtime.run.repairing import blocks_in_order
from pesto_runtime.tiling import block_window, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.raster.product import Layout
    from pesto_runtime.run.packs import StoredBlocks
    from pesto_runtime.tiling import BlockIndex

_SPOOL_BYTES = 64 << 20


@contextmanager
def product_blocks(
    plan_href: str, raster: str, layout: Layout, stored: StoredBlocks
) -> Iterator[tuple[np.ndarray, Iterator[Blocks]]]:
    """Yield the sizes and the compressed blocks of a raster, row-major, then of its mask if any.

    A missing block is nodata, and not valid in the mask. These blocks and the mask are compressed
    first, as their sizes are needed; above 64 MiB they are in a temporary file without a name.

    Yields:
        Bytes of each block, array (block,); and the blocks.

    Raises:
        StoreFailed: the store does not respond.
        RasterUnreadable: the mask of the scene cannot be read.
        SceneChanged: the scene of the mask is not the one that was planned.
    """
    context = load_context(plan_href)
    absent = stored.missing
    with SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        others: list[int] = []
        holed = (_holed_block(context, raster, layout, index) for index in stored.indices(absent))
        masks = mask_blocks(context, raster, layout, stored) if layout.has_mask else ()
        for data in chain(holed, masks):
            others.append(len(data))
            spool.write(data)
        spool.seek(0)
        sizes = stored.places["length"].copy()
        sizes[absent] = others[: len(absent)]
        of_masks = np.array(others[len(absent) :], sizes.dtype)

        def blocks() -> Iterator[Blocks]:
            found = iter(others)
            for each in blocks_in_order(plan_href, raster, stored):
                yield each if isinstance(each, Blocks) else Blocks.of(spool.read(next(found)))
            for size in found:
                yield Blocks.of(spool.read(size))

        yield np.concatenate([sizes, of_masks]), blocks()


def mask_blocks(
    context: RunContext, raster: str, layout: Layout, stored: StoredBlocks
) -> Iterator[bytes]:
    """Yield the compressed blocks of the mask of a product that has one, row-major.

    Raises:
        RasterUnreadable: the mask of the scene cannot be read.
        SceneChanged: the scene is not the one that was planned.
    """
    scene = context.plan.scenes[context.raster_type(raster).mask]
    with (
        unchanged(scene.href, scene.identity),
        raster_settings(),
        RasterReader(scene.href, scene.selection) as reader,
    ):
        for index in blocks_of((layout.width, layout.height)):
            window = block_window(index, (layout.width, layout.height))
            mask = reader.mask(window)
            valid = np.ones((window.height, window.width), bool) if mask is None else mask
            if index not in stored:
                # The mask replaces nodata, so it must show the pixels of a hole too.
                data = _holed_block(context, raster, layout, index)
                valid = valid & _filled(data, layout)[: window.height, : window.width]
            yield compress_mask(valid, layout.compression)


def _filled(data: bytes, layout: Layout) -> np.ndarray:
    """Return which pixels (row, col) of a compressed block are not nodata."""
    pixels = BlockCodec(layout.count, layout.dtype, layout.compression).decompress(data)
    if layout.nodata is not None and np.isnan(layout.nodata):
        return np.asarray(~np.isnan(pixels).all(axis=0))
    return np.asarray((pixels != layout.nodata).any(axis=0))


def _holed_block(context: RunContext, raster: str, layout: Layout, index: BlockIndex) -> bytes:
    try:
        return context.store.get(holed_name(context, raster, index))
    except Damaged:
        raise
    except NotFound:
        return _empty_block(layout, index)


def _empty_block(layout: Layout, index: BlockIndex) -> bytes:
    window = block_window(index, (layout.width, layout.height))
    shape = (layout.count, window.height, window.width)
    codec = BlockCodec(layout.count, layout.dtype, layout.compression)
    return codec.compress(np.full(shape, layout.nodata, layout.dtype))
