"""Formats that can refer to other files are opened only where the user of the machine says so."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from pesto_runtime.cli.main import main
from pesto_runtime.contract import Window
from pesto_runtime.errors import RasterUnreadable
from pesto_runtime.hrefs import Gate, file_href
from pesto_runtime.raster.codec import decode_image
from pesto_runtime.raster.image import UNBOUNDED
from pesto_runtime.raster.read import read_image, read_scene
from pesto_runtime.service.image_loader import ImageLoader
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import chain

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def vrt(tmp_path: Path) -> Path:
    """A VRT over a GeoTIFF beside it."""
    source = write_scene(tmp_path / "s.tif", noise(30, 20))
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "s.vrt", driver="VRT")
    return tmp_path / "s.vrt"


def test_a_vrt_is_refused_with_the_way_out_and_read_where_it_is_allowed(
    vrt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan says which driver a worker must allow."""
    with pytest.raises(RasterUnreadable, match="--driver, a worker by PESTO_DRIVERS"):
        read_scene(str(vrt))
    monkeypatch.setenv("PESTO_DRIVERS", "ENVI, VRT")
    assert read_scene(str(vrt)).driver == "VRT"
    assert np.array_equal(read_image(str(vrt)).pixels, noise(30, 20))
    assert read_scene(str(vrt.with_suffix(".tif"))).driver == ""


def test_a_service_never_opens_it(vrt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a reference or as a body, whatever the environment says."""
    monkeypatch.setenv("PESTO_DRIVERS", "VRT")
    home = ImageLoader(Gate(local_files=True), UNBOUNDED)
    with pytest.raises(RasterUnreadable, match="GTiff, PNG, JPEG, JP2OpenJPEG"):
        home.load(file_href(vrt), None)
    with pytest.raises(RasterUnreadable):
        decode_image(vrt.read_bytes())
    window = {"href": file_href(vrt.with_suffix(".tif")), "window": list(Window(0, 0, 3, 2))}
    assert home.load(window, None).pixels.shape == (1, 2, 3)  # type: ignore[arg-type]  # the control


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket", "link"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    """A pipe or a device would hold the worker; a link to one is one. The control is a file."""
    path = tmp_path / "a.tif"
    if kind in ("pipe", "link"):
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(tmp_path):
            bound.bind("a.tif")
    home = ImageLoader(Gate(local_files=True), UNBOUNDED)
    for read in (lambda: home.load(file_href(path), None), lambda: read_scene(str(path))):
        with pytest.raises(RasterUnreadable, match="is not a file but"):
            read()
    good = write_scene(tmp_path / "b.tif", noise(30, 20))
    assert home.load(file_href(good), None).pixels.shape == (1, 20, 30)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_the_option_reaches_the_workers_of_a_run(
    vrt: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads and processes; without the option, the run is refused before it begins."""
    monkeypatch.setenv("PESTO_DRIVERS", "")  # put back after the test, as the option sets it
    pipeline = vrt.with_name("p.json")
    pipeline.write_text(json.dumps(chain("soften")))
    command = ["run", str(pipeline), "-i", f"scene={vrt}", "-o", str(vrt.parent / "o"),
               "--executor", executor, "--json"]  # fmt: skip
    for options, code in (([], 2), (["--driver", "VRT"], 0)):
        monkeypatch.setattr("sys.argv", ["pesto", *command, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
    scene = f"scene={vrt.with_suffix('.tif')}"
    monkeypatch.setattr("sys.argv", ["pesto", "run", str(pipeline), "-i", scene, "-o",
                                     str(vrt.parent / "q"), "--json"])  # fmt: skip
    with pytest.raises(SystemExit):
        main()
    assert np.array_equal(
        pixels_of(vrt.parent / "o" / "image.tif"), pixels_of(vrt.parent / "q" / "image.tif")
    )
