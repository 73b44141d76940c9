"""Write a product with overviews from the run store, to a file or into a bucket.

The product without overviews is written in `closing`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.raster.cog import OverviewFile
from pesto_runtime.raster.overviews import Overviews
from pesto_runtime.raster.product import Blocks, Layout, Product, write_product
from pesto_runtime.run.context import load_context
from pesto_runtime.run.product_blocks import mask_blocks, product_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pesto_runtime.contract import ProductForm
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.packs import StoredBlocks


def write_with_overviews(
    plan_href: str,
    raster: str,
    layout: Layout,
    stored: StoredBlocks,
    path: AnyPath,
    *,
    form: ProductForm,
) -> Product:
    """Write a product with overviews: its blocks are read twice, and decoded once.

    Args:
        plan_href: Href of the plan.
        raster: Reference of the raster.
        layout: Size, dtype and metadata.
        stored: Its blocks in the run store.
        path: File or object to write.
        form: Whether it is cloud-optimised.

    Raises:
        StoreFailed: disk full, or not writable.
        PestoError: as for `product_blocks`.
    """
    context = load_context(plan_href)
    plain = replace(layout, has_mask=False)
    masks = mask_blocks(context, raster, layout, stored) if layout.has_mask else ()
    with Overviews(layout, path.parent if isinstance(path, Path) else None) as overviews:
        with product_blocks(plan_href, raster, plain, stored) as (_, found):
            overviews.make(_each(found), masks)
        file = OverviewFile(layout, overviews, form)
        with product_blocks(plan_href, raster, plain, stored) as (_, found):
            blocks = map(Blocks.of, file.blocks(_each(found)))
            product = write_product(path, file, blocks, sizes=np.array(file.sizes, np.int64))
        return replace(product, crc32=overviews.checksums)


def _each(blocks: Iterable[Blocks]) -> Iterator[bytes]:
    for several in blocks:
        yield from several.split()
