"""Files beside a raster: read by an explicit list, as GDAL does, and part of its identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from pesto_runtime.errors import RasterUnreadable, SceneChanged
from pesto_runtime.hrefs import Gate, file_href
from pesto_runtime.raster.identity import identity_of, unchanged
from pesto_runtime.raster.image import UNBOUNDED
from pesto_runtime.raster.inheritance import output_image
from pesto_runtime.raster.read import read_image, read_scene
from pesto_runtime.service.image_loader import ImageLoader
from tests.support.file_server import serving
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from pathlib import Path

WORLD = "10\n0\n0\n-10\n300005\n4999995\n"
PLACE = (10.0, 0.0, 300000.0, 0.0, -10.0, 5000000.0)
PAM = """<PAMDataset><SRS>EPSG:32631</SRS>
<GeoTransform>3e5, 10, 0, 5e6, 0, -10</GeoTransform>
<Metadata><MDI key="SENSOR">OLI</MDI></Metadata>
<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>
<PAMRasterBand band="2"><Description>red</Description>
<Scale>0.5</Scale><Offset>2</Offset><UnitType>K</UnitType>
<Metadata><MDI key="STATISTICS_MEAN">3</MDI><MDI key="GAIN">4</MDI></Metadata></PAMRasterBand>
</PAMDataset>"""
RPC_TEXT = "".join(
    f"{name}: {value}\n"
    for name, value in {
        "LINE_OFF": 5, "SAMP_OFF": 6, "LAT_OFF": 45, "LONG_OFF": 5, "HEIGHT_OFF": 100,
        "LINE_SCALE": 5, "SAMP_SCALE": 5, "LAT_SCALE": 0.1, "LONG_SCALE": 0.2, "HEIGHT_SCALE": 500,
        **{f"{part}_COEFF_{i}": float(i == 1) for i in range(1, 21)
           for part in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")},
    }.items()
)  # fmt: skip


def bare(path: Path, driver: str = "GTiff", dtype: str = "uint8") -> Path:
    """A raster without any facts."""
    with rasterio.open(
        path, "w", driver=driver, width=30, height=20, count=3, dtype=dtype
    ) as scene:
        scene.write(noise(30, 20, bands=3, dtype=dtype.replace("_int16", "64")))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex_int16"])
def test_aux_xml_states_facts_and_pixels_are_the_files_own(tmp_path: Path, dtype: str) -> None:
    """All facts as rasterio reads them with its own listing of the folder; statistics are not."""
    path = bare(tmp_path / "a.tif", dtype=dtype)
    (tmp_path / "a.tif.aux.xml").write_text(PAM)

    scene, image = read_scene(str(path)), read_image(str(path))

    with rasterio.open(path) as dataset:  # the other way: GDAL's own, with every file of the folder
        assert dataset.nodata == 7
        assert (scene.crs, scene.transform) == ("EPSG:32631", tuple(dataset.transform)[:6])
        assert scene.transform == PLACE
        assert (scene.bands, scene.nodata) == (dataset.descriptions, dataset.nodata)
        assert tuple(value.scale for value in scene.values) == dataset.scales == (1, 0.5, 1)
        assert tuple(value.unit for value in scene.values) == (None, "K", None)
        assert np.array_equal(image.pixels, dataset.read())
    assert image.tags["SENSOR"] == "OLI"
    assert image.facts[1].tags == {"": {"GAIN": "4"}}


@pytest.mark.parametrize(
    ("name", "side", "driver"),
    [
        ("a.tif", "a.tfw", "GTiff"), ("a.tif", "a.tifw", "GTiff"), ("a.tif", "a.wld", "GTiff"),
        ("a.png", "a.pgw", "PNG"), ("a.jpg", "a.jgw", "JPEG"), ("b.x.TIF", "b.x.TFW", "GTiff"),
    ],
)  # fmt: skip
def test_world_files_state_the_place(tmp_path: Path, name: str, side: str, driver: str) -> None:
    """Of a raster that states none itself; GDAL decides the same where a raster states one."""
    path = bare(tmp_path / name, driver)
    assert read_scene(str(path)).transform is None
    (tmp_path / side).write_text(WORLD)
    assert read_scene(str(path)).transform == PLACE
    own = write_scene(tmp_path / "own.tif", noise(30, 20))
    (tmp_path / "own.tfw").write_text(WORLD)
    with rasterio.open(own) as dataset:
        assert read_scene(str(own)).transform == tuple(dataset.transform)[:6] != PLACE


@pytest.mark.parametrize("side", ["a_RPC.TXT", "a_rpc.txt"])
def test_rpc_texts_state_coefficients(tmp_path: Path, side: str) -> None:
    """As rasterio reads them."""
    path = bare(tmp_path / "a.tif")
    assert read_image(str(path)).place.rpc is None
    (tmp_path / side).write_text(RPC_TEXT)
    rpc = read_image(str(path)).place.rpc
    with rasterio.open(path) as dataset:
        assert rpc is not None
        assert rpc.to_gdal() == dataset.rpcs.to_gdal()
    assert rpc.samp_off == 6


def test_only_the_names_of_the_list_are_read(tmp_path: Path) -> None:
    """Negative control: what GDAL would also find beside a raster stays unread."""
    path = bare(tmp_path / "a.tif")
    before = identity_of(str(path))
    for name in ("a.aux", "A.tif.aux.xml", "a.tif.xml", "b.tfw", "a.tif.ovr", "a.IMD", "a_RPC.XML"):
        (tmp_path / name).write_text(PAM)
    assert identity_of(str(path)) == before
    assert read_scene(str(path)).crs is None


@pytest.mark.parametrize("change", ["appears", "changes", "goes"])
def test_a_changed_side_file_is_a_changed_scene(tmp_path: Path, change: str) -> None:
    """The file's own bytes are as they were; the control is the scene as it was planned."""
    path, side = bare(tmp_path / "a.tif"), tmp_path / "a.tfw"
    if change != "appears":
        side.write_text(WORLD)
    planned = read_scene(str(path)).identity
    with unchanged(str(path), planned):
        pass
    if change == "goes":
        side.unlink()
    else:
        side.write_text(WORLD + "\n")
    with pytest.raises(SceneChanged, match=r"a\.tfw"), unchanged(str(path), planned):
        pass


