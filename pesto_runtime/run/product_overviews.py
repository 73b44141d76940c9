"""Write a product with overviews from the run store, to a file or into a bucket.

The product without overviews is written in `closing`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.places import RemotePath
from pesto_runtime.raster.cog import OverviewFile
from pesto_runtime.raster.overviews import Overviews
from pesto_runtime.raster.product import Layout, Product, write_product
from pesto_runtime.raster.product_stream import ProductStream
from pesto_runtime.run.context import load_context, stored_sizes
from pesto_runtime.run.product_blocks import mask_blocks, product_blocks

if TYPE_CHECKING:
    from pesto_runtime.contract import ProductForm
    from pesto_runtime.places import AnyPath


def write_with_overviews(
    plan_href: str,
    raster: str,
    layout: Layout,
    path: AnyPath,
    *,
    form: ProductForm,
    key: str,
) -> Product:
    """Write a product with overviews: its blocks are read twice, and decoded once.

    Args:
        plan_href: Href of the plan.
        raster: Reference of the raster.
        layout: Size, dtype and metadata.
        path: File to write; on a disk, an unfinished one is continued.
        form: Whether it is cloud-optimised.
        key: Identity of the pixels; an unfinished file with another key is written anew.

    Raises:
        StoreFailed: disk full, or not writable.
        PestoError: as for `product_blocks`.
    """
    context = load_context(plan_href)
    stored = stored_sizes(context, raster)
    plain = replace(layout, has_mask=False)
    masks = mask_blocks(context, raster, layout, stored) if layout.has_mask else ()
    with Overviews(layout, path.parent if isinstance(path, Path) else None) as overviews:
        overviews.make(product_blocks(plan_href, raster, plain, stored), masks)
        file = OverviewFile(layout, overviews, form)
        blocks = file.blocks(product_blocks(plan_href, raster, plain, stored))
        if isinstance(path, RemotePath):
            stream = ProductStream(file, file.sizes)
            digest, size = path.write_chunks(stream.chunks(blocks), size=stream.size)
            return Product(digest, size, len(stored), overviews.checksums)
        product = write_product(path, file, blocks, key=key, sizes=file.sizes)
        return replace(product, crc32=overviews.checksums)
