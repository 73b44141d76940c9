"""Assembling: tiles of any size become blocks; every pixel is written once, none is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Window
from pesto_runtime.errors import ContractBroken
from pesto_runtime.run.assembling import Block, BlockAssembler, without
from pesto_runtime.tiling import blocks_of, blocks_touching, tiles_of, whole
from tests.support.rasters import noise


def assembler(size: tuple[int, int], **facts: object) -> BlockAssembler:
    arguments: dict[str, object] = {"dtype": "uint8", "nodata": 255, **facts}
    return BlockAssembler("$s.image", size, set(blocks_of(size)), **arguments)  # type: ignore[arg-type]  # as given


def put_together(blocks: list[Block], size: tuple[int, int]) -> np.ndarray:
    made = np.full((1, size[1], size[0]), 77, np.uint8)
    for block in blocks:
        made[(slice(None), *block.window.slices)] = block.pixels
    return made


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 1100), st.integers(1, 1100)),
    tile=st.tuples(st.integers(150, 1200), st.integers(150, 1200)),
    seed=st.integers(0, 5),
)
def test_tiles_of_any_size_and_order_become_the_raster(
    size: tuple[int, int], tile: tuple[int, int], seed: int
) -> None:
    """Each block leaves once, when its last pixel is there, and no memory stays in use."""
    pixels = noise(*size, seed=seed)
    collecting = assembler(size)
    tiles = list(tiles_of(whole(size), tile))
    order = np.random.default_rng(seed).permutation(len(tiles))
    blocks = [
        block
        for number in order
        for block in collecting.add(tiles[number], pixels[(slice(None), *tiles[number].slices)])
    ]
    assert sorted(block.index for block in blocks) == list(blocks_of(size))
    assert np.array_equal(put_together(blocks, size), pixels)
    assert not collecting.wanted


def test_a_tile_that_never_came_keeps_its_blocks_back() -> None:
    """The control of the test above: no block leaves with a pixel missing."""
    size = (1024, 512)
    pixels = noise(*size)
    collecting = assembler(size)
    tiles = list(tiles_of(whole(size), (200, 200)))[1:]
    blocks = [
        block
        for tile in tiles
        for block in collecting.add(tile, pixels[(slice(None), *tile.slices)])
    ]
    assert [block.index for block in blocks] == [(0, 1)]


def test_pixels_of_blocks_that_are_there_already_are_let_go() -> None:
    """A tile may touch a block that an earlier run made."""
    collecting = BlockAssembler("$s.image", (1024, 512), {(0, 1)}, "uint8", None)
    assert not collecting.wants(Window(0, 0, 512, 512))
    assert collecting.wants(Window(500, 0, 100, 10))
    blocks = list(collecting.add(Window(0, 0, 1024, 512), noise(1024, 512)))
    assert [block.index for block in blocks] == [(0, 1)]


@pytest.mark.parametrize(("nodata", "fill"), [(255, 255), (None, 0)])
def test_a_failed_tile_is_a_hole_in_each_of_its_blocks(nodata: float | None, fill: int) -> None:
    """Two blocks share it: both have a hole, with nodata there and the rest as it is."""
    size = (1024, 10)
    pixels = noise(*size)
    collecting = assembler(size, nodata=nodata)
    tile = Window(500, 0, 24, 10)
    blocks = list(collecting.add_hole(tile, bands=1))
    for window in (Window(0, 0, 500, 10), Window(524, 0, 500, 10)):
        blocks += collecting.add(window, pixels[(slice(None), *window.slices)])
    assert {block.index: block.has_hole for block in blocks} == {(0, 0): True, (0, 1): True}
    expected = pixels.copy()
    expected[:, :, 500:524] = fill
    assert np.array_equal(put_together(blocks, size), expected)
    assert set(blocks_touching(tile)) == {(0, 0), (0, 1)}


def test_a_dtype_that_the_contract_does_not_say_is_refused() -> None:
    """Casting in silence would hide a broken contract."""
    with pytest.raises(ContractBroken, match=r"\$s.image must be uint8.*float32"):
        list(assembler((10, 10)).add(Window(0, 0, 10, 10), noise(10, 10, dtype="float32")))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.tuples(*[st.integers(0, 9)] * 4), st.tuples(*[st.integers(0, 9)] * 4))
def test_what_is_around_a_hole_and_the_hole_are_the_window(
    first: tuple[int, int, int, int], second: tuple[int, int, int, int]
) -> None:
    """Painted pixel by pixel: every one once, none twice."""
    window = Window(*first[:2], first[2] + 1, first[3] + 1)
    hole = window.intersection(Window(*second))
    painted = np.zeros((20, 20), int)
    for part in (*without(window, hole), hole):
        painted[part.slices] += 1
    expected = np.zeros((20, 20), int)
    expected[window.slices] = 1
    assert np.array_equal(painted, expected)
