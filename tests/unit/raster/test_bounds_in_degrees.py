"""The bounds of many scenes are those of each one alone: PROJ's own, and GDAL's."""

from __future__ import annotations

import pytest

from pesto_runtime.contract import Scene
from pesto_runtime.raster.place import lonlat_of, place_of
from tests.support.rasters import UTM

PLACES = {
    "UTM": ("EPSG:32633", UTM),
    "turned": ("EPSG:32633", (8.0, 6.0, 400_000.0, 6.0, -8.0, 5_000_000.0)),
    "degrees": ("EPSG:4326", (0.01, 0.0, 170.0, 0.0, -0.01, 60.0)),
    "antimeridian": ("EPSG:32660", (1000.0, 0.0, 620_000.0, 0.0, -1000.0, 7_000_000.0)),
    "pole": ("EPSG:3413", (5000.0, 0.0, -250_000.0, 0.0, -5000.0, 200_000.0)),
    "equal area": ("EPSG:3035", (100.0, 0.0, 4_000_000.0, 0.0, -100.0, 3_000_000.0)),
    "with heights": ("EPSG:4979", (0.01, 0.0, 12.0, 0.0, -0.01, 47.0)),
    "local": ('LOCAL_CS["field",UNIT["metre",1]]', UTM),
    "unknown": ("EPSG:1", UTM),
    "none": (None, UTM),
}


@pytest.mark.parametrize("name", PLACES)
def test_bounds_are_those_of_the_place(name: str) -> None:
    """To a millionth of a degree; none where the place has none."""
    crs, transform = PLACES[name]
    scene = Scene(
        href="file:///s.tif", identity="1", width=90, height=80, bands=("a",), dtype="uint8",
        crs=crs, transform=transform,
    )  # fmt: skip
    found, place = lonlat_of(scene), place_of(scene)
    wanted = place.lonlat if place else None
    assert (found is None) == (wanted is None) == (name in ("local", "unknown", "none"))
    if found and wanted:
        assert found == pytest.approx(wanted, abs=1e-6)
    if name == "antimeridian" and found:
        assert found[0] > found[2], "west of it lies east of east"
