"""The built-in process `warp`: right places, any tiling, scenes of other grids in one pipeline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from pesto_runtime.contract import Description, Grid, Window
from pesto_runtime.errors import GridMismatch, InvalidContract, InvalidInput, InvalidPipeline
from pesto_runtime.flows import flow
from pesto_runtime.processor import load_processor
from pesto_runtime.raster.resampling import Warp
from tests.support import resolutions
from tests.support.commands import pesto
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import ROOT, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

UTM31, UTM32 = "EPSG:32631", "EPSG:32632"
ORIGIN = (600_000.0, 5_400_000.0)


def placed(pixel: float, origin: tuple[float, float] = ORIGIN) -> list[float]:
    return [pixel, 0.0, origin[0], 0.0, -pixel, origin[1]]


def smooth_scene(path: Path, *, size: tuple[int, int] = (300, 260), nodata: float | None = None,
                 crs: str = UTM31, transform: list[float] | None = None,
                 dtype: str = "float32") -> Path:  # fmt: skip
    """Write waves of some pixels of length, so that methods can be compared within a tolerance."""
    cols, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    wave = 100 + 50 * np.sin(cols / 9) * np.cos(rows / 11)
    pixels = np.stack([wave, wave[::-1]]).astype(dtype)
    if nodata is not None:
        pixels[:, 40:60, 50:90] = nodata
    transform = transform or placed(30)
    return write_scene(path, pixels, names=["a", "b"], crs=crs, transform=transform, nodata=nodata)


def pipeline(**inputs: JsonValue) -> dict[str, Any]:
    return {
        "name": "warped",
        "inputs": {"scene": "image", **({"other": "image"} if "like" in inputs else {})},
        "stages": [{"id": "w", "process": "warp", "inputs": {"image": "$inputs.scene", **inputs}}],
        "outputs": {"image": "$w.image"},
    }


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def by_gdal(scene: Path, product: Path, resampling: Resampling) -> np.ndarray:
    """Resample with GDAL's warper and its exact transformer onto the grid of a product."""
    with rasterio.open(scene) as source, rasterio.open(product) as target:
        made = np.full(target.shape, np.nan, "float32")
        reproject(
            rasterio.band(source, 1), made, resampling=resampling, tolerance=0,
            dst_transform=target.transform, dst_crs=target.crs, dst_nodata=np.nan,
        )  # fmt: skip
    return made


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("crs", [UTM32, UTM31])
def test_pixels_are_those_of_gdal(tmp_path: Path, method: str, crs: str) -> None:
    """In another CRS and in its own; not counting the border, where rules differ."""
    scene = smooth_scene(tmp_path / "scene.tif")
    stage = pipeline(crs=crs, resolution=27.0, resampling=method)
    run_local(stage, tmp_path / "out", {"scene": str(scene)}, tile=100)
    product = tmp_path / "out" / "image.tif"
    made, wanted = read(product)[0], by_gdal(scene, product, Resampling[method])
    inside = np.isfinite(wanted) & np.isfinite(made)
    for step in range(-3, 4):
        inside &= np.isfinite(np.roll(made, step, 0)) & np.isfinite(np.roll(made, step, 1))
    inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False
    assert inside.mean() > 0.8
    off = np.abs(made - wanted)[inside]
    if method == "nearest":  # a place at the border of two pixels may be on either side
        assert (off == 0).mean() > 0.99
    else:
        assert off.max() < 0.05
    assert (np.isfinite(wanted) != np.isfinite(made)).mean() < 0.02
    # The control: a shift by a pixel is far outside the tolerance.
    assert np.quantile(np.abs(np.roll(made, 1, axis=1) - wanted)[inside], 0.5) > 0.5


