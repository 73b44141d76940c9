"""The door to pixels: read windows, write products, code and decode images. GDAL's only user."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.raster.blocks import BlockCodec
    from pesto_runtime.raster.bounds import Bounds
    from pesto_runtime.raster.codec import decode_image, encode_image, image_pieces
    from pesto_runtime.raster.cog import write_cog
    from pesto_runtime.raster.colours import RAMPS, Colour, Ramp
    from pesto_runtime.raster.image import Image, rescaled, shifted
    from pesto_runtime.raster.metadata import BandFacts, Georeference
    from pesto_runtime.raster.preview import Preview, read_preview
    from pesto_runtime.raster.product import (
        Layout,
        Product,
        discard_unfinished,
        file_sha256,
        write_product,
    )
    from pesto_runtime.raster.read import (
        RasterReader,
        band_numbers,
        gdal_version,
        limit_cache,
        raster_settings,
        read_image,
        read_scene,
    )

_HOMES = {
    "RAMPS": "colours",
    "BandFacts": "metadata",
    "Colour": "colours",
    "Georeference": "metadata",
    "Preview": "preview",
    "Product": "product",
    "Ramp": "colours",
    "file_sha256": "product",
    "BlockCodec": "blocks",
    "Bounds": "bounds",
    "Image": "image",
    "Layout": "product",
    "RasterReader": "read",
    "band_numbers": "read",
    "decode_image": "codec",
    "discard_unfinished": "product",
    "gdal_version": "read",
    "limit_cache": "read",
    "write_cog": "cog",
    "encode_image": "codec",
    "image_pieces": "codec",
    "raster_settings": "read",
    "read_image": "read",
    "read_preview": "preview",
    "read_scene": "read",
    "rescaled": "image",
    "shifted": "image",
    "write_product": "product",
}

__all__ = [
    "RAMPS",
    "BandFacts",
    "BlockCodec",
    "Bounds",
    "Colour",
    "Georeference",
    "Image",
    "Layout",
    "Preview",
    "Product",
    "Ramp",
    "RasterReader",
    "band_numbers",
    "decode_image",
    "discard_unfinished",
    "encode_image",
    "file_sha256",
    "gdal_version",
    "image_pieces",
    "limit_cache",
    "raster_settings",
    "read_image",
    "read_preview",
    "read_scene",
    "rescaled",
    "shifted",
    "write_cog",
    "write_product",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
