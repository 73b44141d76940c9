"""Metadata: each item of the explicit list survives the product writer, and only what was there."""

from pathlib import Path

import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.rpc import RPC

from pesto_runtime.contract import ProductForm
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.cog import OverviewFile
from pesto_runtime.raster.image import BandFacts, Colour, Georeference, Image
from pesto_runtime.raster.metadata import read_georeference
from pesto_runtime.raster.overviews import Overviews
from pesto_runtime.raster.product import Layout
from pesto_runtime.raster.read import RasterReader
from tests.support.packs import write_blocks
from tests.support.rasters import UTM, noise

COEFFICIENTS = [1.0, *([0.0] * 19)]
POINTS = [
    GroundControlPoint(row=0, col=0, x=10.0, y=50.0, z=1.0),
    GroundControlPoint(row=0, col=9, x=11.0, y=50.0, z=2.0),
    GroundControlPoint(row=9, col=0, x=10.0, y=49.0, z=3.0),
]
RATIONAL = RPC(
    height_off=100.0, height_scale=500.0, lat_off=45.0, lat_scale=0.1, long_off=5.0,
    long_scale=0.2, line_off=5.0, line_scale=5.0, samp_off=5.0, samp_scale=5.0,
    line_num_coeff=COEFFICIENTS, line_den_coeff=COEFFICIENTS, samp_num_coeff=COEFFICIENTS,
    samp_den_coeff=COEFFICIENTS, err_bias=1.0, err_rand=2.0,
)  # fmt: skip


def source(path: Path, *, bands: int = 2, dtype: str = "uint16") -> DatasetWriter:
    return rasterio.open(
        path, "w", driver="GTiff", width=10, height=10, count=bands, dtype=dtype, nodata=7
    )


def through_the_writer(path: Path) -> Path:
    """Read a raster's pixels and facts, and write them as a product."""
    with RasterReader(str(path)) as reader, rasterio.open(path) as dataset:
        pixels = reader.image().pixels
        layout = Layout(
            width=dataset.width, height=dataset.height, count=dataset.count,
            dtype=pixels.dtype.name, nodata=dataset.nodata, georeference=reader.georeference,
            bands=read_bands(dataset),
        )  # fmt: skip
    block = BlockCodec(layout.count, layout.dtype).compress(pixels)
    made = path.with_name("product.tif")
    write_blocks(made, layout, [block])
    return made


def facts_of(path: Path) -> tuple[Georeference, tuple[BandFacts, ...], float | None]:
    with rasterio.open(path) as dataset:
        return read_georeference(dataset), read_bands(dataset), dataset.nodata


def read_bands(dataset: DatasetReader) -> tuple[BandFacts, ...]:
    """Read the facts of every band of an open raster."""
    return tuple(
        BandFacts(
            description=dataset.descriptions[i],
            scale=dataset.scales[i],
            offset=dataset.offsets[i],
            unit=dataset.units[i],
            colour=dataset.colorinterp[i].name,
            colours=colours_of(dataset, i + 1),
            tags=tags_of(dataset, i + 1),
        )
        for i in range(dataset.count)
    )


def colours_of(dataset: DatasetReader, band: int) -> dict[int, Colour]:
    try:
        return dict(dataset.colormap(band))
    except ValueError:
        return {}


def tags_of(dataset: DatasetReader, band: int) -> dict[str, dict[str, str]]:
    domains = ["", *(set(dataset.tag_namespaces(band)) - {"IMAGE_STRUCTURE"})]
    found = {name: dataset.tags(band, **({"ns": name} if name else {})) for name in domains}
    return {name: tags for name, tags in found.items() if tags}


def fill_bands(dataset: DatasetWriter) -> None:
    dataset.descriptions = ("red", "near infrared")
    dataset.scales = (1e-4, 2e-4)
    dataset.offsets = (-0.1, 0.5)
    dataset.units = ("W/m2/sr/um", "K")
    dataset.colorinterp = (ColorInterp.red, ColorInterp.undefined)


def fill_tags(dataset: DatasetWriter) -> None:
    fill_place(dataset)
    dataset.update_tags(SENSOR="OLI", AREA_OR_POINT="Point")
    dataset.update_tags(ns="IMAGERY", CLOUDCOVER="5.3")
    dataset.update_tags(1, STATISTICS_MEAN="17")
    dataset.update_tags(2, ns="CALIBRATION", GAIN="0.5")


def fill_place(dataset: DatasetWriter) -> None:
    dataset.crs = "EPSG:32616"
    dataset.transform = rasterio.transform.Affine(*UTM)


def fill_points(dataset: DatasetWriter) -> None:
    dataset.gcps = (POINTS, rasterio.crs.CRS.from_epsg(4326))


def fill_rpc(dataset: DatasetWriter) -> None:
    dataset.rpcs = RATIONAL