@pytest.mark.parametrize(("method", "most"), [("bilinear", 0.2), ("cubic", 0.02)])
def test_values_are_those_of_the_function_at_the_place(
    tmp_path: Path, method: str, most: float
) -> None:
    """In degrees, where GDAL's places are right to an eighth of a pixel only: places by PROJ."""
    scene = smooth_scene(tmp_path / "scene.tif")
    run_local(pipeline(crs="EPSG:4326", resampling=method), tmp_path / "out", {"scene": str(scene)})
    with rasterio.open(tmp_path / "out" / "image.tif") as product:
        made, to_lonlat = product.read(1), product.transform
    cols, rows = np.meshgrid(np.arange(made.shape[1]) + 0.5, np.arange(made.shape[0]) + 0.5)
    lons, lats = to_lonlat * (cols, rows)
    xs, ys = transform("EPSG:4326", UTM31, lons.ravel().tolist(), lats.ravel().tolist())
    col = (np.reshape(xs, made.shape) - ORIGIN[0]) / 30 - 0.5
    row = (ORIGIN[1] - np.reshape(ys, made.shape)) / 30 - 0.5
    inside = (col > 2) & (col < 297) & (row > 2) & (row < 257)
    wanted = 100 + 50 * np.sin(col / 9) * np.cos(row / 11)
    assert inside.mean() > 0.8
    assert np.abs(made - wanted)[inside].max() < most


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_bytes_do_not_depend_on_tiles(tmp_path: Path, method: str) -> None:
    """Another CRS, with holes of nodata; tiles of odd sizes."""
    scene = smooth_scene(tmp_path / "scene.tif", nodata=-1.0)
    stage = pipeline(crs="EPSG:4326", resampling=method)
    given = {"scene": str(scene)}
    shas = {
        run_local(stage, tmp_path / f"out{tile}", given, tile=tile, max_tasks=tasks).sha256()
        for tile, tasks in ((512, 1), (100, 4), (64, 9), (37, 2))
    }
    assert len(shas) == 1


def test_pixels_without_data_stay_without(tmp_path: Path) -> None:
    """Nodata is that of the scene, beyond it and in its hole, and it is not part of a mean."""
    scene = smooth_scene(tmp_path / "scene.tif", nodata=-1.0)
    run_local(pipeline(crs=UTM32, resampling="cubic"), tmp_path / "out", {"scene": str(scene)})
    with rasterio.open(tmp_path / "out" / "image.tif") as product:
        made = product.read(1)
        assert product.nodata == -1
    assert 49 < made[made != -1].min() < made.max() < 151
    assert (made == -1).sum() > 20 * 40 * 0.9


def test_a_shift_by_half_a_pixel_is_a_mean_of_neighbours(tmp_path: Path) -> None:
    """By hand: the same pixels half a pixel to the right and down, in integers."""
    pixels = noise(40, 30, dtype="uint8", seed=3)
    write_scene(tmp_path / "a.tif", pixels, crs=UTM31, transform=placed(10), nodata=255)
    write_scene(tmp_path / "b.tif", pixels, crs=UTM31,
                transform=placed(10, (ORIGIN[0] + 5, ORIGIN[1] - 5)))  # fmt: skip
    given = {"scene": str(tmp_path / "a.tif"), "other": str(tmp_path / "b.tif")}
    run_local(pipeline(like="$inputs.other", resampling="bilinear"), tmp_path / "out", given)
    grey = pixels[0].astype(float)
    mean = (grey[:-1, :-1] + grey[1:, :-1] + grey[:-1, 1:] + grey[1:, 1:]) / 4
    np.testing.assert_array_equal(
        read(tmp_path / "out" / "image.tif")[0, :-1, :-1], np.rint(mean).astype("uint8")
    )


