"""Chains of every shape on the embedded engine: tiled is what the whole raster would have given."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from scipy import ndimage

from tests.support.rasters import UTM, noise, write_scene
from tests.support.runs import chain, pipeline, run_local, stage

WIDTH, HEIGHT = 700, 600
PIXELS = noise(WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "s.tif", PIXELS)


def grown(pixels: np.ndarray, radius: int) -> np.ndarray:
    """Maximum over a square, by scipy, nothing beyond the edges."""
    side = 2 * radius + 1
    return np.asarray(ndimage.maximum_filter(pixels, (1, side, side), mode="constant"))


@pytest.mark.parametrize("tile", [64, 200, 1024])
def test_margins_add_up_along_a_chain(tmp_path: Path, scene: Path, tile: int) -> None:
    """Three filters of margin 1 are one of margin 3, wherever the tiles meet."""
    done = run_local(chain("grow", "grow", "grow"), tmp_path / "out", {"scene": scene}, tile=tile)
    assert np.array_equal(done.pixels(), grown(PIXELS, 3))


def test_a_margin_larger_than_the_tile_is_read_all_the_same(tmp_path: Path, scene: Path) -> None:
    """Margin 40 around tiles of 32; a contract that says 39 (control) gives other pixels."""
    sparse = np.zeros_like(PIXELS)
    sparse[0, 3::97, 2::89] = 200
    path = write_scene(tmp_path / "s.tif", sparse)
    right = run_local(chain("grow_far"), tmp_path / "a", {"scene": path}, tile=32)
    wrong = run_local(chain("grow_short"), tmp_path / "b", {"scene": path}, tile=32)
    assert np.array_equal(right.pixels(), grown(sparse, 40))
    assert not np.array_equal(wrong.pixels(), grown(sparse, 40))


def test_a_margin_larger_than_the_scene_is_cut_off_at_its_edges(tmp_path: Path) -> None:
    """A scene of 30 x 20 under a margin of 40."""
    pixels = noise(30, 20)
    path = write_scene(tmp_path / "s.tif", pixels)
    done = run_local(chain("grow_far"), tmp_path / "out", {"scene": path}, tile=7)
    assert np.array_equal(done.pixels(), grown(pixels, 40))


def test_a_margin_on_one_side_is_read_on_that_side(tmp_path: Path, scene: Path) -> None:
    """Three pixels to the right, none anywhere else."""
    done = run_local(chain("look_right"), tmp_path / "out", {"scene": scene}, tile=64)
    padded = np.pad(PIXELS, ((0, 0), (0, 0), (0, 3)))
    expected = np.max([padded[:, :, x : x + WIDTH] for x in range(4)], axis=0)
    assert np.array_equal(done.pixels(), expected)


@pytest.mark.parametrize("tile", [64, 201, 1024])
def test_a_reflected_edge_is_what_numpy_reflects(tmp_path: Path, scene: Path, tile: int) -> None:
    """The process sees a mirror beyond the scene; with zeros there (control) the answer differs."""
    done = run_local(chain("soften"), tmp_path / "out", {"scene": scene}, tile=tile)
    wide = PIXELS[0].astype(np.uint16)
    kernel = np.ones((5, 5), np.uint16)
    mirrored = ndimage.convolve(wide, kernel, mode="mirror")
    zeros = ndimage.convolve(wide, kernel, mode="constant")
    assert np.array_equal(done.pixels()[0], mirrored)
    assert not np.array_equal(done.pixels()[0], zeros)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5), (3, 2)])
def test_a_mirror_of_a_scene_smaller_than_the_margin_is_numpys(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """It is mirrored again and again, as `np.pad` does."""
    pixels = noise(*size)
    path = write_scene(tmp_path / "s.tif", pixels)
    done = run_local(chain("soften"), tmp_path / "out", {"scene": path}, tile=1)
    padded = np.pad(pixels[0].astype(int), 2, mode="reflect")
    rows, cols = pixels.shape[1:]
    shifts = [padded[y : y + rows, x : x + cols] for y in range(5) for x in range(5)]
    assert np.array_equal(done.pixels()[0], np.sum(shifts, axis=0))


@pytest.mark.parametrize("tile", [64, 201, 1024])
def test_twice_the_pixels_come_in_their_place(tmp_path: Path, scene: Path, tile: int) -> None:
    """A scale of 2 after a filter: the product's grid and transform are twice as fine."""
    done = run_local(chain("grow", "enlarge"), tmp_path / "out", {"scene": scene}, tile=tile)
    expected = grown(PIXELS, 1).repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(done.pixels(), expected)
    with rasterio.open(done.folder / "image.tif") as made:
        assert tuple(made.transform)[:6] == (15.0, 0.0, UTM[2], 0.0, -15.0, UTM[5])


