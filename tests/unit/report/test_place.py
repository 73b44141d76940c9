"""Where a run is: coordinates by pyproj's own database, lengths and directions by hand."""

from __future__ import annotations

import math

import pytest

from pesto_runtime.contract import Scene
from pesto_runtime.raster.place import Place, place_of
from pesto_runtime.report.location import place_facts, scale_bar

UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_040.0)


def place(crs: str | None, transform: tuple[float, ...] | None, *, side: int = 1000) -> Place:
    """The place of a square raster."""
    found = place_of(scene(crs, transform, side=side))
    assert found is not None
    return found


def scene(crs: str | None, transform: tuple[float, ...] | None, *, side: int = 1000) -> Scene:
    """The facts of a square raster."""
    return Scene(
        href="x", identity="", width=side, height=side, bands=(None,), dtype="uint8",
        crs=crs, transform=transform,
    )  # fmt: skip


def test_utm_is_named_with_its_code_bounds_and_resolution() -> None:
    """Bounds by hand; the ground of a UTM pixel within the scale of its zone, 1 in 1000."""
    found = place("EPSG:32631", UTM)
    assert (found.name, found.code, found.unit) == ("WGS 84 / UTM zone 31N", "EPSG:32631", "metre")
    assert found.bounds == (600_000.0, 4_990_040.0, 610_000.0, 5_000_040.0)
    assert found.resolution == (10.0, 10.0)
    assert found.ground == pytest.approx((10, 10), rel=1e-3)
    assert found.lonlat is not None
    west, south, east, north = found.lonlat
    # 500 km is the central meridian, 3 degrees east; 100 km at 45 degrees are 1.27 degrees.
    assert west == pytest.approx(3 + 100_000 / (111_320 * math.cos(math.radians(45))), abs=0.02)
    assert 45.0 < south < north < 45.2
    assert east > west


@pytest.mark.parametrize("latitude", [0.0, 60.0])
def test_a_degree_has_the_metres_of_its_latitude(latitude: float) -> None:
    """At 60 degrees, a pixel is half as wide as at the equator, and as high within 1 %."""
    found = place("EPSG:4326", (0.001, 0, 5, 0, -0.001, latitude + 0.5))
    assert found.ground is not None
    width, height = found.ground
    assert width == pytest.approx(111.32 * math.cos(math.radians(latitude)), rel=5e-3)
    assert height == pytest.approx(111.0, rel=1e-2)
    assert found.unit == "degree"


def test_feet_are_feet_and_the_ground_is_in_metres() -> None:
    """10 US survey feet are 3.048 m."""
    found = place("EPSG:2263", (10, 0, 900_000, 0, -10, 300_000))
    assert found.unit == "US survey foot"
    assert found.ground == pytest.approx((3.048, 3.048), rel=1e-3)
    page = place_facts(found, (1000, 1000))
    assert "10</span> US survey feet" in page
    assert "≈ 3.05 × 3.05 m on the ground" in page


def test_web_mercator_is_not_taken_for_metres() -> None:
    """At 60 degrees, a pixel of 10 of its metres is 5 m wide."""
    found = place("EPSG:3857", (10, 0, 0, 0, -10, 8_399_737))
    assert found.ground == pytest.approx((5, 5), rel=1e-2)


@pytest.mark.parametrize(
    ("transform", "north"),
    [
        (UTM, 0),
        ((0, 10, 600_000, 10, 0, 4_900_000), 90),
        ((-10, 0, 600_000, 0, 10, 4_900_000), 180),
        ((7.07, 7.07, 600_000, 7.07, -7.07, 4_900_000), 45),
        ((7.07, -7.07, 600_000, -7.07, -7.07, 4_900_000), -45),
    ],
    ids=["up", "transposed", "turned", "right", "left"],
)
def test_the_direction_of_north(transform: tuple[float, ...], north: float) -> None:
    """Degrees clockwise from the top, within the convergence of the meridians (1 degree here)."""
    found = place("EPSG:32631", transform)
    assert (found.north - north + 180) % 360 - 180 == pytest.approx(0, abs=1.5)
    page = place_facts(found, (1000, 1000))
    assert ("north is up" in page) == (north == 0)
    assert ('class="north"' in page) == (north != 0)


def test_bounds_across_the_antimeridian_stay_between_180() -> None:
    """West is then greater than east."""
    found = place("EPSG:4326", (0.01, 0, 175, 0, -0.01, 5))
    assert found.lonlat == pytest.approx((175, -5, -175, 5))


@pytest.mark.parametrize(
    ("crs", "transform"), [(None, UTM), ("EPSG:32631", None), ("no CRS at all", UTM)]
)
def test_a_raster_without_a_place_has_none(
    crs: str | None, transform: tuple[float, ...] | None
) -> None:
    """Neither CRS nor transform may be missing."""
    assert place_of(scene(crs, transform)) is None


def test_a_crs_without_longitudes_still_has_its_facts() -> None:
    """A local grid: bounds and unit, and neither a locator nor a scale."""
    local = 'LOCAL_CS["plant",UNIT["metre",1]]'
    found = place_of(scene(local, UTM))
    if found is not None:  # GDAL may refuse the text
        assert (found.lonlat, found.ground) == (None, None)
        assert "locator" not in place_facts(found, (10, 10))


@pytest.mark.parametrize(
    ("metres", "words", "length"),
    [
        (109_800, "20 km", 20_000),
        (1000, "200 m", 200),
        (700, "200 m", 200),
        (660, "100 m", 100),
        (3.4, "1 m", 1),
        (20_000_000, "5000 km", 5_000_000),
    ],
)
def test_a_scale_bar_has_a_round_length_of_at_most_a_third(
    metres: float, words: str, length: float
) -> None:
    """1, 2 or 5 times a power of ten; its share is its length by the width."""
    text, share = scale_bar(metres)
    assert text == words
    assert share == pytest.approx(length / metres)
    assert 0.1 < share <= 0.3