@pytest.mark.parametrize("tile", [40, 512])
def test_images_of_other_grids_meet_in_a_stage(tmp_path: Path, tile: int) -> None:
    """A fine image half a pixel off joins by `like` with a ratio; without, it is refused."""
    colour = noise(60, 50, dtype="uint16", seed=1)
    grey = noise(121, 101, dtype="uint16", seed=2)
    write_scene(tmp_path / "colour.tif", colour, crs=UTM31, transform=placed(30))
    write_scene(tmp_path / "grey.tif", grey, crs=UTM31, nodata=0,
                transform=placed(15, (ORIGIN[0] - 7.5, ORIGIN[1] + 7.5)))  # fmt: skip
    document: dict[str, Any] = {
        "name": "sharp",
        "inputs": {"colour": "image", "grey": "image"},
        "services": {"sharpened": f"{resolutions.__file__}:sharpened"},
        "stages": [
            {"id": "w", "process": "warp", "inputs": {
                "image": "$inputs.grey", "like": "$inputs.colour", "ratio": 2,
                "resampling": "bilinear"}},
            {"id": "m", "process": "sharpened", "inputs": {
                "colour": "$inputs.colour", "grey": "$w.image"}},
        ],
        "outputs": {"image": "$m.image", "grey": "$w.image"},
    }  # fmt: skip
    given = {name: str(tmp_path / f"{name}.tif") for name in ("colour", "grey")}
    run_local(document, tmp_path / "out", given, tile=tile)
    shifted = grey[0].astype(float)
    mean = (shifted[:-1, :-1] + shifted[1:, :-1] + shifted[:-1, 1:] + shifted[1:, 1:]) / 4
    with rasterio.open(tmp_path / "out" / "grey.tif") as file:
        valid = (shifted[:120, :100] != 0)[:100]  # the nearest pixel; of no value 0 in the mean
        assert tuple(file.transform)[:6] == tuple(placed(15))
        found = file.read(1)
    touched = np.zeros((100, 120), bool)
    for i in (0, 1):
        for j in (0, 1):
            touched |= shifted[i : 100 + i, j : 120 + j] == 0
    np.testing.assert_array_equal(found[~touched], np.rint(mean).astype("uint16")[~touched])
    assert valid.any()
    whole = resolutions.smooth(colour, 1).repeat(2, axis=1).repeat(2, axis=2)
    wanted = (whole * resolutions.smooth(found[np.newaxis], 3) * (found != 0)).astype("float32")
    np.testing.assert_array_equal(read(tmp_path / "out" / "image.tif"), wanted)
    del document["stages"][0]
    document["stages"][0]["inputs"]["grey"] = "$inputs.grey"
    del document["outputs"]["grey"]
    with pytest.raises(GridMismatch, match="by a stage of the process `warp`"):
        run_local(document, tmp_path / "refused", given)


def test_a_result_is_warped_after_its_phase(tmp_path: Path) -> None:
    """An output of a stage on its own grid, and the same warped and smoothed on another one."""
    scene = smooth_scene(tmp_path / "scene.tif")
    document: dict[str, Any] = {
        "name": "chain",
        "inputs": {"scene": "image"},
        "services": {"combined": f"{resolutions.__file__}:combined",
                     "smooth": f"{resolutions.__file__}:smoothed"},
        "stages": [
            {"id": "a", "process": "smooth", "inputs": {"image": "$inputs.scene"}},
            {"id": "w", "process": "warp", "inputs": {
                "image": "$a.image", "crs": "EPSG:4326", "resampling": "bilinear"}},
            {"id": "b", "process": "smooth", "inputs": {"image": "$w.image"}},
        ],
        "outputs": {"flat": "$a.image", "round": "$b.image"},
    }  # fmt: skip
    given = {"scene": str(scene)}
    one = run_local(document, tmp_path / "one", given, tile=512, max_tasks=1)
    many = run_local(document, tmp_path / "many", given, tile=50, max_tasks=6)
    for name in ("flat", "round"):
        assert one.sha256(name) == many.sha256(name)
    with rasterio.open(tmp_path / "many" / "round.tif") as product:
        assert product.crs == rasterio.crs.CRS.from_epsg(4326)
        smoothed = read(tmp_path / "many" / "flat.tif")
        assert abs(float(np.nanmean(product.read(1))) - float(smoothed[0].mean())) < 2


