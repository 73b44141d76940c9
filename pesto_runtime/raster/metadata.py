"""Read and write the georeference, the band facts and the tags of a raster.

Each item is listed here; anything else of a raster is not copied to a product.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError
from rasterio.transform import Affine

from pesto_runtime.raster.image import Transform, rescaled, shifted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rasterio.io import DatasetReader, DatasetWriter
    from rasterio.rpc import RPC

Colour: TypeAlias = tuple[int, int, int, int]

# Domains that describe the file and not the data; GDAL writes its own into a product.
_STRUCTURAL = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC", "COLOR_PROFILE", "TIFF", ""}


@dataclass(frozen=True)
class BandFacts:
    """Facts of one band of a raster.

    Attributes:
        description: Its name.
        scale: Physical value per stored step.
        offset: Physical value of a stored zero.
        unit: Unit of the physical value.
        colour: Colour interpretation, as rasterio names it; None for the driver's default.
        colours: Colour table: stored value -> (red, green, blue, alpha).
        tags: Domain -> tags; the default domain is the empty string.
    """

    description: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    colour: str | None = None
    colours: Mapping[int, Colour] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Georeference:
    """Position of a raster, and its dataset tags.

    Attributes:
        crs: Authority code or WKT2.
        transform: Affine coefficients (a, b, c, d, e, f); None for a raster without them.
        points: Ground control points, if there is no transform.
        points_crs: Their CRS.
        rpc: Rational polynomial coefficients.
        tags: Domain -> tags; the default domain is the empty string.
    """

    crs: str | None = None
    transform: Transform | None = None
    points: tuple[GroundControlPoint, ...] = ()
    points_crs: str | None = None
    rpc: RPC | None = None
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def rescaled(self, x: float, y: float) -> Georeference:
        """Return the georeference of a grid with `x` and `y` times as many pixels.

        Control points and coefficients are valid only for their own pixels: a grid of another scale
        has neither.
        """
        if (x, y) == (1, 1):
            return self
        transform = None if self.transform is None else rescaled(self.transform, x, y)
        return Georeference(crs=self.crs, transform=transform, tags=self.tags)

    def moved(self, col_off: int, row_off: int) -> Georeference:
        """Return the georeference of a window that starts at a column and a row."""
        if (col_off, row_off) == (0, 0):
            return self
        points = tuple(
            GroundControlPoint(p.row - row_off, p.col - col_off, p.x, p.y, p.z, p.id, p.info)
            for p in self.points
        )
        rpc = copy(self.rpc)
        if rpc is not None:
            rpc.line_off, rpc.samp_off = rpc.line_off - row_off, rpc.samp_off - col_off
        transform = self.transform and shifted(self.transform, col_off, row_off)
        return replace(self, transform=transform, points=points, rpc=rpc)


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
        dataset.update_tags(**({"ns": domain} if domain else {}), **tags)


def write_bands(dataset: DatasetWriter, bands: tuple[BandFacts, ...]) -> None:
    """Write the facts of all bands to a new raster."""
    for number, band in enumerate(bands, start=1):
        _write_band(dataset, number, band)
    if any(band.scale != 1 for band in bands):
        dataset.scales = tuple(band.scale for band in bands)
    if any(band.offset for band in bands):
        dataset.offsets = tuple(band.offset for band in bands)
    if bands and all(band.colour for band in bands) and not any(band.colours for band in bands):
        dataset.colorinterp = tuple(ColorInterp[band.colour] for band in bands if band.colour)


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
        dataset.update_tags(number, **({"ns": domain} if domain else {}), **tags)


def _tags(dataset: DatasetReader) -> dict[str, dict[str, str]]:
    domains = ["", *(d for d in dataset.tag_namespaces() if _is_copied(d))]
    by_domain = {d: dataset.tags(**({"ns": d} if d else {})) for d in domains}
    return {domain: tags for domain, tags in by_domain.items() if tags}


def _is_copied(domain: str) -> bool:
    return domain not in _STRUCTURAL and not domain.startswith("xml:")
