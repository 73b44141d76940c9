"""Open a scene whose bands are in files of their own as one raster, by a VRT of GDAL in memory.

The VRT is written here, from files that were opened as any raster is: a VRT of a user is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import rasterio
from rasterio.errors import RasterioError

from pesto_runtime.contract.band_files import BandFile, files_of, stacked_bands
from pesto_runtime.errors import RasterUnreadable
from pesto_runtime.remote import gdal_authorization

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rasterio.io import DatasetReader

    from pesto_runtime.contract import Scene

_DTYPES = {"uint8": "Byte", "complex64": "CFloat32", "complex128": "CFloat64"}


def opened_stack(href: str, facts_of: Callable[[str], tuple[Scene, str]]) -> DatasetReader:
    """Open the bands of a scene as one raster.

    Args:
        href: `stack:[…]`.
        facts_of: Returns the facts of a file, and its name for GDAL.

    Raises:
        RasterUnreadable: a file cannot be read, has a mask of its own, or is on another grid or of
            another dtype than the first.
        InvalidInput: the files need different credentials.
    """
    facts, paths, settings = {}, {}, {}
    for file in files_of(href):
        facts[file], paths[file] = facts_of(file)
        settings[file] = gdal_authorization(file)
    _require_one_grid(facts)
    if len({str(each) for each in settings.values()}) > 1:
        raise RasterUnreadable(
            f"{', '.join(facts)} need different credentials: copy them to one server"
        )
    document = _document(stacked_bands(href), facts, paths)
    try:
        with rasterio.Env(**next(iter(settings.values()))):
            return rasterio.open(ET.tostring(document, encoding="unicode"), driver="VRT")
    except RasterioError as error:
        raise RasterUnreadable(
            f"{', '.join(facts)} cannot be read as one raster: {error}"
        ) from error


def _require_one_grid(facts: Mapping[str, Scene]) -> None:
    first = next(iter(facts.values()))
    for scene in facts.values():
        for name in ("width", "height", "crs", "transform", "dtype"):
            own, other = getattr(scene, name), getattr(first, name)
            if own != other:
                raise RasterUnreadable(
                    f"{scene.href} has the {name} {own}, and {first.href} {other}: the bands of a "
                    "scene have one grid and one dtype; take bands of one resolution"
                )
        if scene.has_mask:
            raise RasterUnreadable(
                f"{scene.href} has a mask of its own, and is a band of a scene of several files: "
                "state its nodata instead"
            )


def _document(
    bands: tuple[BandFile, ...], facts: Mapping[str, Scene], paths: Mapping[str, str]
) -> ET.Element:
    scene = facts[bands[0].href]
    root = ET.Element("VRTDataset", rasterXSize=str(scene.width), rasterYSize=str(scene.height))
    shared = set.intersection(*({*each.tags.items()} for each in facts.values()))
    metadata = ET.SubElement(root, "Metadata")
    for key, value in sorted(shared):
        _child(metadata, "MDI", value).set("key", key)
    if scene.crs is not None:
        _child(root, "SRS", scene.crs).set("dataAxisToSRSAxisMapping", "1,2")
    if scene.transform is not None:
        a, b, c, d, e, f = scene.transform
        _child(root, "GeoTransform", ", ".join(map(repr, (c, a, b, f, d, e))))
    for number, band in enumerate(bands, start=1):
        _add_band(root, number, band, facts[band.href], paths[band.href])
    return root


def _add_band(root: ET.Element, number: int, band: BandFile, scene: Scene, path: str) -> None:
    if band.band > len(scene.bands):
        raise RasterUnreadable(f"{band.href} has no band {band.band}; it has {len(scene.bands)}")
    name = scene.dtype
    dtype = _DTYPES.get(name) or (name.replace("ui", "UI") if name[0] == "u" else name.title())
    element = ET.SubElement(root, "VRTRasterBand", dataType=dtype, band=str(number))
    values = scene.values[band.band - 1] if scene.values else None
    stated = {
        "Description": band.name or scene.bands[band.band - 1],
        "NoDataValue": scene.nodata if band.nodata is None else band.nodata,
        "UnitType": band.unit or (values and values.unit),
        "Offset": values.offset if band.offset is None and values else band.offset,
        "Scale": values.scale if band.scale is None and values else band.scale,
    }
    for name, value in stated.items():
        if value is not None:
            _child(element, name, value if isinstance(value, str) else repr(value))
    source = ET.SubElement(element, "SimpleSource")
    _child(source, "SourceFilename", path).set("relativeToVRT", "0")
    _child(source, "SourceBand", str(band.band))
    rectangle = {"xOff": "0", "yOff": "0", "xSize": str(scene.width), "ySize": str(scene.height)}
    ET.SubElement(source, "SrcRect", rectangle)
    ET.SubElement(source, "DstRect", rectangle)


def _child(parent: ET.Element, name: str, text: str) -> ET.Element:
    child = ET.SubElement(parent, name)
    child.text = text
    return child
