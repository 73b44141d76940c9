"""Read and write the georeference, the band facts and the tags of a raster.

Each item is listed here; anything else of a raster is not copied to a product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError
from rasterio.transform import Affine

from pesto_runtime.raster.image import BandFacts, Colour, Georeference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rasterio.io import DatasetReader, DatasetWriter

# Domains that describe the file and not the data; GDAL writes its own into a product.
_STRUCTURAL = {
    "IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "OVERVIEWS", "RPC", "COLOR_PROFILE",
    "TIFF", "vrt_sources", "",
}  # fmt: skip
_OF_PIXELS = "STATISTICS_"
"""Start of the tags in which GDAL keeps statistics: they are not those of the product."""


def read_georeference(dataset: DatasetReader) -> Georeference:
    """Read the georeference and the dataset tags of an open raster."""
    points, points_crs = dataset.gcps
    return Georeference(
        crs=crs_text(dataset.crs),
        transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
        points=tuple(points),
        points_crs=crs_text(points_crs),
        rpc=dataset.rpcs,
        tags=_tags(dataset),
    )


def read_bands(dataset: DatasetReader, numbers: Sequence[int]) -> tuple[BandFacts, ...]:
    """Read the facts of some bands of an open raster, by 1-based number; without statistics."""
    return tuple(
        BandFacts(
            description=dataset.descriptions[number - 1],
            scale=dataset.scales[number - 1],
            offset=dataset.offsets[number - 1],
            unit=dataset.units[number - 1] or None,
            colour=dataset.colorinterp[number - 1].name,
            colours=_colours(dataset, number),
            tags=_band_tags(dataset, number),
        )
        for number in numbers
    )


def write_georeference(dataset: DatasetWriter, facts: Georeference) -> None:
    """Write the georeference and the dataset tags to a new raster."""
    if facts.crs is not None:
        dataset.crs = CRS.from_user_input(facts.crs)
    if facts.transform is not None:
        dataset.transform = Affine(*facts.transform)
    if facts.points:
        dataset.gcps = (list(facts.points), CRS.from_user_input(facts.points_crs or facts.crs))
    if facts.rpc is not None:
        dataset.rpcs = facts.rpc
    for domain, tags in facts.tags.items():
        _write_tags(dataset, 0, domain, tags)


def write_bands(dataset: DatasetWriter, bands: tuple[BandFacts, ...]) -> None:
    """Write the facts of all bands to a new raster."""
    for number, band in enumerate(bands, start=1):
        _write_band(dataset, number, band)
    if any(band.scale != 1 for band in bands):
        dataset.scales = tuple(band.scale for band in bands)
    if any(band.offset for band in bands):
        dataset.offsets = tuple(band.offset for band in bands)
    # A colour table makes its band a palette.
    colours = tuple(ColorInterp[band.colour] for band in bands if band.colour)
    is_plain = len(colours) == len(bands) and ColorInterp.palette not in colours
    if bands and is_plain and colours != dataset.colorinterp:
        dataset.colorinterp = colours


def crs_text(crs: CRS | None) -> str | None:
    """Return a CRS as its authority code if it has one, else as WKT2; None without a CRS."""
    if not crs:
        return None
    try:
        # PROJ also proposes codes of similar CRSs, with less confidence; only an equal one is used.
        authority = crs.to_authority(confidence_threshold=100)
        return f"{authority[0]}:{authority[1]}" if authority else str(crs.to_wkt(version="WKT2"))
    except CRSError:
        return str(crs.to_wkt())


def _write_band(dataset: DatasetWriter, number: int, band: BandFacts) -> None:
    if band.description:
        dataset.set_band_description(number, band.description)
    if band.unit:
        dataset.set_band_unit(number, band.unit)
    if band.colours:
        dataset.write_colormap(number, dict(band.colours))
    for domain, tags in band.tags.items():
        _write_tags(dataset, number, domain, tags)


class _TagName(str):
    """A name of a tag that rasterio cannot mistake for one of its own parameters (`bidx`, `ns`)."""

    __slots__ = ()

    def __str__(self) -> str:  # what rasterio writes
        return self[1:]


def _write_tags(dataset: DatasetWriter, band: int, domain: str, tags: Mapping[str, str]) -> None:
    """Write tags of a band, or of the dataset for band 0; their names are data of some file."""
    named = {_TagName(f"={name}"): value for name, value in tags.items()}
    dataset.update_tags(band, domain or None, **named)


def _colours(dataset: DatasetReader, number: int) -> dict[int, Colour]:
    if dataset.colorinterp[number - 1] is not ColorInterp.palette:
        return {}
    return dict(dataset.colormap(number))


def _band_tags(dataset: DatasetReader, number: int) -> dict[str, dict[str, str]]:
    by_domain = _tags(dataset, number)
    kept = {name: text for name, text in by_domain.pop("", {}).items()
            if not name.startswith(_OF_PIXELS)}  # fmt: skip
    return {**({"": kept} if kept else {}), **by_domain}


def _tags(dataset: DatasetReader, band: int = 0) -> dict[str, dict[str, str]]:
    domains = ["", *(d for d in dataset.tag_namespaces(band) if _is_copied(d))]
    by_domain = {d: dataset.tags(band, d or None) for d in domains}
    return {domain: tags for domain, tags in by_domain.items() if tags}


def _is_copied(domain: str) -> bool:
    return domain not in _STRUCTURAL and not domain.startswith(("xml:", "json:"))
