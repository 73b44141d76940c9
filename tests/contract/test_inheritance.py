"""What a product inherits of its first image is the same on every way in, and as the page says."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from pesto_runtime.client.client import Client
from pesto_runtime.contract import NUMERIC_DTYPES, ImageReference
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.raster.read import read_image
from pesto_runtime.run.single_call import call_once
from tests.contract.serving import served
from tests.support.rasters import UTM, noise
from tests.support.runs import run_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.contract, pytest.mark.integration, pytest.mark.usefixtures("_quick")]

TARGET = f"{Path(__file__).with_name('inheriting.py')}:"
TIFF = "image/tiff"
SIZE = (31, 21)
NAMES = ("blue", "green", "red", "nir")
COLOURS = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
TAGS = {"bidx": "2", "ns": "S", "self": "me", "SENSOR": "OLI", "": "nameless"}
COEFFICIENTS = [1.0, *([0.0] * 19)]
RATIONAL = RPC(
    height_off=100.0, height_scale=500.0, lat_off=45.0, lat_scale=0.1, long_off=5.0,
    long_scale=0.2, line_off=5.0, line_scale=5.0, samp_off=5.0, samp_scale=5.0,
    line_num_coeff=COEFFICIENTS, line_den_coeff=COEFFICIENTS, samp_num_coeff=COEFFICIENTS,
    samp_den_coeff=COEFFICIENTS, err_bias=1.0, err_rand=2.0,
)  # fmt: skip


@pytest.fixture
def _quick(without_pictures: None) -> None:
    """Every run here goes without pictures."""


@pytest.fixture(scope="module")
def url_of() -> Iterator[Callable[[str], str]]:
    """Serve a process, once for all tests."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:

        def serve(process: str) -> str:
            if process not in urls:
                urls[process] = stack.enter_context(served(TARGET + process)).url
            return urls[process].removesuffix("/api/v1")

        yield serve


def write(path: Path, dtype: str = "uint16", *, points: bool = False) -> Path:
    """A scene with every fact that a GeoTIFF can state; its place by a transform or by points."""
    place: dict[str, object] = (
        {} if points else {"crs": "EPSG:32616", "transform": rasterio.transform.Affine(*UTM)}
    )
    with rasterio.open(
        path, "w", driver="GTiff", width=SIZE[0], height=SIZE[1], count=4, dtype=dtype,
        nodata=7, photometric="MINISBLACK", alpha="NO", **place,
    ) as scene:  # fmt: skip
        if points:
            scene.gcps = (
                [GroundControlPoint(row=r, col=c, x=10.0 + c, y=50.0 - r, z=r)
                 for r, c in ((0, 0), (0, 30), (20, 0))],
                rasterio.crs.CRS.from_epsg(4326),
            )  # fmt: skip
            scene.rpcs = RATIONAL
        scene.descriptions = NAMES
        scene.scales, scene.offsets = (1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 30.0, 40.0)
        scene.units = ("1", "2", "3", "4")
        scene.colorinterp = COLOURS
        for domain in (None, "SCANNER"):
            # Names that are parameters of `update_tags` need GDAL's own spelling: cut at a NUL.
            scene.update_tags(0, domain, **{f"{name}\0": text for name, text in TAGS.items()})
        for band in scene.indexes:
            scene.update_tags(band, GAIN=str(band), STATISTICS_MEAN="17")
            scene.update_tags(band, "CALIBRATION", **{"ns\0": str(band)})
        scene.write(noise(*SIZE, bands=4, dtype=dtype, below=100))
    return path


def facts(path: Path) -> dict[str, object]:
    """What rasterio reads of a file, apart from its pixels."""
    with rasterio.open(path) as made:
        points, crs = made.gcps
        return {
            "dtypes": made.dtypes, "nodata": str(made.nodata), "names": made.descriptions,
            "scales": made.scales, "offsets": made.offsets, "units": made.units,
            "colours": made.colorinterp, "crs": made.crs, "transform": made.transform,
            "points": [(p.row, p.col, p.x, p.y, p.z) for p in points], "points_crs": crs,
            "rpc": made.rpcs and made.rpcs.to_gdal(),
            "tags": {k: v for k, v in made.tags().items() if k != "AREA_OR_POINT"},
            "domain": made.tags(ns="SCANNER"),
            "band_tags": [made.tags(band) for band in made.indexes],
            "calibration": [made.tags(band, ns="CALIBRATION") for band in made.indexes],
        }  # fmt: skip