WORLD = Grid(width=1800, height=900, crs="EPSG:4326", transform=(0.2, 0, -180.0, 0, -0.2, 90.0))


@pytest.mark.parametrize(
    "target",
    [
        Grid(width=700, height=400, crs="EPSG:32660", transform=(1000.0, 0, 4e5, 0, -1000.0, 6e6)),
        Grid(width=400, height=800, crs="EPSG:3413", transform=(5e3, 0, -1e6, 0, -5e3, 2e6)),
        Grid(width=360, height=180, crs="ESRI:54009", transform=(1e5, 0, -1.8e7, 0, -1e5, 9e6)),
        Grid(width=300, height=300, crs="EPSG:3857", transform=(500.0, 0, 1e6, 0, -500.0, 6e6)),
    ],
    ids=["antimeridian", "pole", "beyond the world", "smooth"],
)
def test_places_are_those_of_proj(target: Grid) -> None:
    """Within 1/512 pixel at every pixel, also at seams; points beyond the world have no place."""
    warp = Warp(WORLD, target, "nearest")
    cols, rows = np.meshgrid(np.arange(target.width) + 0.5, np.arange(target.height) + 0.5)
    found = warp.places(Window(0, 0, target.width, target.height))
    moved = Transformer.from_crs(target.crs, WORLD.crs, always_xy=True).transform(
        *(Affine(*target.transform) * (cols, rows))  # type: ignore[misc]  # it has one
    )
    with np.errstate(invalid="ignore"):  # of infinite places
        exact = ~Affine(*WORLD.transform) * moved  # type: ignore[misc]  # it has one
    for one, other in zip(found, exact, strict=True):
        is_placed = np.isfinite(other)
        assert (np.isfinite(one) == is_placed).all()
        assert np.abs(one - other)[is_placed].max() <= 2 / 512


def test_no_pixel_is_of_the_wrong_side_of_the_world(tmp_path: Path) -> None:
    """Across the antimeridian, longitudes are about 180 or -180 and nothing between; any tiles."""
    lons = np.tile((np.arange(1800) * 0.2 - 179.9).astype("float32"), (1, 900, 1))
    write_scene(
        tmp_path / "world.tif", lons, crs="EPSG:4326", transform=list(WORLD.transform or ())
    )
    write_scene(tmp_path / "like.tif", noise(300, 200), crs="EPSG:32660",
                transform=[1000.0, 0, 550_000.0, 0, -1000.0, 6_000_000.0])  # fmt: skip
    given = {"scene": str(tmp_path / "world.tif"), "other": str(tmp_path / "like.tif")}
    stage = pipeline(like="$inputs.other", resampling="nearest")
    one = run_local(stage, tmp_path / "one", given, tile=512)
    many = run_local(stage, tmp_path / "many", given, tile=37)
    assert one.sha256() == many.sha256()
    made = one.pixels()
    assert np.isfinite(made).all()
    assert np.abs(made).min() > 170
    assert (made > 0).any()
    assert (made < 0).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": "EPSG:32660"}, "without a place|torn apart"),
        ({"crs": "EPSG:3413", "resolution": 50000}, "without a place|torn apart"),
        ({"crs": "EPSG:6933", "resolution": 1e300}, r"pixels in EPSG:6933: `resolution` 1e\+300"),
        ({"resolution": 1e-7}, "`resolution` 1e-07 is in units of this CRS"),
        ({"crs": "EPSG:4978"}, "is no plane of two axes"),
        ({"crs": "EPSG:5773"}, "is no plane of two axes"),
        ({"crs": ""}, "crs.*is empty"),
    ],
)
def test_a_grid_that_is_absurd_is_refused(
    tmp_path: Path, options: dict[str, JsonValue], words: str
) -> None:
    """Before the run: what has no place, is torn apart, or would be far too large."""
    write_scene(tmp_path / "world.tif", noise(1800, 900), crs="EPSG:4326", nodata=255,
                transform=list(WORLD.transform or ()))  # fmt: skip
    with pytest.raises((InvalidInput, InvalidPipeline), match=words):
        run_local(pipeline(**options), tmp_path / "out", {"scene": str(tmp_path / "world.tif")})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint64", 2**64 - 1), ("int64", 2**63 - 1), ("int8", -128), ("uint8", 255)],
)
@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_the_limits_of_a_dtype_stay(dtype: str, value: int, method: str) -> None:
    """A mean of equal numbers is that number, also where a float has no such number."""
    grid = Grid(width=8, height=8, crs=UTM31, transform=(10.0, 0, 0.0, 0, -10.0, 0.0))
    finer = Grid(width=10, height=10, crs=UTM31, transform=(7.0, 0, 0.0, 0, -7.0, 0.0))
    warp = Warp(grid, finer, method)  # type: ignore[arg-type]  # one of them
    window = Window(0, 0, 10, 10)
    pixels = np.full((1, 8, 8), value, dtype)
    made = warp.resampled(
        pixels, np.ones(pixels.shape, bool), Window(0, 0, 8, 8), warp.places(window), nodata=0
    )
    assert (made == value).all()


