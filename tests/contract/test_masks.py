"""The valid pixels of a scene are those that rasterio finds, on every way into a process."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference, Window
from pesto_runtime.raster.read import read_image
from pesto_runtime.run.single_call import call_once
from tests.support import masked
from tests.support.commands import pesto, saved, served
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import refer_always, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.runs import Done

WIDTH, HEIGHT = 139, 87
KINDS = (
    "plain",
    "nodata",
    "every band",
    "mask",
    "mask and nodata",
    "mask beside",
    "alpha",
    "nan",
    "nan nodata",
)


def scene(folder: Path, kind: str) -> Path:
    """Write a scene whose valid pixels are stated in one of the known ways."""
    count = {"plain": 1, "every band": 3, "alpha": 2}.get(kind, 1)
    pixels = noise(WIDTH, HEIGHT, bands=count, below=40)
    gap = (slice(20, 60), slice(30, 90))
    nodata = 7.0 if kind in ("nodata", "mask and nodata", "every band") else None
    if kind.startswith("nan"):
        pixels = pixels.astype(np.float32)
        pixels[:, *gap] = np.nan
        nodata = np.nan if kind == "nan nodata" else None
    if kind == "every band":
        pixels[:, *gap] = 7
        pixels[0] = 7
    path = write_scene(folder / f"{kind}.tif", pixels, names=("grey", "b", "c"), nodata=nodata)
    if kind == "alpha":
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    if kind.startswith("mask"):
        valid = np.ones((HEIGHT, WIDTH), bool)
        valid[gap] = False
        internal = kind != "mask beside"
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    return path


def valid_by_rasterio(path: Path) -> np.ndarray:
    """The valid pixels (row, col): GDAL's mask of the dataset, and no NaN."""
    with rasterio.open(path) as dataset:
        valid = dataset.dataset_mask() != 0
        pixels = dataset.read()
    if pixels.dtype.kind == "f":
        valid &= ~np.isnan(pixels).all(axis=0)
    return np.asarray(valid)


def pipeline(name: str, *, output: str = "image", before: bool = False) -> dict[str, JsonValue]:
    """A pipeline of one process, or of `marked` and it."""
    target = f"{masked.__file__}:{name}"
    first: dict[str, JsonValue] = {
        "id": "before", "process": "marked", "inputs": {"image": "$inputs.scene"},
    }  # fmt: skip
    read = "$before.image" if before else "$inputs.scene"
    process = name.replace("_", "-")
    stages: list[JsonValue] = [{"id": "s", "process": process, "inputs": {"image": read}}]
    services: dict[str, JsonValue] = {process: target}
    if before:
        services["marked"] = f"{masked.__file__}:marked"
    return {
        "name": "masked",
        "inputs": {"scene": "image"},
        "services": services,
        "stages": [first, *stages] if before else stages,
        "outputs": {output: f"$s.{output}"},
    }


