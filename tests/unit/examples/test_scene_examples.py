"""The examples on a real Landsat 8 scene: against untiled references, the quality band, tilings."""

import ast
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pesto_runtime.contract import Pipeline, TileInfo, Window
from pesto_runtime.errors import InvalidInput, NothingValid
from pesto_runtime.processor import Processor, check_outputs, fold, load_processor

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
CLEAR, CLOUD, NODATA = 0, 1, 255
EIGHT = np.ones((3, 3), bool)
Tiles = list[Window]


def example(name: str) -> Processor:
    return load_processor(f"{name}.py:{name}", base=EXAMPLES)


@functools.cache
def scene() -> np.ndarray:
    """Blue, green, red and swir22, picked by name."""
    with rasterio.open(EXAMPLES / "data" / "landsat8_cloudy.tif") as file:
        names = ["blue", "green", "red", "swir22"]
        pixels: np.ndarray = file.read([file.descriptions.index(name) + 1 for name in names])
    return pixels


@functools.cache
def usgs_cloud() -> np.ndarray:
    with rasterio.open(EXAMPLES / "data" / "landsat8_bqa.tif") as file:
        return np.asarray(file.read(1) >> 14 == 3)


def reference_cloud_mask(pixels: np.ndarray) -> np.ndarray:
    """The rule once more, with scipy and by another route than the example's."""
    blue, green, red, swir22 = np.float64(2.0e-5) * pixels - 0.1
    visible = np.stack([blue, green, red])
    whiteness = (np.abs(visible - visible.mean(axis=0)) / visible.mean(axis=0)).sum(axis=0)
    candidate = (blue - 0.5 * red - 0.08 > 0) & (whiteness < 0.7) & (swir22 > 0.03)
    around = ndimage.convolve(candidate.astype(int), np.ones((5, 5), int), mode="constant")
    mask = (candidate & (around >= 7)).astype(np.uint8)
    mask[(pixels == 0).all(axis=0)] = NODATA
    return np.asarray(mask[np.newaxis])


def reference_sieve(mask: np.ndarray) -> np.ndarray:
    """Connected components by scipy, on the whole raster."""
    labels, _ = ndimage.label(mask[0] == CLOUD, structure=EIGHT)
    small = np.bincount(labels.ravel()) < 9
    small[0] = False
    return np.where(small[labels], CLEAR, mask[0]).astype(np.uint8)[np.newaxis]


def tiled(processor: Processor, port: str, pixels: np.ndarray, tiles: Tiles, margin: int
          ) -> np.ndarray:  # fmt: skip
    """Run tile by tile: read with the margin inside the scene, trim, put together."""
    _, height, width = pixels.shape
    whole = Window(0, 0, width, height)
    mosaic = np.full((1, height, width), 77, np.uint8)
    for write in tiles:
        wide = Window.spanning(
            write.col_off - margin, write.row_off - margin,
            write.col_stop + margin, write.row_stop + margin,
        ).intersection(whole)  # fmt: skip
        tile = TileInfo(read=wide, write=write, scene_size=(width, height))
        inputs = {port: pixels[:, *wide.slices]}
        outputs = processor.run(inputs, tile=tile)
        check_outputs(processor.description, inputs, outputs)
        cloud = outputs["cloud"]
        assert isinstance(cloud, np.ndarray)
        mosaic[:, *write.slices] = cloud[:, *write.relative_to(wide).slices]
    return mosaic


def guillotine(width: int, height: int, random: np.random.Generator, cuts: int) -> Tiles:
    """Tiles of any sizes that cover the raster once: cut one of them in two, again and again."""
    tiles = [Window(0, 0, width, height)]
    for _ in range(cuts):
        col, row, w, h = tiles.pop(int(random.integers(len(tiles))))
        if w >= h and w > 1:
            at = int(random.integers(1, w))
            tiles += [Window(col, row, at, h), Window(col + at, row, w - at, h)]
        elif h > 1:
            at = int(random.integers(1, h))
            tiles += [Window(col, row, w, at), Window(col, row + at, w, h - at)]
        else:
            tiles.append(Window(col, row, w, h))
    return tiles


def grid(width: int, height: int, size: int) -> Tiles:
    return [
        Window(col, row, min(size, width - col), min(size, height - row))
        for row in range(0, height, size)
        for col in range(0, width, size)
    ]