def test_no_converter_is_proposed_for_an_image_of_which_the_grid_counts(tmp_path: Path) -> None:
    """`like` may have any scale; the output then has it, too."""
    smooth_scene(tmp_path / "scene.tif")
    document = pipeline(like="$inputs.scene", ratio="1/2", nodata=0)
    del document["inputs"]["other"]
    document["services"] = {"combined": f"{resolutions.__file__}:combined"}
    document["stages"].append(
        {"id": "c", "process": "combined",
         "inputs": {"fine": "$inputs.scene", "coarse": "$w.image"}}
    )  # fmt: skip
    document["outputs"] = {"image": "$c.image"}
    (tmp_path / "p.json").write_text(json.dumps(document))
    done = pesto("check", str(tmp_path / "p.json"), "-i", f"scene={tmp_path / 'scene.tif'}")
    assert done.returncode == 0, done.stderr
    assert "converts it" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "which grid is wanted"),
        ({"like": "$inputs.other", "crs": UTM32}, "`like` states the grid already"),
        ({"crs": UTM32, "ratio": 2}, "is relative to `like`"),
        ({"like": "$inputs.other", "ratio": "2/3"}, "neither a whole number nor 1/N"),
        ({"crs": UTM32, "resolution": -3}, "must be above 0"),
        ({"crs": UTM32, "resampling": "lanczos"}, "lanczos"),
        ({"crs": UTM32}, "has no nodata, and pixels beyond it need one"),
        ({"crs": UTM32, "nodata": 300}, "nodata 300"),
    ],
)
def test_a_warp_that_has_no_meaning_does_not_check(
    tmp_path: Path, inputs: dict[str, JsonValue], words: str
) -> None:
    """Each error names the input; nothing is computed."""
    for name in ("scene", "other"):
        write_scene(tmp_path / f"{name}.tif", noise(30, 20), crs=UTM31, transform=placed(10))
    given = {"scene": str(tmp_path / "scene.tif")}
    if "like" in inputs:
        given["other"] = str(tmp_path / "other.tif")
    with pytest.raises(InvalidPipeline, match=words):
        run_local(pipeline(**inputs), tmp_path / "out", given)


@pytest.mark.parametrize(
    ("crs", "wanted", "words"),
    [
        (None, UTM32, "has no CRS or no transform"),
        (UTM31, "EPSG:99999999", "EPSG:99999999"),
    ],
)
def test_an_image_without_a_place_is_refused(
    tmp_path: Path, crs: str | None, wanted: str, words: str
) -> None:
    """When the run is planned, with the stage."""
    write_scene(tmp_path / "scene.tif", noise(30, 20), crs=crs, transform=placed(10), nodata=0)
    with pytest.raises(InvalidInput, match=words) as found:
        run_local(pipeline(crs=wanted), tmp_path / "out", {"scene": str(tmp_path / "scene.tif")})
    assert "stage 'w'" in str(found.value)