@pytest.mark.parametrize("fill", [fill_bands, fill_tags, fill_place, fill_rpc])
def test_facts_survive_the_product_writer(tmp_path: Path, fill: object) -> None:
    """What rasterio reads of the product is what it reads of the source; the control has none."""
    assert callable(fill)
    with source(tmp_path / "s.tif") as dataset:
        dataset.write(noise(10, 10, bands=2, dtype="uint16"))
        fill(dataset)
    with source(tmp_path / "bare.tif") as dataset:
        dataset.write(noise(10, 10, bands=2, dtype="uint16"))

    made = facts_of(through_the_writer(tmp_path / "s.tif"))

    assert made == facts_of(tmp_path / "s.tif")
    assert made != facts_of(tmp_path / "bare.tif")
    assert made[2] == 7


def test_ground_control_points_survive_the_product_writer(tmp_path: Path) -> None:
    """Points have no equality of their own: coordinates and CRS are compared."""
    with source(tmp_path / "s.tif") as dataset:
        dataset.write(noise(10, 10, bands=2, dtype="uint16"))
        fill_points(dataset)

    with rasterio.open(through_the_writer(tmp_path / "s.tif")) as made:
        points, crs = made.gcps

    assert crs.to_epsg() == 4326
    assert [(p.row, p.col, p.x, p.y, p.z) for p in points] == [
        (p.row, p.col, p.x, p.y, p.z) for p in POINTS
    ]


def test_a_colour_table_survives_the_product_writer(tmp_path: Path) -> None:
    """Classes keep their colours."""
    colours = {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 0, 255, 255)}
    with source(tmp_path / "s.tif", bands=1, dtype="uint8") as dataset:
        dataset.write(noise(10, 10))
        dataset.write_colormap(1, colours)

    with rasterio.open(through_the_writer(tmp_path / "s.tif")) as made:
        table = made.colormap(1)
        assert made.colorinterp == (ColorInterp.palette,)

    assert {value: table[value] for value in colours} == colours


@pytest.mark.parametrize("nodata", [float("nan"), -9999.0, None])
def test_nodata_of_floats_survives_the_product_writer(tmp_path: Path, nodata: float | None) -> None:
    """Not-a-number included; and none stays none."""
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", width=10, height=10, count=1, dtype="float32",
        nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(noise(10, 10, dtype="float32"))

    with rasterio.open(through_the_writer(tmp_path / "s.tif")) as made:
        assert str(made.nodata) == str(nodata)


def test_a_crs_without_a_code_survives_as_wkt(tmp_path: Path) -> None:
    """A local projection has no authority code; it is the same CRS afterwards."""
    crs = rasterio.crs.CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=3 +datum=WGS84 +units=m")
    with source(tmp_path / "s.tif") as dataset:
        dataset.write(noise(10, 10, bands=2, dtype="uint16"))
        dataset.crs = crs
        dataset.transform = rasterio.transform.Affine(*UTM)

    with rasterio.open(through_the_writer(tmp_path / "s.tif")) as made:
        assert made.crs == crs


def test_a_grid_of_another_scale_keeps_its_place_and_no_points() -> None:
    """Twice the pixels are half as large; points tied to pixels are not carried over."""
    place = Georeference(crs="EPSG:32616", transform=UTM, points=tuple(POINTS), rpc=RATIONAL)
    doubled = place.rescaled(2, 2)
    assert doubled.transform == (15.0, 0.0, UTM[2], 0.0, -15.0, UTM[5])
    assert (doubled.points, doubled.rpc) == ((), None)
    assert place.rescaled(1, 1) is place
    assert place.rescaled(2, 3).transform == (15.0, 0.0, UTM[2], 0.0, -10.0, UTM[5])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_no_colour_is_guessed_of_the_number_of_bands(
    tmp_path: Path, count: int, dtype: str
) -> None:
    """Products, their COGs and answers without colours: no RGB, no alpha, each pixel valid."""
    pixels = noise(20, 10, bands=count, dtype=dtype, below=2)
    layout = Layout(width=20, height=10, count=count, dtype=dtype)
    made, cog, answer = (tmp_path / f"{name}.tif" for name in ("made", "cog", "answer"))
    blocks = [BlockCodec(count, dtype).compress(pixels)]
    write_blocks(made, layout, blocks)
    with Overviews(layout) as overviews:
        file = OverviewFile(layout, overviews.make(blocks), ProductForm.COG)
        write_blocks(cog, file, file.blocks(blocks))
    answer.write_bytes(encode_image(Image(pixels), "image/tiff"))
    for path in (made, cog, answer):
        with rasterio.open(path) as dataset:
            plain = (ColorInterp.gray, *[ColorInterp.undefined] * (count - 1))
            assert dataset.colorinterp == plain
            assert dataset.read_masks().all()
            assert (dataset.read() == pixels).all()