def expected(scene: Path, process: str) -> dict[str, object]:
    """The facts of a product, by hand from the page: those of the scene, and what differs."""
    of_scene = facts(scene)
    of_scene["band_tags"] = [{"GAIN": str(band)} for band in (1, 2, 3, 4)]  # no statistics
    lost = {
        "nodata": "None", "scales": (1.0,) * 4, "offsets": (0.0,) * 4, "units": (None,) * 4,
        "colours": (ColorInterp.gray, *(ColorInterp.undefined,) * 3),
        "band_tags": [{}] * 4, "calibration": [{}] * 4,
    }  # fmt: skip
    changes: dict[str, dict[str, object]] = {
        "same": {},
        "told": {name: [of_scene[name][i] for i in (3, 0)] for name in  # type: ignore[index]  # lists
                 ("dtypes", "names", "scales", "offsets", "units", "colours", "band_tags",
                  "calibration")},
        "other_dtype": {**lost, "dtypes": ("float64",) * 4},
        "declared": {**{k: v[:1] if k != "nodata" else v for k, v in lost.items()},
                     "dtypes": ("int32",), "names": ("a",), "nodata": "3.0",
                     "scales": (0.5,), "offsets": (-1.0,), "units": ("K",)},
        "without_nodata": {"nodata": "None"},
        "halved": {"points": [], "points_crs": None, "rpc": None,
                   "transform": rasterio.transform.Affine(60, 0, UTM[2], 0, -60, UTM[5])},
        "physical": {"dtypes": ("float32",) * 4, "nodata": "nan", "scales": (1.0,) * 4,
                     "offsets": (0.0,) * 4},
    }  # fmt: skip
    changes["two"] = changes["told"]
    made = {**of_scene, **changes[process]}
    if process == "halved" and not of_scene["crs"]:
        made["transform"] = rasterio.transform.Affine.identity()
    return {name: list(fact) if isinstance(fact, tuple) else fact for name, fact in made.items()}


def by_hand(scene: Path, process: str) -> np.ndarray:
    """The pixels of a product."""
    with rasterio.open(scene) as dataset:
        stored = dataset.read()
    physical = stored * np.arange(1, 5)[:, None, None] + np.arange(10, 50, 10)[:, None, None]
    pixels = {
        "told": stored[[3, 0]], "two": stored[[3, 0]], "halved": stored[:, :20:2, :30:2],
        "other_dtype": stored.real.astype("float64"), "declared": stored[:1].real.astype("int32"),
        "physical": np.where(stored == 7, np.nan, physical.real).astype("float32"),
    }  # fmt: skip
    return np.asarray(pixels.get(process, stored))


