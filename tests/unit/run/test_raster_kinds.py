"""Rasters as they are found: pixels, place, nodata and mask of each kind come through a run."""

from __future__ import annotations

import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from tests.support.runs import run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

WIDTH, HEIGHT = 530, 300
PLACE = Affine(10, 0, 5e5, 0, -10, 5e6)
AUTHOR = """
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

@process(version="1.0.0", margin=1)
def same(scene: np.ndarray) -> Annotated[np.ndarray, Raster(name="out")]:
    return scene.copy()
"""
KINDS: dict[str, dict[str, object]] = {
    "plain.tif": {"nodata": 0, "tiled": True},
    "strips.tif": {"blockysize": 7},
    "strip.tif": {"blockysize": HEIGHT},
    "big.tif": {"bigtiff": "YES"},
    "rotated.tif": {"transform": Affine(10, 2, 5e5, 3, -10, 5e6)},
    "southup.tif": {"transform": Affine(10, 0, 5e5, 0, 10, 5e6)},
    "degrees.tif": {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 5, 0, -0.001, 45)},
    "nowhere.tif": {"crs": None, "transform": None},
    "int8.tif": {"dtype": "int8"},
    "int64.tif": {"dtype": "int64"},
    "uint32.tif": {"dtype": "uint32"},
    "complex64.tif": {"dtype": "complex64"},
    "nan.tif": {"dtype": "float64", "nodata": np.nan},
    "bits1.tif": {"dtype": "uint8", "nbits": 1},
    "bits12.tif": {"nbits": 12},
    "zstd.tif": {"compress": "zstd"},
    "lerc.tif": {"compress": "lerc"},
    "a.jp2": {"dtype": "uint8", "driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"},
    "a.png": {"dtype": "uint8", "driver": "PNG"},
    "my scène é.tif": {},
    "plus+percent%20#.tif": {},
}


def pixels_for(dtype: str, *, bits: int = 0) -> np.ndarray:
    """Noise (3, row, col) within a dtype; NaN in the first rows of floats."""
    most = 2**bits if bits else 100
    found = np.random.default_rng(0).integers(0, most, (3, HEIGHT, WIDTH)).astype(dtype)
    if dtype == "float64":
        found[:, :50] = np.nan
    return found


def written(path: Path, options: dict[str, object]) -> Path:
    dtype, bits = str(options.get("dtype", "uint16")), int(str(options.get("nbits", 0)))
    profile = {
        "driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": dtype,
        "crs": "EPSG:32631", "transform": PLACE, **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels_for(dtype, bits=bits))
    return path


def require_same(folder: Path, href: object, local: Path) -> None:
    """Run over a raster in two ways, and compare the products with it and with each other."""
    (folder / "t.py").write_text(AUTHOR)
    document: dict[str, JsonValue] = {
        "name": "kinds",
        "inputs": ["scene"],
        "services": {"same": f"{folder}/t.py:same"},
        "stages": [{"id": "s", "process": "same", "inputs": {"scene": "$inputs.scene"}}],
        "outputs": {"out": "$s.out"},
    }
    done = [run_local(document, folder / f"{n}", {"scene": href}, tile=n) for n in (97, 1024)]
    assert done[0].sha256("out") == done[1].sha256("out")
    with rasterio.open(local) as scene, rasterio.open(done[0].folder / "out.tif") as product:
        assert np.array_equal(scene.read(), product.read(), equal_nan=scene.dtypes[0][0] in "fc")
        assert (product.crs, product.transform) == (scene.crs, scene.transform)
        assert str(product.nodata) == str(scene.nodata)
        assert product.mask_flag_enums[0] == scene.mask_flag_enums[0]
        assert (product.dataset_mask() == scene.dataset_mask()).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_raster_comes_through(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, KINDS[name])
    require_same(tmp_path, path, path)


def test_a_palette_comes_through(tmp_path: Path) -> None:
    """With its colours."""
    path = tmp_path / "p.tif"
    table = {value: (value, 255 - value, 0, 255) for value in range(100)}
    with rasterio.open(path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1,
                       dtype="uint8", crs="EPSG:32631", transform=PLACE) as dataset:  # fmt: skip
        dataset.write(pixels_for("uint8")[:1])
        dataset.write_colormap(1, table)
    require_same(tmp_path, path, path)
    with rasterio.open(tmp_path / "97" / "out.tif") as product:
        assert {k: product.colormap(1)[k] for k in table} == table


def test_a_mask_comes_through(tmp_path: Path) -> None:
    path = written(tmp_path / "m.tif", {})
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(pixels_for("uint16")[0] > 20)
    require_same(tmp_path, path, path)


class _Ranges(SimpleHTTPRequestHandler):
    """Serves files with ranges, whatever the query."""

    def do_GET(self) -> None:
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123  # as its base
            data = file.read()
        wanted = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        start, stop = int(wanted[0]), min(int(wanted[1] or len(data) - 1), len(data) - 1) + 1
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start:stop])

    do_HEAD = do_GET  # noqa: N815  # the name of its base

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("place", ["archive", "signed URL"])
def test_another_place_is_the_same_raster(tmp_path: Path, place: str) -> None:
    path = written(tmp_path / "s.tif", {"nodata": 0})
    if place == "archive":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "s.tif")
        require_same(tmp_path, f"zip://{tmp_path}/a.zip!/s.tif", path)
        return
    handler = partial(_Ranges, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        require_same(tmp_path, f"http://127.0.0.1:{server.server_port}/s.tif?token=a%2Fb", path)
        server.shutdown()
