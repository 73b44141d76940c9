"""A product as a cloud-optimised GeoTIFF: the same pixels and facts, with overviews."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.cog import write_cog
from tests.support.file_limit import largest_file
from tests.support.rasters import noise, pixels_of, write_scene


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_cog_has_the_products_pixels_and_facts(tmp_path: Path, dtype: str) -> None:
    """Tiled, with overviews, its layout declared; the source (control) has none of it."""
    pixels = noise(1100, 700, bands=2, dtype=dtype)
    plain = write_scene(tmp_path / "p.tif", pixels, names=("a", "b"), nodata=7)
    write_cog(plain, tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as cog, rasterio.open(plain) as source:
        assert np.array_equal(cog.read(), pixels)
        assert (cog.crs, cog.transform, cog.nodata) == (source.crs, source.transform, 7)
        assert cog.descriptions == ("a", "b")
        assert cog.block_shapes[0] == (512, 512)
        assert cog.overviews(1) == [2, 4]
        assert source.overviews(1) == []
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_the_same_product_gives_the_same_cog(tmp_path: Path) -> None:
    """Byte for byte, for one version of GDAL."""
    plain = write_scene(tmp_path / "p.tif", noise(1100, 700))
    for name in ("a.tif", "b.tif"):
        write_cog(plain, tmp_path / name)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_folder_that_is_none_is_a_store_failure(tmp_path: Path) -> None:
    """Translated from GDAL's own words."""
    plain = write_scene(tmp_path / "p.tif", noise(10, 10))
    with pytest.raises(StoreFailed):
        write_cog(plain, tmp_path / "p.tif" / "c.tif")
    assert pixels_of(plain).any()


def test_a_cog_that_lost_its_last_bytes_does_not_stay(tmp_path: Path) -> None:
    """GDAL does not report the error of its last flush; with room (control) the same copy stays."""
    plain = write_scene(tmp_path / "p.tif", noise(1100, 700))
    write_cog(plain, tmp_path / "whole.tif")
    size = (tmp_path / "whole.tif").stat().st_size
    with largest_file(size - 2), pytest.raises(StoreFailed):
        write_cog(plain, tmp_path / "cut.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"p.tif", "whole.tif"}
