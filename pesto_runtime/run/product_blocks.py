"""Give the compressed blocks of a product: those of its pixels, then those of its mask.

Blocks of pixels come from the run store; the mask is that of the scene from which the product
inherits. Which products carry a mask is decided in `pipeline/types.py`.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.raster.block_codec import BlockCodec, compress_mask
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import unchanged
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.run.context import RunContext, block_name, holed_name, load_context
from pesto_runtime.run.repairing import read_block_object
from pesto_runtime.tiling import block_window, blocks_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pesto_runtime.raster.product import Layout
    from pesto_runtime.store import Store
    from pesto_runtime.tiling import BlockIndex

_AHEAD = 4  # blocks; each of up to some MB
_AHEAD_REMOTE = 16  # a bucket takes its time for each


def product_blocks(
    plan_href: str, raster: str, layout: Layout, stored: Collection[BlockIndex]
) -> Iterator[bytes]:
    """Yield a raster's compressed blocks, row-major, and then those of its mask, if it has one.

    A missing block is nodata, and not valid in the mask.

    Raises:
        StoreFailed: the store does not respond.
        RasterUnreadable: the mask of the scene cannot be read.
        SceneChanged: the scene of the mask is not the one that was planned.
    """
    context = load_context(plan_href)
    indices = [*blocks_of((layout.width, layout.height))]
    names = {index: block_name(context, raster, index) for index in indices if index in stored}
    ahead = _AHEAD if context.store.base.startswith("file:") else _AHEAD_REMOTE
    with ThreadPoolExecutor(ahead, "pesto-read") as pool:
        reads = _read_ahead(pool, context.store, names.values(), ahead)
        for index in indices:
            if index in stored:
                name = names[index]
                yield read_block_object(plan_href, raster, index, name, read=next(reads).result)
            else:
                yield _holed_block(context, raster, layout, index)
    if layout.has_mask:
        yield from mask_blocks(context, raster, layout, stored)


def _read_ahead(
    pool: Executor, store: Store, names: Iterable[str], ahead: int
) -> Iterator[Future[bytes]]:
    """Yield the reads of objects; some of the next ones are read and verified meanwhile."""
    waiting: deque[Future[bytes]] = deque()
    for name in names:
        waiting.append(pool.submit(copy_context().run, store.get, name))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def product_sizes(
    context: RunContext, raster: str, layout: Layout, stored: Mapping[BlockIndex, int]
) -> list[int]:
    """Return the bytes of each block that `product_blocks` yields, in its order.

    Blocks of pixels are not read; those of a mask are compressed, and again for `product_blocks`.

    Raises:
        PestoError: as for `product_blocks`.
    """
    sizes = [
        stored[index] if index in stored else len(_holed_block(context, raster, layout, index))
        for index in blocks_of((layout.width, layout.height))
    ]
    if layout.has_mask:
        sizes += [len(data) for data in mask_blocks(context, raster, layout, stored)]
    return sizes


def mask_blocks(
    context: RunContext, raster: str, layout: Layout, stored: Collection[BlockIndex]
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
