"""Overlapping windows of a network of one size are blended: no tile is seen, no window either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import pytest

from pesto_runtime import Blend, Raster, Vector, Window, process
from pesto_runtime.errors import ContractBroken, InvalidContract, InvalidInput
from pesto_runtime.processor import TileInfo, load_processor
from tests.support import networks
from tests.support.commands import served
from tests.support.rasters import noise, write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.runs import Done

Score = Annotated[np.ndarray, Raster(name="score", bands=["score"], dtype="float32")]


def run(name: str, folder: Path, pixels: np.ndarray, *, at: str = "", **settings: object) -> Done:
    scene = write_scene(folder.with_suffix(".tif"), pixels)
    process = name.replace("_", "-")
    pipeline = {
        "name": "blend",
        "inputs": {"scene": "image"},
        "services": {process: at or f"{networks.__file__}:{name}"},
        "stages": [{"id": "net", "process": process, "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$net.image"},
    }
    return run_local(pipeline, folder, {"scene": scene}, **settings)  # type: ignore[arg-type]  # as given


def mean_of_windows(
    pixels: np.ndarray, blend: Blend, profile: Callable[[int], np.ndarray]
) -> np.ndarray:
    """All windows of the scene, mirrored by one window around it, each pixel by its definition."""
    rows, cols = pixels.shape
    step, size = blend.size - blend.overlap, blend.size
    before = step * 4 * size  # a multiple of the step, and more than a window
    around = np.pad(pixels, size, mode="reflect")
    total, weights = np.zeros(around.shape), np.zeros(around.shape)
    weight = np.outer(profile(size), profile(size))
    for top in range(-before, rows + size, step):
        for left in range(-before, cols + size, step):
            y, x = top + size, left + size
            if y < 0 or x < 0 or y + size > around.shape[0] or x + size > around.shape[1]:
                continue
            window = networks.window_dependent(around[y : y + size, x : x + size])
            total[y : y + size, x : x + size] += window * weight
            weights[y : y + size, x : x + size] += weight
    inside = (slice(size, size + rows), slice(size, size + cols))
    return np.asarray(total[inside] / weights[inside])


def hann(count: int) -> np.ndarray:
    """As 1 minus a cosine, another form of the same window."""
    return np.array([0.5 - 0.5 * np.cos(2 * np.pi * (n + 0.5) / count) for n in range(count)])


@pytest.mark.parametrize("size", [(300, 211), (56, 28), (57, 49), (70, 48)])
def test_each_pixel_is_the_mean_of_the_windows_of_the_scene(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """By numpy over the whole scene; and the same bytes for every tile, process and service."""
    pixels = noise(*size)
    expected = mean_of_windows(pixels[0], networks.BLEND, hann)
    whole = run("blended", tmp_path / "whole", pixels, tile=1024)
    assert np.allclose(whole.pixels()[0], expected, rtol=0, atol=1e-4)
    sums = {run("blended", tmp_path / str(n), pixels, tile=n).sha256() for n in (28, 90, 140)}
    assert sums == {whole.sha256()}


def test_windows_are_the_same_in_processes_and_services(tmp_path: Path) -> None:
    """Other tiles there."""
    pixels = noise(300, 211)
    here = run("blended", tmp_path / "here", pixels, tile=200)
    there = run("blended", tmp_path / "there", pixels, tile=90, executor="processes")
    with served(f"{networks.__file__}:blended") as url:
        remote = run("blended", tmp_path / "remote", pixels, at=url, tile=150)
    assert {there.sha256(), remote.sha256()} == {here.sha256()}


def test_without_blending_tiles_are_seen(tmp_path: Path) -> None:
    """The control: the algorithm of these tests depends on the window that it receives."""
    pixels = noise(300, 211)
    small = run("not_blended", tmp_path / "small", pixels, tile=140)
    large = run("not_blended", tmp_path / "large", pixels, tile=1024)
    assert not np.array_equal(small.pixels(), large.pixels())


def test_a_scene_smaller_than_a_window_is_mirrored(tmp_path: Path) -> None:
    """One pixel too: it minus its mean is 0."""
    small = run("blended", tmp_path / "small", noise(5, 7), tile=512).pixels()
    assert small.shape == (1, 7, 5)
    assert np.isfinite(small).all()
    assert run("blended", tmp_path / "one", noise(1, 1), tile=512).pixels() == 0


@pytest.mark.parametrize("name", ["blended", "blended_larger"])
def test_a_call_of_a_whole_image_gives_the_pixels_of_a_run(tmp_path: Path, name: str) -> None:
    """Without a tile, the process mirrors the image itself."""
    pixels = noise(130, 111)
    processor = load_processor(f"{networks.__file__}:{name}")
    called = np.asarray(processor.run({"image": pixels})["image"])
    assert np.array_equal(called, run(name, tmp_path / "run", pixels, tile=90).pixels())


def test_outputs_may_be_larger_than_windows(tmp_path: Path) -> None:
    """Two bands of four pixels each, weights of a triangle, four windows over each axis."""
    pixels = noise(130, 111)
    done = run("blended_larger", tmp_path / "a", pixels, tile=64)
    assert done.sha256() == run("blended_larger", tmp_path / "b", pixels, tile=512).sha256()
    starts = done.pixels()[1]
    # Pixel 100 of the output is pixel 50 of the scene: windows from 20, 30, 40 and 50.
    triangle = {start: min(n := 100 - 2 * start + 0.5, 80 - n) for start in (20, 30, 40, 50)}
    mean = sum(start * weight for start, weight in triangle.items()) / sum(triangle.values())
    assert np.allclose(starts[:, 100], mean)


def test_nodata_of_a_window_does_not_count(tmp_path: Path) -> None:
    """-1 and NaN have no weight: what is left is 1 or nothing, never a mean with -1."""
    pixels = noise(100, 90)
    score = run("blended_valid", tmp_path / "out", pixels, tile=64).pixels()[0]
    assert np.array_equal(score, np.where(pixels[0] > 100, np.float32(1), np.float32(-1)))


def test_a_tile_that_splits_a_window_is_refused() -> None:
    """A caller that states a place must state one of the contract."""
    processor = load_processor(f"{networks.__file__}:blended")
    read = Window(3, 0, 84, 56)
    tile = TileInfo(read=read, write=read, scene_size=(300, 300))
    with pytest.raises(InvalidInput, match=r"multiples of 28 pixels, and the tile \[3, 0"):
        processor.run({"image": noise(84, 56)}, tile=tile)


def test_images_of_two_sizes_are_refused() -> None:
    """Both sizes are named."""
    processor = load_processor(f"{networks.__file__}:blended_valid")
    with pytest.raises(InvalidInput, match=r"'valid' has 20 rows and 30 columns"):
        processor.run({"image": noise(84, 56), "valid": noise(30, 20)})


def test_outputs_of_a_window_fit_the_contract(tmp_path: Path) -> None:
    """Rows that are missing are named, not blended."""
    file = tmp_path / "short.py"
    file.write_text(
        "from typing import Annotated\n"
        "import numpy as np\n"
        "from pesto_runtime import Blend, Raster, process\n\n\n"
        '@process(version="1", blend=Blend(size=48, overlap=20))\n'
        "def blended(image: Annotated[np.ndarray, Raster(dtype='uint8')]) -> "
        "Annotated[np.ndarray, Raster(name='image', bands=1, dtype='float32')]:\n"
        '    """Return too few rows."""\n'
        "    return image[:, 1:].astype('float32')\n"
    )
    with pytest.raises(ContractBroken, match=r"must have 48 rows and 48 columns.*got 47"):
        run("blended", tmp_path / "out", noise(100, 90), at=f"{file}:blended")


def made(blend: object, kind: object = Score, **options: object) -> None:
    def score(image: np.ndarray) -> object: ...

    score.__annotations__ = {"image": np.ndarray, "return": kind}
    process(version="1", blend=blend, **options)(score)  # type: ignore[call-overload]  # wrong on purpose


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Blend(size=32, overlap=0), "overlap 0 must be 1 to size - 1"),
        (lambda: Blend(size=32, overlap=32), "overlap 32 must be 1 to size - 1"),
        (lambda: Blend(size=32, overlap=8, profile="box"), "profile 'box' is not one of"),  # type: ignore[arg-type]
        (lambda: made({"size": 3}), r"blend must be Blend\(size=..., overlap=...\)"),
        (lambda: made(Blend(32, 8), margin=3), "blend determines margin: remove it"),
        (lambda: made(Blend(32, 8), tileable="whole"), "blend is for a map"),
        (
            lambda: made(Blend(32, 8), Annotated[np.ndarray, Raster(name="c", dtype="uint8")]),
            "output 'c' is not an image with dtype float32 or float64: return scores",
        ),
        (
            lambda: made(Blend(32, 8), Annotated[np.ndarray, Raster(name="c")]),
            "output 'c' is not an image with dtype float32",
        ),
        (
            lambda: made(Blend(32, 8), Annotated[dict, Vector(name="ships")]),
            "output 'ships' is not an image",
        ),
        (
            lambda: made(
                Blend(30, 7),
                Annotated[np.ndarray, Raster(name="c", dtype="float32", scale="1/2")],
            ),
            "23 pixels times the scale of the outputs is not a whole number",
        ),
    ],
)
def test_a_blend_without_a_meaning_is_refused(declare: Callable[[], object], message: str) -> None:
    """When the function is declared."""
    with pytest.raises(InvalidContract, match=message):
        declare()