def test_the_crs_is_an_input_of_the_pipeline(tmp_path: Path) -> None:
    """Its value is known when the run is planned."""
    scene = smooth_scene(tmp_path / "scene.tif")
    document = pipeline(crs="$inputs.crs")
    document["inputs"]["crs"] = "string"
    run_local(document, tmp_path / "out", {"scene": str(scene), "crs": UTM32})
    with rasterio.open(tmp_path / "out" / "image.tif") as product:
        assert product.crs == rasterio.crs.CRS.from_epsg(32632)


def test_landsat_is_pansharpened_with_any_tiles(tmp_path: Path) -> None:
    """The example: the mean of the bands is the panchromatic value, which is half a pixel away."""
    document = json.loads((ROOT / "workflows" / "pansharpen.json").read_text())
    document["services"] = {"pansharpen": f"{ROOT}/examples/pansharpen.py:pansharpen"}
    given = {"colour": str(ROOT / "examples/data/landsat8_cloudy.tif"),
             "panchromatic": str(ROOT / "examples/data/landsat8_pan.tif")}  # fmt: skip
    one = run_local(document, tmp_path / "one", given)
    many = run_local(document, tmp_path / "many", given, tile=200, max_tasks=7)
    assert one.sha256() == many.sha256()
    with rasterio.open(tmp_path / "one" / "image.tif") as product:
        assert (product.shape, product.res) == ((1206, 1254), (15.0, 15.0))
        mean = product.read().mean(axis=0)
    pan = read(ROOT / "examples/data/landsat8_pan.tif")[0].astype("float64")
    # Keys' kernel at half a pixel, by hand: -1/16, 9/16, 9/16, -1/16.
    kernel = np.outer(*[np.array([-1, 9, 9, -1]) / 16] * 2)
    shifted = sum(
        kernel[i, j] * pan[i : i + 1203, j : j + 1250] for i in range(4) for j in range(4)
    )
    # The first whole kernel is that of the pixel 1, 1; its rounding is that of uint16.
    found = mean[1:1204, 1:1251]
    assert np.abs(found - shifted).max() <= 0.51 + 1e-2


def test_the_windows_of_every_tile_are_listed(tmp_path: Path) -> None:
    """A warp names the pixels that it reads of its source, half a pixel and a reach larger."""
    document = ROOT / "workflows" / "pansharpen.json"
    given = ["-i", f"colour={ROOT}/examples/data/landsat8_cloudy.tif",
             "-i", f"panchromatic={ROOT}/examples/data/landsat8_pan.tif"]  # fmt: skip
    listed = pesto("plan", str(document), *given, "--tile", "256", "--tiles").stdout.splitlines()
    tiles = [json.loads(line) for line in listed]
    assert sum(w * h for _, _, w, h in (each["tile"] for each in tiles)) == 627 * 603
    at = next(each for each in tiles if each["tile"][:2] == [256, 256])
    width, height = (2 * side for side in at["tile"][2:])
    assert at["stages"]["sharp"]["reads"]["$grid.image"] == [512, 512, width, height]
    assert at["stages"]["grid"]["makes"] == {"$grid.image": [512, 512, width, height]}
    # Places are 513 to 512.5 + width; cubic reaches two pixels to both sides.
    col, row, cols, rows = at["stages"]["grid"]["reads"]["$inputs.panchromatic"]
    assert (col, row) == (511, 511)
    assert (cols, rows) == (width + 4, height + 4)


