"""The tile map: scales, layers, and squares that gather tiles."""

from __future__ import annotations

from dataclasses import replace

from pesto_runtime.contract import Window
from pesto_runtime.report.tilemap import SHADES, ColourScale, Tile, layers_of, tile_map
from tests.unit.report.sample_run import tiles_over


def test_the_fastest_and_the_slowest_have_the_ends_of_the_scale() -> None:
    """Shades rise with time and use the whole scale."""
    scale = ColourScale.of([0.01, 0.02, 0.5, 1.0])
    assert scale is not None
    shades = [scale.shade(seconds) for seconds in (0.01, 0.02, 0.5, 1.0)]
    assert shades == sorted(shades)
    assert (shades[0], shades[-1]) == (0, SHADES - 1)


def test_one_slow_tile_does_not_hide_the_others() -> None:
    """Steps are ratios: 10 and 40 ms differ, though one tile took 10 s."""
    scale = ColourScale.of([0.01, 0.04, 10.0])
    assert scale is not None
    assert scale.shade(0.01) != scale.shade(0.04)


def test_equal_times_and_zero_have_a_shade() -> None:
    """Nothing is divided by zero, and no logarithm taken of it."""
    for seconds in ([0.0], [0.0, 0.0], [0.3, 0.3], [0.0, 1.0]):
        scale = ColourScale.of(seconds)
        assert scale is not None
        assert all(0 <= scale.shade(each) < SHADES for each in seconds)
    assert ColourScale.of([]) is None


def test_layers_are_phases() -> None:
    """A first corner that comes again begins the next phase."""
    first, second = list(tiles_over((100, 60), 30)), list(tiles_over((100, 60), 50))
    assert [len(layer) for layer in layers_of([*first, *second])] == [len(first), len(second)]
    assert layers_of([]) == []


def test_gathered_squares_lose_no_pixel_and_no_hole() -> None:
    """Of 40 000 tiles every pixel is still covered, and the one hole is seen."""
    tiles = [Tile(t.window, t.seconds, t.state) for t in tiles_over((2000, 2000), 10)]
    tiles[777] = replace(tiles[777], state="hole")
    drawing = tile_map(tiles, (2000, 2000), title="Seconds per tile")
    assert "mean of all tiles" in drawing
    assert drawing.count('class="hole" d="') == 1
    assert drawing.count("M") <= 10_500


def test_only_reused_tiles_have_no_scale() -> None:
    """A run that computed nothing has a map all the same."""
    tiles = [Tile(Window(0, 0, 9, 9), 0.0, "reused")]
    drawing = tile_map(tiles, (9, 9), title="Seconds per tile")
    assert 'class="reused"' in drawing
    assert "median" not in drawing
