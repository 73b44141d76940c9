"""Define scenes whose bands are in files of their own: their href lists all of them.

`stack:[…]` is such an href; it stands wherever that of one raster stands. Nothing is opened here.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field, TypeAdapter, ValidationError

from pesto_runtime.contract.base import ClosedValue
from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCHEME = "stack:"


class BandFile(ClosedValue):
    """A band of a scene, and the file that it is in.

    Attributes:
        href: The raster.
        band: 1-based number in the raster.
        name: Name of the band in the scene; None for that of the raster.
        scale: Its physical values are `number * scale + offset`; None for what the raster states.
        offset: As for `scale`.
        unit: Unit of the physical values; None for what the raster states.
        nodata: Number of pixels without data; None for what the raster states.
        item: Href of the STAC item that lists the file; None for none.
        datetime: Time of the acquisition (RFC 3339), or `START/END`; None if it is unknown.
    """

    href: str = Field(min_length=1)
    band: int = Field(default=1, ge=1)
    name: str | None = Field(default=None, min_length=1)
    scale: float | None = Field(default=None, allow_inf_nan=False)
    offset: float | None = Field(default=None, allow_inf_nan=False)
    unit: str | None = None
    nodata: float | None = None
    item: str | None = None
    datetime: str | None = None


_BANDS = TypeAdapter(tuple[BandFile, ...])


def stack_href(bands: Sequence[BandFile]) -> str:
    """Return the href of a scene with these bands, in their order."""
    listed = [each.model_dump(mode="json", exclude_defaults=True) for each in bands]
    return _SCHEME + json.dumps(listed, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=256)
def stacked_bands(href: str) -> tuple[BandFile, ...]:
    """Return the bands of a scene of several files; empty for the href of one raster.

    >>> [band.href for band in stacked_bands('stack:[{"href":"file:///a.tif","name":"red"}]')]
    ['file:///a.tif']

    Raises:
        InvalidInput: it begins as such an href, and is none.
    """
    if not href.startswith(_SCHEME):
        return ()
    try:
        found = _BANDS.validate_json(href.removeprefix(_SCHEME))
    except ValidationError as error:
        raise InvalidInput(f"{shortened(href)} is no list of bands and files: {error}") from error
    if not found or any(each.href.startswith(_SCHEME) for each in found):
        raise InvalidInput(f"{shortened(href)} has no band, or one that is such a list again")
    return found


def files_of(href: str) -> tuple[str, ...]:
    """Return the hrefs of the rasters of a scene, each once: those of its bands, or its own."""
    bands = stacked_bands(href)
    return tuple(dict.fromkeys(each.href for each in bands)) if bands else (href,)