def test_a_service_reads_a_side_file_only_if_its_gate_admits_it(tmp_path: Path) -> None:
    """A link beside an admitted raster leads nowhere."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    path = bare(inside / "a.tif")
    (outside / "secret.xml").write_text(PAM)
    (inside / "a.tif.aux.xml").symlink_to(outside / "secret.xml")

    narrow = ImageLoader(Gate(allow=(str(inside),)), UNBOUNDED)
    wide = ImageLoader(Gate(allow=(str(tmp_path),)), UNBOUNDED)

    assert narrow.load(file_href(path), None).crs is None
    assert wide.load(file_href(path), None).crs == "EPSG:32631"
    reference = {"href": file_href(path), "identity": identity_of(str(path))}
    assert wide.load(reference, None).crs == "EPSG:32631"  # type: ignore[arg-type]  # JSON
    with pytest.raises(SceneChanged, match="aux"):  # not another image than planned
        narrow.load(reference, None)  # type: ignore[arg-type]  # JSON


def test_a_side_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A folder of that name is no file; one of 17 MiB is no side file."""
    path = bare(tmp_path / "a.tif")
    (tmp_path / "a.tfw").mkdir()
    assert read_scene(str(path)).transform is None
    (tmp_path / "a.wld").write_bytes(bytes(17 << 20))
    with pytest.raises(RasterUnreadable, match=r"a\.wld has more than 16 MiB"):
        read_scene(str(path))


def test_a_file_beside_a_remote_raster_is_named_and_not_read(tmp_path: Path) -> None:
    """Only if the raster does not state its place itself."""
    bare(tmp_path / "a.tif")
    write_scene(tmp_path / "b.tif", noise(30, 20))
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif.aux.xml").write_text(PAM)
        (tmp_path / f"{name}.tfw").write_text(WORLD)
    with serving(tmp_path, tmp_path / "log") as server:
        scene = read_scene(f"{server.url}/a.tif")
        assert scene.unread == ("a.tif.aux.xml", "a.tfw")
        assert scene.crs is None
        assert read_scene(f"{server.url}/b.tif").unread == ()


def test_a_transform_of_a_side_file_moves_with_the_window(tmp_path: Path) -> None:
    """As that of the raster itself."""
    from pesto_runtime.contract import Window

    path = bare(tmp_path / "a.tif")
    (tmp_path / "a.tfw").write_text(WORLD)
    image = read_image(str(path), window=Window(3, 2, 4, 5))
    assert image.transform is not None
    assert Affine(*image.transform) == Affine(*PLACE) @ Affine.translation(3, 2)


def test_a_nodata_value_that_no_pixel_can_have_is_not_inherited(tmp_path: Path) -> None:
    """Of uint8, as some tools write it beside a raster; one that a pixel can have is (control)."""
    path = bare(tmp_path / "a.tif")
    for nodata, inherited in ((7.5, None), (7, 7)):
        (tmp_path / "a.tif.aux.xml").write_text(PAM.replace(">7<", f">{nodata}<"))
        image = read_image(str(path))
        assert image.nodata == nodata
        assert output_image(image.pixels, None, image, covers=True).nodata == inherited


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    """It is of another raster; read in part, it would mark wrong pixels."""
    path = write_scene(tmp_path / "s.tif", noise(30, 20))
    write_scene(tmp_path / "s.tif.msk", noise(30, 19))
    with pytest.raises(RasterUnreadable, match=r"s\.tif\.msk has 30 x 19 pixels, .* 30 x 20"):
        read_scene(str(path))


def test_a_mask_that_is_changed_is_another_scene(tmp_path: Path) -> None:
    """The identity of a scene is also that of its mask."""
    path = write_scene(tmp_path / "s.tif", noise(30, 20))
    before = identity_of(str(path))
    write_scene(tmp_path / "s.tif.msk", noise(30, 20))
    assert identity_of(str(path)) != before
    assert read_scene(str(path)).validity == "mask"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.tif.aux.xml", ""),
        ("s.tif.aux.xml", "<PAMDataset><SRS>"),
        ("s.tfw", ""),
        ("s.tfw", "30\n0\n"),
        ("s.tfw", "a\nb\nc\nd\ne\nf\n"),
        ("s.tfw", "0\n0\n0\n0\n5\n5\n"),
        ("s.tfw", "30\n0\n0\nnan\n5\n5\n"),
    ],
)
def test_a_broken_side_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    """GDAL ignores it without a word; then a scene would lose its place."""
    path = write_scene(tmp_path / "s.tif", noise(30, 20), crs=None, transform=None)
    (tmp_path / name).write_text(content)
    with pytest.raises(RasterUnreadable, match=rf"{name} beside s.tif cannot be read: "):
        read_scene(str(path))