def cloud_of(processor: Processor, **inputs: object) -> np.ndarray:
    cloud = processor.run(inputs)["cloud"]
    assert isinstance(cloud, np.ndarray)
    return cloud


def f1(mask: np.ndarray, truth: np.ndarray) -> float:
    hits = np.count_nonzero(mask & truth)
    return 2 * hits / (np.count_nonzero(mask) + np.count_nonzero(truth))


def test_the_chain_agrees_with_the_usgs_quality_band():
    """F1 of 0.70 on cloud and 96 % of pixels; the control, an all-clear mask, has F1 0 and 94 %."""
    mask = cloud_of(example("cloud_mask"), scene=scene())
    clean = cloud_of(example("sieve"), mask=mask)
    for found, expected_f1, agreement in [(mask, 0.7151, 0.9674), (clean, 0.7152, 0.9678)]:
        cloudy = found[0] == CLOUD
        assert f1(cloudy, usgs_cloud()) == pytest.approx(expected_f1, abs=1e-4)
        assert (cloudy == usgs_cloud()).mean() == pytest.approx(agreement, abs=1e-4)
    clear = np.zeros_like(usgs_cloud())
    assert f1(clear, usgs_cloud()) == 0
    assert (clear == usgs_cloud()).mean() == pytest.approx(0.9398, abs=1e-4)


def test_cloud_mask_equals_an_untiled_reference():
    """Computed apart, with scipy's convolution and a true division for the whiteness."""
    assert np.array_equal(cloud_of(example("cloud_mask"), scene=scene()),
                          reference_cloud_mask(scene()))  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(deadline=None, derandomize=True, max_examples=12)
def test_cloud_mask_cannot_tell_tiled_from_whole(seed, cuts):
    """With its margin of 2, whatever the tiles; one pixel less differs on this very scene."""
    pixels = scene()
    tiles = guillotine(pixels.shape[2], pixels.shape[1], np.random.default_rng(seed), cuts)
    processor = example("cloud_mask")
    assert np.array_equal(
        tiled(processor, "scene", pixels, tiles, 2), cloud_of(processor, scene=pixels)
    )


@pytest.mark.parametrize("size", [64, 200, 256])
def test_a_margin_of_one_is_too_small_for_cloud_mask(size):
    """The negative control: pixels on the seams change."""
    pixels, processor = scene(), example("cloud_mask")
    tiles = grid(pixels.shape[2], pixels.shape[1], size)
    whole = cloud_of(processor, scene=pixels)
    assert np.array_equal(tiled(processor, "scene", pixels, tiles, 2), whole)
    assert not np.array_equal(tiled(processor, "scene", pixels, tiles, 1), whole)


def test_pixels_without_data_are_not_clear():
    """Zero in all bands where the scene names no nodata, else the scene's own value."""
    processor = example("cloud_mask")
    pixels = scene()[:, :40, :50].copy()
    pixels[:, 3, 4] = 0
    pixels[:3, 5, 6] = 0
    pixels[:, 7, 8] = 9999
    mask = cloud_of(processor, scene=pixels)[0]
    assert [mask[3, 4], mask[5, 6], mask[7, 8]] == [NODATA, CLEAR, CLEAR]
    whole = Window(0, 0, 50, 40)
    tile = TileInfo(read=whole, write=whole, scene_size=(50, 40), nodata=9999)
    mask = processor.run({"scene": pixels}, tile=tile)["cloud"][0]  # type: ignore[index]  # an array
    assert [mask[3, 4], mask[7, 8]] == [CLEAR, NODATA]


def masks(seed: int, density: float, height: int = 40, width: int = 50) -> np.ndarray:
    random = np.random.default_rng(seed)
    mask = (random.random((1, height, width)) < density).astype(np.uint8)
    mask[random.random(mask.shape) < 0.02] = NODATA
    return mask


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_sieve_equals_connected_components_of_the_whole(seed, density):
    """From single pixels to one component through all; 255 passes through and does not connect."""
    mask = masks(seed, density)
    assert np.array_equal(cloud_of(example("sieve"), mask=mask), reference_sieve(mask))


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.35), st.integers(1, 30))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_sieve_cannot_tell_tiled_from_whole(seed, density, cuts):
    """Random masks, random tiles down to one pixel, margin 8."""
    mask = masks(seed, density)
    tiles = guillotine(50, 40, np.random.default_rng(seed), cuts)
    assert np.array_equal(tiled(example("sieve"), "mask", mask, tiles, 8), reference_sieve(mask))