def run(document: dict[str, JsonValue], folder: Path, path: Path, **settings: object) -> Done:
    return run_local(document, folder, {"scene": path}, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The process `shown` behind HTTP, which may read a folder."""
    folder = tmp_path_factory.mktemp("scenes")
    with served(f"{masked.__file__}:shown", "--allow", str(folder)) as url:
        yield url, folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_and_one_call_find_the_pixels_that_rasterio_finds(tmp_path: Path, kind: str) -> None:
    """In tiles of any size, and for the whole image."""
    path = scene(tmp_path, kind)
    expected = valid_by_rasterio(path)
    assert expected.all() == (kind == "plain")
    for tile in (32, 1024):
        done = run(pipeline("shown"), tmp_path / str(tile), path, tile=tile)
        assert np.array_equal(done.pixels()[0], expected)
    target, keep = f"{masked.__file__}:shown", {"image": tmp_path / "o.tif"}
    call_once(target, {"image": str(path)}, keep=keep)
    assert np.array_equal(pixels_of(tmp_path / "o.tif")[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_each_band_may_have_its_own_mask(tmp_path: Path, kind: str) -> None:
    """In a run, in one call, in a service: the masks that rasterio reads by band, and no NaN."""
    path = scene(tmp_path, kind)
    with rasterio.open(path) as dataset:
        pixels, expected = dataset.read(), dataset.read_masks() != 0
    if pixels.dtype.kind == "f":
        expected &= ~np.isnan(pixels)
    if kind == "alpha":  # a mask of the dataset is that of all bands, the alpha band too
        expected[1] = expected[0]
    target = f"{masked.__file__}:shown_per_band"
    for tile in (32, 1024):
        done = run(pipeline("shown_per_band"), tmp_path / str(tile), path, tile=tile)
        assert np.array_equal(done.pixels(), expected)
    call_once(target, {"image": str(path)}, keep={"image": tmp_path / "o.tif"})
    assert np.array_equal(pixels_of(tmp_path / "o.tif"), expected)
    if kind == "every band":
        assert (expected.any(axis=0) != expected.all(axis=0)).any()
        with served(target, "--allow", str(tmp_path)) as url, Client(url) as client:
            answer = client.process({"image": path.as_uri()})["image"]
        assert np.array_equal(np.asarray(answer), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_makes_the_mask_that_a_request_does_not_have(
    service: tuple[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a body, from a window of a reference, and in a run over HTTP, pixels sent or not."""
    url, folder = service
    path = scene(folder, kind)
    expected = valid_by_rasterio(path)
    with Client(url) as client:
        window = Window(25, 15, 40, 30)
        reference = ImageReference(href=path.as_uri(), window=window)
        part = client.process({"image": reference})["image"]
        image = client.process({"image": read_image(path.as_uri())})["image"]
        text = base64.b64encode(path.read_bytes()).decode()
        body = client.process({"image": text})["image"]
    assert np.array_equal(np.asarray(part)[0], expected[15:45, 25:65])
    assert np.array_equal(np.asarray(image)[0], expected)
    # A body has no file beside it.
    in_body = np.ones_like(expected) if kind == "mask beside" else expected
    assert np.array_equal(np.asarray(body)[0], in_body)
    document = pipeline("shown")
    document["services"] = {"shown": url}
    for way in ("sent", "referred"):
        done = run(document, folder / f"{way} {kind}", path, tile=48)
        assert np.array_equal(done.pixels()[0], expected)
        refer_always(monkeypatch)


def test_a_mask_has_the_margin_of_its_image(tmp_path: Path) -> None:
    """Tiles see the invalid pixels of their neighbours; without a margin (control) they do not."""
    path = scene(tmp_path, "mask")
    valid = np.pad(valid_by_rasterio(path), 2, constant_values=True)
    expected = np.lib.stride_tricks.sliding_window_view(valid, (5, 5)).all(axis=(2, 3))
    done = run(pipeline("eroded"), tmp_path / "out", path, tile=16)
    assert np.array_equal(done.pixels()[0], expected)
    assert not np.array_equal(expected, valid[2:-2, 2:-2])


def test_pixels_that_are_added_are_not_valid(tmp_path: Path) -> None:
    """A number extends the scene with pixels that are not data; a mirror has those of the scene."""
    path = scene(tmp_path, "plain")
    done = run(pipeline("cells"), tmp_path / "out", path, tile=32)
    ones = np.pad(np.ones((HEIGHT, WIDTH), int), ((0, 9), (0, 5)))
    counts = np.minimum(ones.reshape(6, 16, 9, 16).sum((1, 3)), 255)
    assert np.array_equal(done.pixels()[0], counts.repeat(16, 0).repeat(16, 1)[:HEIGHT, :WIDTH])
    assert len(np.unique(counts)) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [32, 1024])
def test_a_reduce_skips_pixels_that_are_not_valid(tmp_path: Path, kind: str, tile: int) -> None:
    """The mean is that of numpy's masked array; with the other pixels (control) it is another."""
    path = scene(tmp_path, kind)
    done = run(pipeline("valid_mean", output="mean"), tmp_path / "out", path, tile=tile)
    band, valid = pixels_of(path)[0].astype(float), valid_by_rasterio(path)
    assert done.value("mean") == pytest.approx(np.ma.array(band, mask=~valid).mean(), rel=1e-12)
    if kind == "mask":
        assert done.value("mean") != pytest.approx(band.mean(), rel=1e-6)


@pytest.mark.parametrize("tile", [32, 1024])
def test_an_intermediate_raster_is_valid_where_it_is_not_nodata(tmp_path: Path, tile: int) -> None:
    """A reduce after a map reads the map's nodata, not that of the scene."""
    path = scene(tmp_path, "plain")
    document = pipeline("valid_mean", output="mean", before=True)
    done = run(document, tmp_path / "out", path, tile=tile)
    band = pixels_of(path)[0]
    assert done.value("mean") == pytest.approx(band[band >= 30].mean(), rel=1e-12)


def test_a_mask_may_be_of_a_named_image_or_bound_to_a_raster(tmp_path: Path) -> None:
    """`mask="second"` marks that one; a raster of one band that is bound is the mask itself."""
    plain, holed = scene(tmp_path, "plain"), scene(tmp_path, "mask")
    document = pipeline("other")
    document["inputs"] = {"a": "image", "b": "image", "m": "image"}
    inputs: dict[str, JsonValue] = {"first": "$inputs.a", "second": "$inputs.b"}
    stage: dict[str, JsonValue] = {"id": "s", "process": "other", "inputs": inputs}
    document["stages"] = [stage]
    mask = noise(WIDTH, HEIGHT, below=3, seed=5)
    given = {"a": plain, "b": holed, "m": write_scene(tmp_path / "m.tif", mask)}
    done = run_local(document, tmp_path / "x", given, tile=50)
    assert np.array_equal(done.pixels()[0], valid_by_rasterio(holed))
    stage["inputs"] = {**inputs, "valid": "$inputs.m"}
    done = run_local(document, tmp_path / "y", given, tile=50)
    assert np.array_equal(done.pixels()[0], mask[0] != 0)


