"""Give a product the facts that it declares, and those that it inherits of its first image.

Which facts these are is one rule for runs, services and single calls: `made_type` in
`pipeline/types.py`. Here the facts themselves are found and put together. No I/O.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.contract import BandValues, RasterContract
from pesto_runtime.pipeline import RasterType, made_type
from pesto_runtime.raster.image import BandFacts, Georeference, Image, shifted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pesto_runtime.contract import TileInfo

T = TypeVar("T")


def product_bands(made: RasterType, of_scene: Sequence[BandFacts]) -> tuple[BandFacts, ...]:
    """Return the facts of a product's bands.

    Args:
        made: Its type.
        of_scene: Facts of the scene's bands `made.facts`, in this order; empty if it has none.
    """
    names = made.bands or ()
    values = made.values or (BandValues(),) * len(names)
    facts = of_scene or (BandFacts(),) * len(names)
    return tuple(
        replace(each, description=name, scale=value.scale, offset=value.offset, unit=value.unit)
        for each, name, value in zip(facts, names, values, strict=True)
    )


def output_image(
    pixels: np.ndarray, contract: RasterContract | None, first: Image | None, *, covers: bool
) -> Image:
    """Return an output of a call with its facts.

    Args:
        pixels: The output (band, row, col).
        contract: Of its port; None declares nothing.
        first: The first image of the call as the process received it; its pixels are not used.
        covers: Whether the output lies on the first image, pixel by pixel at the port's scale.
            Otherwise its place is not known, and it has no georeference.
    """
    declared = contract or RasterContract()
    source = RasterType() if first is None else image_type(first)
    made = made_type(_actual(declared, source, pixels), source)
    known = first.facts if first is not None and made.facts else ()
    bands = product_bands(made, known)
    place = Georeference()
    if first is not None and covers:
        scale = declared.scale
        place = first.georeference.rescaled(float(scale.x), float(scale.y))
    mask = first.mask if first is not None and made.mask and covers else None
    return Image.of_facts(pixels, place, bands, nodata=made.nodata, mask=mask)


def image_type(image: Image) -> RasterType:
    """Return the type of an image, as that of a scene."""
    bands = image.band_facts
    values = tuple(
        BandValues.model_construct(scale=each.scale, offset=each.offset, unit=each.unit)
        for each in bands
    )
    return RasterType(
        bands=tuple(each.description for each in bands),
        dtype=(image.pixels.dtype.name,),
        nodata=image.nodata,
        values=values,
        facts=tuple(range(1, len(bands) + 1)),
        mask="image" if image.mask is not None else "",
    )


def covers(pixels: np.ndarray, tile: TileInfo, contract: RasterContract | None) -> bool:
    """Return whether an output has a pixel per input pixel of its call, at the port's scale."""
    scale = (contract or RasterContract()).scale
    _, height, width = pixels.shape
    off_x = abs(tile.read.width * scale.x - width)
    off_y = abs(tile.read.height * scale.y - height)
    return bool(off_x < 1 and off_y < 1)


def with_facts_of(image: Image, tile: TileInfo) -> Image:
    """Return the first image of a call with the facts that the caller states of it.

    The place is that of the tile. Of nodata and the meaning of the numbers, those that the image
    does not have itself are taken: a `.npy` has none.
    """
    transform = tile.transform and shifted(tile.transform, tile.read.col_off, tile.read.row_off)
    return replace(
        image,
        crs=tile.crs,
        transform=transform,
        tags=dict(tile.tags),
        nodata=tile.nodata if image.nodata is None else image.nodata,
        scales=image.scales or _of_bands(tile.scales, image),
        offsets=image.offsets or _of_bands(tile.offsets, image),
        units=image.units or _of_bands(tile.units, image),
    )


def _of_bands(facts: tuple[T, ...], image: Image) -> tuple[T, ...]:
    """Return facts of bands that a caller states, if they are of as many bands as the image."""
    return facts if len(facts) == len(image.pixels) else ()


def _actual(declared: RasterContract, source: RasterType, pixels: np.ndarray) -> RasterContract:
    """Return the contract with the dtype and the number of bands that the output really has."""
    count = len(pixels)
    bands = declared.bands
    if declared.band_count not in (None, count) or (
        bands is None and len(source.bands or ()) != count
    ):
        bands = count
    return declared.model_copy(update={"dtype": (pixels.dtype.name,), "bands": bands})