def test_a_cache_does_not_move_what_is_warped(tmp_path: Path) -> None:
    """Windows of one scene have other places in its source: nothing is shared, all is right."""
    scene = smooth_scene(tmp_path / "scene.tif", size=(1200, 600))
    stage, cache = pipeline(crs=UTM32, resampling="cubic"), str(tmp_path / "cache")
    texts = [f"{scene}#window={col},0,1100,600" for col in (0, 100)]
    for number, text in enumerate(texts):
        given = {"scene": text}
        cached = run_local(stage, tmp_path / f"cached{number}", given, cache=cache)
        alone = run_local(stage, tmp_path / f"alone{number}", given)
        assert cached.sha256() == alone.sha256()
    again = run_local(stage, tmp_path / "again", {"scene": texts[1]}, cache=cache)
    assert again.tiles[0] == 0


def test_windows_of_its_own_are_for_warp_alone() -> None:
    """Another process with them is refused when its description is read."""
    document = load_processor("pesto_runtime.processor.warping:warp").description.to_json()
    assert Description.parse(document).is_warp
    with pytest.raises(InvalidContract, match="is for the built-in process `warp`"):
        Description.parse({**document, "name": "other"})


def test_a_direct_call_of_warp_names_the_way_out() -> None:
    warp = load_processor("pesto_runtime.processor.warping:warp")
    with pytest.raises(InvalidInput, match="use it as a stage of a pipeline"):
        warp.run({"image": np.zeros((1, 4, 4), "uint8")})


def test_a_flow_warps_by_the_name_of_the_process(tmp_path: Path) -> None:
    """As a pipeline does."""
    scene = smooth_scene(tmp_path / "scene.tif")
    steps = flow(str(scene)).then("warp", crs=UTM32, resampling="cubic").write("image.tif")
    steps.run(tmp_path / "flow")
    stage = pipeline(crs=UTM32, resampling="cubic")
    done = run_local(stage, tmp_path / "out", {"scene": str(scene)})
    assert sha256_of(tmp_path / "flow" / "image.tif") == done.sha256()


def test_a_dag_needs_no_description_of_warp(tmp_path: Path) -> None:
    """Only of other processes; a workflow of Conductor needs none either."""
    target, catalog = f"{ROOT}/examples/pansharpen.py:pansharpen", tmp_path / "catalog"
    assert pesto("discover", target, "--save", str(catalog)).returncode == 0
    workflow = str(ROOT / "workflows" / "pansharpen.json")
    done = pesto("render", workflow, "--engine", "airflow", "--services", str(catalog))
    assert done.returncode == 0, done.stderr
    assert "pansharpen" in done.stdout
    refused = pesto("render", str(ROOT / "workflows" / "cloud_cover.json"), "--engine", "airflow",
                    "--services", str(catalog))  # fmt: skip
    assert "has no description of cloud-cover, cloud-mask, sieve" in refused.stderr
    assert pesto("render", workflow, "--engine", "conductor").returncode == 0


def test_a_window_does_not_cut_what_a_warp_reads(tmp_path: Path) -> None:
    """Whatever the order of the inputs: it counts pixels of the image that stages read as it is."""
    smooth_scene(tmp_path / "scene.tif")
    smooth_scene(tmp_path / "other.tif", transform=placed(20))
    document = pipeline(like="$inputs.other", resampling="cubic")
    (tmp_path / "p.json").write_text(json.dumps(document))
    given = ["-i", f"scene={tmp_path / 'scene.tif'}", "-i", f"other={tmp_path / 'other.tif'}"]
    for name, options in (("all", []), ("cut", ["--window", "30,40,100,90"])):
        done = pesto("run", str(tmp_path / "p.json"), *given, "-o", str(tmp_path / name), *options)
        assert done.returncode == 0, done.stderr
    whole, part = read(tmp_path / "all" / "image.tif"), read(tmp_path / "cut" / "image.tif")
    # Its grid begins elsewhere, so that places have other last bits.
    np.testing.assert_allclose(part, whole[:, 40:130, 30:130], rtol=1e-6)