def lines() -> np.ndarray:
    """Straight lines of nine pixels across borders of 16-pixel tiles, and lines of eight."""
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 4, 8:17] = CLOUD
    mask[0, 40:49, 20] = CLOUD
    mask[0, np.arange(24, 33), np.arange(40, 49)] = CLOUD
    mask[0, 60, 10:18] = CLOUD
    return mask


def test_a_margin_of_seven_is_too_small_for_sieve():
    """Nine pixels in a line whose end lies in another tile: with 7, eight of them are seen."""
    mask, processor, tiles = lines(), example("sieve"), grid(64, 64, 16)
    expected = reference_sieve(mask)
    assert np.count_nonzero(expected == CLOUD) == 27
    assert np.array_equal(tiled(processor, "mask", mask, tiles, 8), expected)
    assert not np.array_equal(tiled(processor, "mask", mask, tiles, 7), expected)


def test_cloud_cover_folds_blocks_to_the_fraction_of_the_whole():
    """Integer counts: the blocks do not matter."""
    processor = example("cloud_cover")
    mask = cloud_of(example("cloud_mask"), scene=scene()).copy()
    mask[:, :50] = NODATA
    merged: dict[str, object] = {}
    for block in grid(mask.shape[2], mask.shape[1], 256):
        partial = processor.partial({"mask": mask[:, *block.slices]})
        merged = fold(merged, partial, processor.description.folds)
    expected = np.count_nonzero(mask == CLOUD) / np.count_nonzero(mask != NODATA)
    assert processor.finish(merged) == {"fraction": expected}
    assert processor.run({"mask": mask}) == {"fraction": expected}


def test_cloud_cover_of_nothing_valid_refuses_by_name():
    """A fraction of no pixels is no number."""
    with pytest.raises(NothingValid, match="cloud-cover: the mask has no valid pixel"):
        example("cloud_cover").run({"mask": np.full((1, 4, 4), NODATA, np.uint8)})


def test_verdict_works_without_an_image():
    """Its limit has a default; a fraction is between 0 and 1."""
    processor = example("verdict")
    assert processor.run({"fraction": 0.31}) == {"verdict": "cloudy"}
    assert processor.run({"fraction": 0.31, "limit": 0.5}) == {"verdict": "usable"}
    with pytest.raises(InvalidInput, match="/fraction"):
        processor.run({"fraction": 1.5})


def test_the_examples_declare_what_a_planner_needs():
    """Margins 2 and 8, a reduce, and one process that takes no image."""
    told = {
        name: (each.tileable, each.margin.to_json(), len(each.image_inputs))
        for name in ("cloud_mask", "sieve", "cloud_cover", "verdict")
        for each in [example(name).description]
    }
    assert told == {
        "cloud_mask": ("map", 2, 1), "sieve": ("map", 8, 1), "cloud_cover": ("reduce", 0, 1),
        "verdict": ("whole", 0, 0),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cloud_cover", "cloud_boxes"])
def test_the_workflow_binds_ports_that_the_examples_have(name):
    """Service targets are relative to the file; every input and output exists."""
    file = ROOT / "workflows" / f"{name}.json"
    pipeline = Pipeline.model_validate(json.loads(file.read_text()))
    for process, target in json.loads(file.read_text())["services"].items():
        description = load_processor(target, base=file.parent).description
        assert description.name == process
        for stage in pipeline.stages:
            if stage.process == process:
                assert all(description.input(port) for port in stage.inputs)


def test_examples_are_short_and_do_no_io():
    """Under 60 lines, numpy and the runtime only, no call that opens anything."""
    for file in set(EXAMPLES.glob("*.py")) - {EXAMPLES / "demo.py"}:
        text = file.read_text()
        assert len(text.splitlines()) < 60, file.name
        tree = ast.parse(text)
        imported = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
        }
        roots = {name.partition(".")[0] for name in imported}
        assert roots <= {"typing", "numpy", "pydantic", "pesto_runtime"}, file.name
        assert not {"open", "load", "save", "fromfile"} & {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(tree)
            if isinstance(node, (ast.Name, ast.Attribute))
        }, file.name