def test_a_run_of_one_process_needs_no_mask(tmp_path: Path) -> None:
    """`pesto run TARGET` has the image as its only input."""
    path = scene(tmp_path, "mask")
    out = tmp_path / "out"
    done = pesto("run", f"{masked.__file__}:shown", "-i", f"image={path}", "-o", out)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(pixels_of(out / "image.tif")[0], valid_by_rasterio(path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["shown", "marked"])
def test_a_check_warns_of_a_mask_that_is_not_taken(tmp_path: Path, kind: str, name: str) -> None:
    """Once, with the way out; a process that takes it, or a scene without one, gives none."""
    path = scene(tmp_path, kind)
    document = saved(tmp_path / "p.json", pipeline(name))
    done = pesto("check", document, "-i", f"scene={path}")
    assert done.returncode == 0, done.stderr
    is_ignored = name == "marked" and kind in ("mask", "mask and nodata", "mask beside", "alpha")
    assert (done.stdout + done.stderr).count("Raster(mask=True)") == is_ignored


def test_a_product_that_has_the_bands_of_its_scene_has_its_mask(
    tmp_path: Path,
) -> None:
    """Over several blocks, as COG, in a chain, in one call; another dtype (control) has none."""
    pixels = noise(1100, 700, below=40)
    path = write_scene(tmp_path / "s.tif", pixels)
    valid = noise(1100, 700, below=2, seed=3)[0] == 1
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    document = pipeline("same")
    done = run(document, tmp_path / "out", path, tile=200)
    again = run(document, tmp_path / "again", path, tile=512, workers=1, max_tasks=1)
    cog = run(document, tmp_path / "cog", path, as_cog=True)
    assert done.sha256() == again.sha256()
    for folder in (done.folder, cog.folder):
        assert np.array_equal(pixels_of(folder / "image.tif"), pixels)
        assert np.array_equal(valid_by_rasterio(folder / "image.tif"), valid)
    target, keep = f"{masked.__file__}:same", {"image": tmp_path / "o.tif"}
    call_once(target, {"image": str(path)}, keep=keep)
    assert np.array_equal(valid_by_rasterio(tmp_path / "o.tif"), valid)
    other = run(pipeline("marked"), tmp_path / "other", path, tile=200)
    with rasterio.open(other.folder / "image.tif") as product:
        assert product.mask_flag_enums[0] == [MaskFlags.nodata]


@pytest.mark.parametrize("tile", [32, 1024])
def test_an_intermediate_raster_has_the_mask_that_it_inherits(tmp_path: Path, tile: int) -> None:
    """A reduce after a map of the same bands and dtype skips the masked pixels of the scene."""
    path = scene(tmp_path, "mask")
    document = pipeline("valid_mean", output="mean", before=True)
    document = json.loads(json.dumps(document).replace("marked", "same"))
    done = run(document, tmp_path / "out", path, tile=tile)
    band = pixels_of(path)[0].astype(float)
    assert done.value("mean") == pytest.approx(band[valid_by_rasterio(path)].mean(), rel=1e-12)


def test_a_hole_is_not_valid_in_the_mask_of_a_product(tmp_path: Path) -> None:
    """The mask replaces nodata for readers, so it must mark the pixels of a failed tile."""
    pixels = noise(90, 60, below=40) + 1
    pixels[0, 45, 70] = 200
    path = write_scene(tmp_path / "s.tif", pixels, nodata=0)
    valid = np.ones((60, 90), bool)
    valid[:10] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    done = run(pipeline("fails"), tmp_path / "out", path, tile=32)
    assert done.tiles[2] == 1
    valid[32:, 64:] = False
    with rasterio.open(done.folder / "image.tif") as product:
        assert product.mask_flag_enums[0] == [MaskFlags.per_dataset]
    assert np.array_equal(valid_by_rasterio(done.folder / "image.tif"), valid)


def test_a_window_of_a_scene_has_the_mask_of_the_window(tmp_path: Path) -> None:
    """In the process, and in the product that inherits it."""
    path = scene(tmp_path, "mask")
    part = f"{path}#window=25,15,70,50"
    expected = valid_by_rasterio(path)[15:65, 25:95]
    shown = run_local(pipeline("shown"), tmp_path / "a", {"scene": part}, tile=32)
    same = run_local(pipeline("same"), tmp_path / "b", {"scene": part}, tile=32)
    assert np.array_equal(shown.pixels()[0], expected)
    assert np.array_equal(valid_by_rasterio(same.folder / "image.tif"), expected)


def test_a_product_of_the_bands_beside_an_alpha_band_has_its_mask(tmp_path: Path) -> None:
    """The alpha band is not among them, so nothing else would mark the valid pixels."""
    path = scene(tmp_path, "alpha")
    with rasterio.open(path) as dataset:
        expected = dataset.read(2) != 0
    document = pipeline("same")
    for given, is_masked in ((f"{path}#bands=1", True), (str(path), False)):
        done = run_local(document, tmp_path / f"out{is_masked}", {"scene": given}, tile=64)
        with rasterio.open(done.folder / "image.tif") as dataset:
            assert (MaskFlags.per_dataset in dataset.mask_flag_enums[0]) is True
            assert (dataset.count == 1) is is_masked
            assert np.array_equal(dataset.dataset_mask() != 0, expected)
