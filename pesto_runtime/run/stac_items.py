"""Take an image from a STAC item: its bands by name, each in the asset that has it.

Items of STAC 1.0 (`eo:bands`, `raster:bands`) and 1.1 (`bands`) are read as JSON. Catalogs and
searches are read in `campaigns/stac_catalogs.py`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urljoin, urlsplit

from pesto_runtime.contract import ImageReference
from pesto_runtime.contract.band_files import BandFile, stack_href
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.hrefs import as_href
from pesto_runtime.places import href_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

_NOT_DATA = {"thumbnail", "overview", "visual", "metadata", "graphic"}
_FACTS = ("type", "roles", "bands", "eo:bands", "raster:bands", "raster:scale", "raster:offset",
          "nodata", "unit")  # fmt: skip
_SUFFIXES = (".tif", ".tiff", ".jp2", ".png", ".jpg")


@dataclass(frozen=True)
class _Candidate:
    """A band of an asset, under one of its names; smaller ranks are better."""

    asset: str
    name: str
    rank: int
    band: BandFile


def is_item(value: object) -> TypeGuard[Mapping[str, JsonValue]]:
    """Whether a value is a STAC item."""
    return isinstance(value, Mapping) and value.get("type") == "Feature" and "assets" in value


def read_item(text: str) -> dict[str, JsonValue]:
    """Read the file of an item, with absolute hrefs.

    Raises:
        InvalidInput: it does not exist, or is not an item.
    """
    place = place_of(text)
    try:
        item = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{text} cannot be read as a STAC item: {error}") from error
    if not is_item(item):
        raise InvalidInput(f"{text} is JSON, but not a STAC item: it needs type and assets")
    return absolute_item(item, href_of(place))


def absolute_item(item: Mapping[str, JsonValue], href: str = "") -> dict[str, JsonValue]:
    """Return what a run needs of an item: id, own href, datetime, and assets with absolute hrefs.

    Args:
        item: The item.
        href: Of the file that it is in; without one, that of its link `self`.
    """
    own = href or self_href(item)
    properties, assets = item.get("properties"), item.get("assets")
    known = properties if isinstance(properties, Mapping) else {}
    times = ("datetime", "start_datetime", "end_datetime")
    found: dict[str, JsonValue] = {}
    for key, asset in assets.items() if isinstance(assets, Mapping) else ():
        if isinstance(asset, Mapping) and isinstance(asset.get("href"), str):
            facts = {name: asset[name] for name in _FACTS if name in asset}
            found[key] = {**facts, "href": _joined(own, str(asset["href"]))}
    return {
        "type": "Feature", "id": str(item.get("id", "")), "assets": found,
        "properties": {name: known[name] for name in times if known.get(name)},
        "links": [{"rel": "self", "href": own}] if own else [],
    }  # fmt: skip


def self_href(item: Mapping[str, JsonValue]) -> str:
    """Return the href that an item states as its own; empty for none."""
    links = item.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and link.get("rel") == "self":
            return str(link.get("href") or "")
    return ""


def image_of_item(
    item: Mapping[str, JsonValue], wanted: Sequence[str], *, where: str
) -> ImageReference:
    """Return an image of an item.

    Args:
        item: With absolute hrefs.
        wanted: Names of its bands, common names, or keys of assets; empty for all bands of the only
            asset with data.
        where: Names the item in errors.

    Raises:
        InvalidInput: a band is missing, or is in several assets; names what there is.
    """
    known = [*_candidates(item)]
    if not wanted:
        assets = sorted({each.asset for each in known})
        if len(assets) != 1:
            raise InvalidInput(
                f"{where} has the images {', '.join(assets) or 'none'}, and the process does not "
                "name its bands: give the href of one image"
            )
        bands = {each.band.band: each.band for each in sorted(known, key=lambda e: -e.rank)}
        return ImageReference(href=stack_href([bands[number] for number in sorted(bands)]))
    missing = [name for name in wanted if not any(each.name == name for each in known)]
    if missing:
        names = sorted({each.name for each in known})
        raise InvalidInput(
            f"{where} has no band {', '.join(missing)}; it has {', '.join(names) or 'none'}"
        )
    return ImageReference(href=stack_href([_best(name, known, where) for name in wanted]))


def _best(name: str, known: Sequence[_Candidate], where: str) -> BandFile:
    fitting = [each for each in known if each.name == name]
    rank = min(each.rank for each in fitting)
    best = [each for each in fitting if each.rank == rank]
    if len(best) > 1:
        assets = ", ".join(each.asset for each in best)
        raise InvalidInput(
            f"{where} has the band {name!r} in the assets {assets}: state the files, as in "
            '{"stack": {"' + name + '": HREF, …}}'
        )
    return best[0].band.model_copy(update={"name": name})


def _candidates(item: Mapping[str, JsonValue]) -> Iterator[_Candidate]:
    assets = item.get("assets")
    for key, asset in assets.items() if isinstance(assets, Mapping) else ():
        if not isinstance(asset, Mapping) or not _is_data(asset):
            continue
        bands = _bands(asset)
        for number, facts in enumerate(bands, start=1):
            band = _band_file(asset, number, facts, item)
            common = facts.get("eo:common_name") or facts.get("common_name")
            names = [key if len(bands) == 1 else None, facts.get("name"), common]
            for rank, name in enumerate(names):
                if isinstance(name, str) and name not in names[:rank]:
                    yield _Candidate(key, name, rank, band)


def _is_data(asset: Mapping[str, JsonValue]) -> bool:
    roles, media = asset.get("roles"), str(asset.get("type") or "")
    path = urlsplit(str(asset.get("href"))).path.lower()
    is_image = media.startswith("image/") if media else path.endswith(_SUFFIXES)
    return is_image and not (_NOT_DATA & {*(roles if isinstance(roles, list) else ())})


def _bands(asset: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """Return the facts of the bands of an asset, whichever version of STAC it has."""
    lists = [asset.get(name) for name in ("bands", "eo:bands", "raster:bands")]
    known = [[each for each in one if isinstance(each, dict)] for one in lists
             if isinstance(one, list) and one]  # fmt: skip
    count = max((len(one) for one in known), default=1)
    return [
        {key: value for one in known if number < len(one) for key, value in one[number].items()}
        for number in range(count)
    ]


def _band_file(
    asset: Mapping[str, JsonValue],
    number: int,
    facts: Mapping[str, JsonValue],
    item: Mapping[str, JsonValue],
) -> BandFile:
    def fact(*names: str) -> JsonValue:
        both = (*(facts.get(each) for each in names), *(asset.get(each) for each in names))
        return next((each for each in both if each is not None), None)

    scale, offset = fact("raster:scale", "scale"), fact("raster:offset", "offset")
    nodata, unit, name = fact("nodata"), fact("unit"), facts.get("name")
    return BandFile(
        href=str(asset["href"]),
        band=number,
        name=str(name) if name else None,
        scale=_number(scale),
        offset=_number(offset),
        nodata=_number(nodata),
        unit=str(unit) if unit else None,
        item=self_href(item) or None,
        datetime=_time(item),
    )


def _time(item: Mapping[str, JsonValue]) -> str | None:
    """Return the time of an item, or `START/END`; None without one."""
    known = item.get("properties")
    facts = known if isinstance(known, Mapping) else {}
    if facts.get("datetime"):
        return str(facts["datetime"])
    span = [str(facts.get(name) or "") for name in ("start_datetime", "end_datetime")]
    return "/".join(span) if all(span) else None


def _number(value: JsonValue) -> float | None:
    """Return a number of STAC, which writes those that JSON does not have as texts: `nan`."""
    try:
        return None if value is None else float(str(value))
    except ValueError as error:
        raise InvalidInput(f"{shortened(value)} is not a number") from error


def _joined(base: str, href: str) -> str:
    """Return the absolute href of an asset; one of a file as `file://`."""
    if "://" in href:
        return href
    if href.startswith("/") and urlsplit(base).scheme not in ("http", "https"):
        return as_href(href)
    if urlsplit(base).scheme in ("", "file", "http", "https"):
        return urljoin(as_href(base or "item.json"), href)
    scheme, _, path = base.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), href))}"