@pytest.mark.parametrize("tile", [64, 201, 1024])
def test_a_quarter_of_the_pixels_come_in_their_place(tmp_path: Path, tile: int) -> None:
    """A scale of 1/4 between two filters; the three last columns make no whole pixel."""
    pixels = noise(703, 601)
    path = write_scene(tmp_path / "s.tif", pixels)
    document = chain("grow", "shrink", "grow")
    done = run_local(document, tmp_path / "out", {"scene": path}, tile=tile)
    cells = grown(pixels, 1)[:, :600, :700].reshape(1, 150, 4, 175, 4).max(axis=(2, 4))
    assert np.array_equal(done.pixels(), grown(cells, 1))


@pytest.mark.parametrize("tile", [60, 201])
def test_windows_begin_where_the_contract_aligns_them(
    tmp_path: Path, scene: Path, tile: int
) -> None:
    """Cells of 8 x 8 before a filter whose margin would cut them; the process asserts it too."""
    done = run_local(chain("tops", "grow"), tmp_path / "out", {"scene": scene}, tile=tile)
    wide = np.pad(PIXELS[0], ((0, -HEIGHT % 8), (0, -WIDTH % 8)))
    cells = wide.reshape(wide.shape[0] // 8, 8, wide.shape[1] // 8, 8).max(axis=(1, 3))
    tops = cells.repeat(8, axis=0).repeat(8, axis=1)[np.newaxis, :HEIGHT, :WIDTH]
    assert np.array_equal(done.pixels(), grown(tops, 1))


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_map_then_reduce_then_map_uses_the_number_of_the_whole_scene(
    tmp_path: Path, scene: Path, executor: str
) -> None:
    """The mean of the filtered scene is a parameter of the next map, not a tile's (control)."""
    document = pipeline(
        stage("grown", "grow", image="$inputs.scene"),
        stage("mean", "mean", image="$grown.image"),
        stage("above", "above", image="$grown.image", level="$mean.mean"),
        outputs={"image": "$above.image", "mean": "$mean.mean"},
    )
    done = run_local(document, tmp_path / "out", {"scene": scene}, executor=executor)  # type: ignore[arg-type]  # parametrised
    expected = grown(PIXELS, 1)
    assert done.value("mean") == expected.mean()
    assert np.array_equal(done.pixels(), (expected > expected.mean()).astype(np.uint8))
    assert expected[:, :200, :200].mean() != expected.mean()
    assert [phase["kind"] for phase in done.result["phases"]] == ["map", "map"]  # type: ignore[index,union-attr,call-overload]  # JSON


def test_a_whole_stage_sees_the_whole_raster(tmp_path: Path, scene: Path) -> None:
    """Between two maps: its values spread over the extremes of the whole raster."""
    done = run_local(chain("grow", "rank", "grow"), tmp_path / "out", {"scene": scene})
    first = grown(PIXELS, 1).astype(int)
    spread = (first - first.min()) * 255 // (first.max() - first.min())
    assert np.array_equal(done.pixels(), grown(spread.astype(np.uint8), 1))


def test_a_stage_without_images_is_called_once_with_what_came_before(
    tmp_path: Path, scene: Path
) -> None:
    """`verdict` of the examples, fed by a number of this run."""
    document = pipeline(
        stage("mean", "mean", image="$inputs.scene"),
        stage("verdict", "verdict", fraction=0.4, limit="$inputs.limit"),
        outputs={"verdict": "$verdict.verdict", "mean": "$mean.mean"},
        scene="image",
        limit="number",
    )
    document["services"]["verdict"] = "../examples/verdict.py:verdict"  # type: ignore[index,call-overload]  # JSON
    strict = run_local(document, tmp_path / "a", {"scene": scene, "limit": 0.3})
    loose = run_local(document, tmp_path / "b", {"scene": scene, "limit": 0.5})
    assert (strict.value("verdict"), loose.value("verdict")) == ("cloudy", "usable")
    assert (tmp_path / "a" / "verdict.json").read_text() == '"cloudy"\n'


def test_several_inputs_several_outputs_and_a_branch_meet_again(
    tmp_path: Path, scene: Path
) -> None:
    """One scene splits in two, one half is filtered, and both are added to a second scene."""
    other = noise(WIDTH, HEIGHT, seed=3)
    document = pipeline(
        stage("split", "split", image="$inputs.scene"),
        stage("wide", "grow", image="$split.high"),
        stage("both", "add", first="$wide.image", second="$split.low"),
        stage("sum", "add", first="$both.image", second="$inputs.other"),
        outputs={"image": "$sum.image", "high": "$split.high", "wide": "$wide.image"},
        scene="image",
        other="image",
    )
    given = {"scene": scene, "other": write_scene(tmp_path / "o.tif", other)}
    done = run_local(document, tmp_path / "out", given)
    wide = grown(PIXELS >> 4, 1)
    assert np.array_equal(done.pixels(), wide + (PIXELS & 15) + other)
    assert np.array_equal(done.pixels("high"), PIXELS >> 4)
    assert np.array_equal(done.pixels("wide"), wide)
    assert done.result["chunks"] == 4


@pytest.mark.parametrize("size", [(1, 1), (1, 600), (600, 1)])
def test_one_pixel_wide_is_a_scene_like_any_other(tmp_path: Path, size: tuple[int, int]) -> None:
    """Normal, not an error."""
    pixels = noise(*size)
    path = write_scene(tmp_path / "s.tif", pixels)
    done = run_local(chain("grow", "grow"), tmp_path / "out", {"scene": path})
    assert np.array_equal(done.pixels(), grown(pixels, 2))
    assert done.result["status"] == "COMPLETE"


def test_no_crs_is_a_warning_and_the_product_has_none_either(tmp_path: Path) -> None:
    """Normal, not an error; a scene with a CRS (control) warns of nothing."""
    bare = write_scene(tmp_path / "s.tif", noise(30, 20), crs=None, transform=None)
    placed = write_scene(tmp_path / "p.tif", noise(30, 20))
    done = run_local(chain("grow"), tmp_path / "a", {"scene": bare})
    control = run_local(chain("grow"), tmp_path / "b", {"scene": placed})
    assert "no CRS" in str(done.result["warnings"])
    assert control.result["warnings"] == []
    with rasterio.open(tmp_path / "a" / "image.tif") as made:
        assert made.crs is None
        assert made.transform.is_identity


def test_the_first_scenes_place_and_tags_and_the_ports_bands_are_the_products(
    tmp_path: Path,
) -> None:
    """Points, domains and all; band facts are the port's own, never the input's."""
    points = [
        GroundControlPoint(row=row, col=col, x=10.0 + col, y=50.0 - row)
        for row, col in ((0, 0), (0, 29), (19, 0))
    ]
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=20, count=1, dtype="uint8", nodata=9
    ) as scene:
        scene.write(noise(30, 20))
        scene.set_band_description(1, "grey")
        scene.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
        scene.update_tags(SENSOR="OLI")
        scene.update_tags(ns="IMAGERY", CLOUDCOVER="5.3")
        scene.update_tags(1, ORIGIN="input")

    done = run_local(chain("soften"), tmp_path / "out", {"scene": path})

    with rasterio.open(done.folder / "image.tif") as made:
        found, crs = made.gcps
        assert [(p.row, p.col, p.x, p.y) for p in found] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]
        assert crs.to_epsg() == 4326
        assert made.tags()["SENSOR"] == "OLI"
        assert made.tags(ns="IMAGERY") == {"CLOUDCOVER": "5.3"}
        assert made.descriptions == ("sum",)
        assert made.nodata is None
        assert "ORIGIN" not in made.tags(1)