def run(scene: Path, process: str, made: Path, _url: str) -> None:
    """As a pipeline of one stage, in tiles."""
    document = {
        "name": "one", "inputs": {"scene": "image"}, "services": {"p": TARGET + process},
        "stages": [{"id": "s", "process": process.replace("_", "-"),
                    "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"out": "$s.out"},
    }  # fmt: skip
    document["services"] = {process.replace("_", "-"): TARGET + process}
    done = run_local(document, made.with_suffix(""), {"scene": scene})  # type: ignore[arg-type]
    (done.folder / "out.tif").rename(made)


def run_over_http(scene: Path, process: str, made: Path, url: str) -> None:
    """As a pipeline whose process is a service."""
    document = {
        "name": "one", "inputs": {"scene": "image"},
        "services": {process.replace("_", "-"): url},
        "stages": [{"id": "s", "process": process.replace("_", "-"),
                    "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"out": "$s.out"},
    }  # fmt: skip
    done = run_local(document, made.with_suffix(""), {"scene": scene})  # type: ignore[arg-type]
    (done.folder / "out.tif").rename(made)


def process_here(scene: Path, process: str, made: Path, _url: str) -> None:
    """`pesto process` of a target."""
    call_once(TARGET + process, {"image": str(scene)}, keep={"out": made})


def process_there(scene: Path, process: str, made: Path, url: str) -> None:
    """`pesto process` of a service."""
    call_once(url, {"image": str(scene)}, keep={"out": made})


def service_body(scene: Path, _process: str, made: Path, url: str) -> None:
    """A body of TIFF, and TIFF back."""
    import httpx

    headers = {"Content-Type": TIFF, "Accept": TIFF}
    answer = httpx.post(f"{url}/api/v1/process", content=scene.read_bytes(), headers=headers,
                        trust_env=False)  # fmt: skip
    made.write_bytes(answer.raise_for_status().content)


def service_href(scene: Path, _process: str, made: Path, url: str) -> None:
    """An href in JSON, and TIFF back."""
    import httpx

    answer = httpx.post(f"{url}/api/v1/process", json={"image": file_href(scene)},
                        headers={"Accept": TIFF}, trust_env=False)  # fmt: skip
    made.write_bytes(answer.raise_for_status().content)


def client_image(scene: Path, _process: str, made: Path, url: str) -> None:
    """The client with an `Image`, and an `Image` back."""
    with Client(url) as client:
        out = client.process({"image": read_image(str(scene))}, accept=TIFF)["out"]
    assert isinstance(out, Image)
    made.write_bytes(encode_image(out, TIFF))


def client_reference(scene: Path, _process: str, made: Path, url: str) -> None:
    """The client with a reference, and an `Image` back."""
    with Client(url) as client:
        out = client.process({"image": ImageReference(href=file_href(scene))}, accept=TIFF)["out"]
    assert isinstance(out, Image)
    made.write_bytes(encode_image(out, TIFF))


WAYS = (
    run, run_over_http, process_here, process_there, service_body, service_href, client_image,
    client_reference,
)  # fmt: skip
PROCESSES = (
    "same", "two", "told", "other_dtype", "declared", "without_nodata", "halved", "physical",
)  # fmt: skip


def require_as_expected(scene: Path, process: str, made: Path) -> None:
    found = {k: list(v) if isinstance(v, tuple) else v for k, v in facts(made).items()}
    wanted = expected(scene, process)
    assert {k: (found[k], wanted[k]) for k in wanted if found[k] != wanted[k]} == {}
    with rasterio.open(made) as dataset:
        assert np.array_equal(
            dataset.read(), by_hand(scene, process), equal_nan=process == "physical"
        )


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_facts_of_the_page(
    way: Callable[[Path, str, Path, str], None],
    process: str,
    tmp_path: Path,
    url_of: Callable[[str], str],
) -> None:
    """Facts and pixels of the file, whoever wrote it."""
    scene = write(tmp_path / "scene.tif")
    way(scene, process, tmp_path / "made.tif", url_of(process))
    require_as_expected(scene, process, tmp_path / "made.tif")


@pytest.mark.parametrize("process", ["same", "other_dtype", "halved"])
@pytest.mark.parametrize("way", WAYS)
def test_points_and_coefficients_too(
    way: Callable[[Path, str, Path, str], None],
    process: str,
    tmp_path: Path,
    url_of: Callable[[str], str],
) -> None:
    """They stay where each pixel is one of the scene, and nowhere else."""
    scene = write(tmp_path / "scene.tif", points=True)
    way(scene, process, tmp_path / "made.tif", url_of(process))
    require_as_expected(scene, process, tmp_path / "made.tif")


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_every_dtype_keeps_its_facts(
    dtype: str, tmp_path: Path, url_of: Callable[[str], str]
) -> None:
    """Of four bands; no driver takes the fourth for alpha."""
    scene = write(tmp_path / "scene.tif", dtype)
    for way in (run, process_here, service_body, client_reference):
        way(scene, "same", tmp_path / f"{way.__name__}.tif", url_of("same"))
        require_as_expected(scene, "same", tmp_path / f"{way.__name__}.tif")


def test_a_scene_of_no_facts_gives_a_product_of_none(
    tmp_path: Path, url_of: Callable[[str], str]
) -> None:
    """Negative control: four bands of uint8 are four bands, and each pixel is valid."""
    scene = tmp_path / "scene.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", width=9, height=8, count=4, dtype="uint8",
        photometric="MINISBLACK", alpha="NO", crs="EPSG:32616",
        transform=rasterio.transform.Affine(*UTM),
    ) as dataset:  # fmt: skip
        dataset.write(noise(9, 8, bands=4, below=2))
    for way in WAYS:
        made = tmp_path / f"{way.__name__}.tif"
        way(scene, "same", made, url_of("same"))
        assert facts(made) == facts(scene)
        with rasterio.open(made) as dataset:
            assert dataset.read_masks().all()
