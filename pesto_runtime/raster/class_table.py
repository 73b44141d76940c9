"""Give a product the names and colours of its classes: a colour table, and a tag in STAC's form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.contract import RasterClass
    from pesto_runtime.raster.image import BandFacts

TAG = "classification_classes"
"""The tag of a band with its classes as JSON; STAC's own name has a colon, which GDAL splits."""

_WITH_TABLE = ("uint8", "uint16")


def classified(
    bands: tuple[BandFacts, ...], classes: Sequence[RasterClass], dtype: str
) -> tuple[BandFacts, ...]:
    """Return the facts of a product's bands with those of its classes; unchanged without classes.

    Each band has the tag. GeoTIFF has colour tables for a single band of uint8 or uint16 only.

    Args:
        bands: The facts of the bands.
        classes: The classes that the contract declares.
        dtype: The dtype of the product.
    """
    if not classes:
        return bands
    colours = {each.value: (*each.colour, 255) for each in classes if each.colour}
    has_table = colours and len(bands) == 1 and dtype in _WITH_TABLE
    listed = json.dumps([each.model_dump(exclude_none=True) for each in classes])
    return tuple(
        replace(
            band,
            colours=colours if has_table else band.colours,
            colour=None if has_table else band.colour,
            tags={**band.tags, "": {**band.tags.get("", {}), TAG: listed}},
        )
        for band in bands
    )
