"""Networks that require multiples of 32, or one size: every tile size gives the same pixels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.errors import ContractBroken, InvalidInput, RunFailed
from pesto_runtime.run.single_call import call_once
from tests.support import networks
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.runs import Done, Settings

SIZES = [(211, 137), (64, 96), (33, 31), (5, 70), (1, 1)]


def network(name: str) -> dict[str, JsonValue]:
    """A pipeline of one network."""
    return {
        "name": "network",
        "inputs": {"scene": "image"},
        "services": {name: f"{networks.__file__}:{name.replace('-', '_')}"},
        "stages": [{"id": "net", "process": name, "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$net.image"},
    }


def run(name: str, folder: Path, pixels: np.ndarray, **settings: object) -> Done:
    scene = write_scene(folder.with_suffix(".tif"), pixels)
    return run_local(network(name), folder, {"scene": scene}, **settings)  # type: ignore[arg-type]


def padded(pixels: np.ndarray, to: int, **how: object) -> np.ndarray:
    """The pixels (row, col), extended by numpy at the far edges to a multiple."""
    rows, cols = pixels.shape
    return np.pad(pixels, ((0, -rows % to), (0, -cols % to)), **how)  # type: ignore[call-overload,no-any-return]


def scored(pixels: np.ndarray) -> np.ndarray:
    """What the U-Net gives for the whole scene, extended and trimmed by hand."""
    rows, cols = pixels.shape
    return networks.u_net(padded(pixels, 32, mode="reflect"))[:rows, :cols]


@pytest.mark.parametrize("tile", [160, 512, 2048])
def test_a_network_gives_the_same_pixels_for_every_tile(tmp_path: Path, tile: int) -> None:
    """A scene of 1403 x 977, no side a multiple of 32; tiled and untiled as numpy has it."""
    pixels = noise(1403, 977)
    done = run("unet", tmp_path / "out", pixels, tile=tile)
    assert np.array_equal(done.pixels()[0], scored(pixels[0]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [32, 64, 1024])
def test_a_scene_of_any_size_is_extended_and_trimmed(
    tmp_path: Path, size: tuple[int, int], tile: int
) -> None:
    """Also a scene smaller than a window, where the mirror is mirrored again."""
    pixels = noise(*size)
    done = run("unet", tmp_path / "out", pixels, tile=tile)
    assert np.array_equal(done.pixels()[0], scored(pixels[0]))


def test_a_margin_that_is_too_small_shows(tmp_path: Path) -> None:
    """Negative control: half the margin gives other pixels, and `--verify` finds it."""
    pixels = noise(300, 200)
    wrong = run("unet-short", tmp_path / "a", pixels, tile=64)
    assert not np.array_equal(wrong.pixels()[0], scored(pixels[0]))
    right = run("unet", tmp_path / "b", pixels, tile=64, verify_tiles=4)
    assert np.array_equal(right.pixels()[0], scored(pixels[0]))
    with pytest.raises(ContractBroken, match="doubled margin"):
        run("unet-short", tmp_path / "c", pixels, tile=64, verify_tiles=40)


def test_an_error_at_the_far_edge_names_the_way_out(tmp_path: Path) -> None:
    """A contract without `fill` gives windows that are not multiples of 32."""
    with pytest.raises(RunFailed, match=r"not divisible by 32.*align 32.*`fill`"):
        run("unet-unfilled", tmp_path / "out", noise(70, 90))


@pytest.mark.parametrize("size", [*SIZES, (97, 96), (400, 333)])
@pytest.mark.parametrize("tile", [None, 64, 16, 7])
def test_windows_of_one_size_give_the_same_pixels_for_every_tile(
    tmp_path: Path, size: tuple[int, int], tile: int | None
) -> None:
    """The process refuses any other size; the scene is extended only where it is smaller."""
    pixels = noise(*size)
    settings: Settings = {"tile": tile, "max_tasks": 3}
    done = run("fixed", tmp_path / "out", pixels, **settings)
    cols, rows = size
    whole = np.pad(pixels[0], ((0, max(0, 96 - rows)), (0, max(0, 96 - cols))), constant_values=3)
    assert np.array_equal(done.pixels()[0], networks.windowed(whole)[:rows, :cols])


def test_the_largest_tile_that_leaves_room_for_the_margin_is_planned(tmp_path: Path) -> None:
    """Windows of 96 with margins of 16 make 64 pixels; a wanted tile of 80 is refused."""
    pixels = noise(500, 400)
    done = run("fixed", tmp_path / "a", pixels, tile=None, max_tasks=1)
    assert done.tiles == (8 * 7, 0, 0)
    with pytest.raises(InvalidInput, match=r"tiles of 80 x 80.*net at most 96 pixels"):
        run("fixed", tmp_path / "b", pixels, tile=80)


def test_verify_compares_windows_of_one_size(tmp_path: Path) -> None:
    """A margin one pixel too small is found; the right one passes."""
    pixels = noise(500, 400)
    run("fixed", tmp_path / "a", pixels, tile=None, verify_tiles=9)
    with pytest.raises(ContractBroken, match="doubled margin"):
        run("fixed-short", tmp_path / "b", pixels, tile=None, verify_tiles=9)


@pytest.mark.parametrize("size", [(300, 200), (41, 47), (40, 39), (2, 90)])
@pytest.mark.parametrize("tile", [6, 30, 1024])
def test_a_smallest_size_is_kept(tmp_path: Path, size: tuple[int, int], tile: int) -> None:
    """Windows grow into the scene where there is one, and the scene grows where it is smaller."""
    pixels = noise(*size)
    done = run("at-least", tmp_path / "out", pixels, tile=tile)
    cols, rows = size
    sides = [(0, -(-max(n, 42 if n < 40 else n) // 3) * 3 - n) for n in (rows, cols)]
    whole = np.pad(pixels[0], sides, mode="edge")
    assert np.array_equal(done.pixels()[0], networks.windowed(whole, 2)[:rows, :cols])


@pytest.mark.parametrize("tile", [8, 56, 1024])
def test_scales_vectors_and_several_images_are_in_their_place(tmp_path: Path, tile: int) -> None:
    """Points found in pixels that were added are dropped; those of the scene stay in place."""
    pixels, other = noise(101, 67), noise(101, 67, seed=1)
    pixels[0, [0, 30, 66, 66], [0, 50, 100, 3]] = 255
    document = network("enlarged")
    document["inputs"] = {"scene": "image", "other": "image"}
    document["stages"][0]["inputs"]["other"] = "$inputs.other"  # type: ignore[call-overload,index]
    document["outputs"] = {"image": "$net.image", "points": "$net.points"}
    given = {
        "scene": write_scene(tmp_path / "s.tif", pixels, transform=None, crs=None),
        "other": write_scene(tmp_path / "o.tif", other, transform=None, crs=None),
    }
    done = run_local(document, tmp_path / "out", given, tile=tile)
    whole = padded(np.maximum(pixels, other)[0], 8, mode="edge")
    cells = whole.reshape(9, 8, 13, 8).max((1, 3))
    assert np.array_equal(done.pixels()[0], cells.repeat(16, 0).repeat(16, 1)[:134, :202])
    points = json.loads((done.folder / "points.geojson").read_text())["features"]
    found = {tuple(each["geometry"]["coordinates"]) for each in points}
    assert len(points) == 4
    # A scale of 2: points are in the grid of the image, and without a transform stay there.
    assert found == {(1, 1), (101, 61), (201, 133), (7, 133)}


def test_one_call_of_a_whole_image_is_extended_too(tmp_path: Path) -> None:
    """`pesto process` gives the pixels of the run; one fixed size sends larger images to a run."""
    pixels = noise(211, 137)
    scene = write_scene(tmp_path / "s.tif", pixels)
    call_once(
        f"{networks.__file__}:unet", {"image": str(scene)}, keep={"image": tmp_path / "o.tif"}
    )
    assert np.array_equal(pixels_of(tmp_path / "o.tif")[0], scored(pixels[0]))
    small = write_scene(tmp_path / "small.tif", pixels[:, :50, :70])
    target, keep = f"{networks.__file__}:fixed", {"image": tmp_path / "f.tif"}
    call_once(target, {"image": str(small)}, keep=keep)
    whole = np.pad(pixels[0, :50, :70], ((0, 46), (0, 26)), constant_values=3)
    assert np.array_equal(pixels_of(tmp_path / "f.tif")[0], networks.windowed(whole)[:50, :70])
    with pytest.raises(InvalidInput, match=r"96 x 96 pixels, not 211 x 137.*pesto run"):
        call_once(target, {"image": str(scene)}, keep=keep)
