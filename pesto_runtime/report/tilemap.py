"""Draw the tiles of each phase as a map: duration by colour, reused tiles, holes.

Many tiles are drawn as one path per colour, or merged into squares, to limit the size of the page.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from pesto_runtime.report import markup
from pesto_runtime.report.markup import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pesto_runtime.contract import Window
    from pesto_runtime.report.facts import TileTime

SHADES = 7
"""Steps of the colour scale, in classes `t0` to `t6` of the style sheet."""

_MOST_TOOLTIPS = 2_000
_MOST_SQUARES = 10_000
_SHORTEST_S = 0.0001


@dataclass(frozen=True)
class Tile:
    """A tile, or a square of several tiles.

    Attributes:
        window: Pixels of the scene.
        seconds: Its duration; for a square, the mean of its tiles.
        state: `done`, `reused` or `hole`.
    """

    window: Window
    seconds: float
    state: str


@dataclass(frozen=True)
class ColourScale:
    """A logarithmic colour scale, from the fastest tile to the slowest.

    On a linear scale, one very slow tile would give all other tiles the same colour.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> ColourScale | None:
        """Create the scale of some durations; None for an empty sequence."""
        if not seconds:
            return None
        return cls(min(seconds), statistics.median(seconds), max(seconds))

    def place(self, seconds: float) -> float:
        """Return the position of a duration on the scale, 0 to 1.

        >>> ColourScale(0.01, 1.0, 100.0).place(1.0), ColourScale(1.0, 1.0, 1.0).place(1.0)
        (0.5, 0.0)
        """
        low, value, high = (max(each, _SHORTEST_S) for each in (self.low, seconds, self.high))
        return math.log(value / low) / math.log(high / low) if high > low else 0.0

    def shade(self, seconds: float) -> int:
        """Return the step of a duration, 0 for the fastest."""
        return min(SHADES - 1, int(self.place(seconds) * SHADES))

    @property
    def ends(self) -> tuple[str, str, str]:
        """Fastest, median and slowest duration, as texts."""
        fastest, middle, slowest = map(markup.seconds, (self.low, self.median, self.high))
        return fastest, middle, slowest


def layers_of(tiles: Iterable[TileTime]) -> list[list[Tile]]:
    """Split tiles into phases: a corner that occurs again starts the next phase."""
    layers: list[list[Tile]] = []
    seen: set[tuple[int, int]] = set()
    for tile in tiles:
        corner = (tile.window.col_off, tile.window.row_off)
        if not layers or corner in seen:
            layers.append([])
            seen = set()
        seen.add(corner)
        layers[-1].append(Tile(tile.window, tile.seconds, tile.state))
    return layers


class PhaseTiles(NamedTuple):
    """The tiles of a phase.

    Attributes:
        title: Of its map.
        tiles: Its tiles.
        is_on_grid: Whether they count pixels of the scene.
    """

    title: str
    tiles: Sequence[Tile]
    is_on_grid: bool = True


def tile_maps(phases: Sequence[PhaseTiles], size: tuple[int, int]) -> str:
    """Draw the tiles of every phase under its title; empty without tiles.

    Args:
        phases: The phases.
        size: Width and height of the scene, pixels.
    """
    figures = "".join(
        tile_map(each.tiles, size if each.is_on_grid else (1, 1), title=each.title)
        for each in phases
    )
    layout = "maps" if len(phases) > 1 else "map-alone"
    return f'<div class="{layout}">{_hatching(size)}{figures}</div>' if figures else ""


def _hatching(size: tuple[int, int]) -> str:
    """Return the pattern of reused tiles, once per page, because it is referenced by its id."""
    pitch = max(*size, 1) / 96
    return (
        '<svg class="pattern" width="0" height="0" aria-hidden="true"><defs>'
        f'<pattern id="reused" width="{pitch:g}" height="{pitch:g}" '
        'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect class="hatched" width="{pitch:g}" height="{pitch:g}"/>'
        f'<rect class="hatch" width="{pitch / 3:g}" height="{pitch:g}"/>'
        "</pattern></defs></svg>"
    )


def tile_map(tiles: Sequence[Tile], size: tuple[int, int], *, title: str) -> str:
    """Draw one phase's tiles as a figure with a legend.

    Args:
        tiles: The tiles of one phase.
        size: Width and height of the scene, pixels.
        title: Text above the legend, and start of the picture's label for screen readers.
    """
    scale = ColourScale.of([tile.seconds for tile in tiles if tile.state == "done"])
    extent = (
        max([size[0], *(tile.window.col_stop for tile in tiles)]),
        max([size[1], *(tile.window.row_stop for tile in tiles)]),
    )
    squares, side = as_squares(tiles, extent)
    drawing = _svg(squares, scale, extent, label=f"{title}: {_summary(tiles, scale)}")
    note = f"<p>A square is the mean of all tiles in {side} × {side} px.</p>" if side else ""
    return (
        f'<figure class="map"><div class="frame">{drawing}</div><figcaption>'
        f"<h3><strong>{text(title)}</strong></h3><p>{markup.plural(len(tiles), 'tile')}</p>"
        f"{_legend(tiles, scale)}{note}</figcaption></figure>"
    )


def _svg(
    tiles: Sequence[Tile], scale: ColourScale | None, extent: tuple[int, int], *, label: str
) -> str:
    width, height = extent
    density = "dense" if len(tiles) > _MOST_TOOLTIPS else "sparse"
    drawing = _by_class(tiles, scale) if density == "dense" else _one_by_one(tiles, scale)
    return (
        f'<svg class="{density}" role="img" '
        f'aria-label="{text(label)}" viewBox="0 0 {width} {height}" '
        f'style="--aspect:{width / height:.5f}" preserveAspectRatio="none">{drawing}</svg>'
    )


def _one_by_one(tiles: Iterable[Tile], scale: ColourScale | None) -> str:
    return "".join(
        f'<rect class="{colour_class(tile, scale)}" x="{tile.window.col_off}" '
        f'y="{tile.window.row_off}" width="{tile.window.width}" height="{tile.window.height}">'
        f"<title>{text(tooltip(tile))}</title></rect>"
        for tile in tiles
    )


def _by_class(tiles: Iterable[Tile], scale: ColourScale | None) -> str:
    """Draw one path per colour: a tenth of the bytes of single tiles, without tooltips."""
    classed = sorted(
        ((colour_class(tile, scale), tile) for tile in tiles), key=lambda pair: pair[0]
    )
    paths = []
    for name, members in groupby(classed, key=lambda pair: pair[0]):
        path = "".join(
            f"M{w.col_off} {w.row_off}h{w.width}v{w.height}h-{w.width}z"
            for w in (tile.window for _, tile in members)
        )
        paths.append(f'<path class="{name}" d="{path}"/>')
    return "".join(paths)


def colour_class(tile: Tile, scale: ColourScale | None) -> str:
    """Return the class of a tile in the style sheet: `t0` to `t6`, `reused` or `hole`."""
    if tile.state != "done" or scale is None:
        return "hole" if tile.state == "hole" else "reused"
    return f"t{scale.shade(tile.seconds)}"


def tooltip(tile: Tile) -> str:
    """Return the window of a tile and its duration, as text."""
    col_off, row_off, width, height = tile.window
    took = markup.seconds(tile.seconds) if tile.state == "done" else tile.state
    return f"column {col_off}, row {row_off}, {width} × {height} px: {took}"


def as_squares(tiles: Sequence[Tile], extent: tuple[int, int]) -> tuple[Sequence[Tile], int]:
    """Merge tiles into squares if there are too many; return the squares' side, else 0."""
    if len(tiles) <= _MOST_SQUARES:
        return tiles, 0
    # A square of this side gives at most about _MOST_SQUARES squares over the whole scene.
    side = math.ceil(math.sqrt(extent[0] * extent[1] / _MOST_SQUARES))
    squares: dict[tuple[int, int], list[Tile]] = {}
    for tile in tiles:
        corner = (tile.window.row_off // side, tile.window.col_off // side)
        squares.setdefault(corner, []).append(tile)
    return [_merged(members) for members in squares.values()], side


def _merged(tiles: Sequence[Tile]) -> Tile:
    """Merge tiles into one, which is a hole if any of them is."""
    window = tiles[0].window
    for tile in tiles:
        window = window.union(tile.window)
    done = [tile.seconds for tile in tiles if tile.state == "done"]
    for hole in tiles:
        if hole.state == "hole":
            return replace(hole, window=window)
    return Tile(window, statistics.fmean(done), "done") if done else Tile(window, 0.0, "reused")


def _summary(tiles: Sequence[Tile], scale: ColourScale | None) -> str:
    parts = [markup.plural(len(tiles), "tile")]
    if reused := sum(tile.state == "reused" for tile in tiles):
        parts.append(f"{markup.count(reused)} reused")
    if holes := sum(tile.state == "hole" for tile in tiles):
        parts.append(markup.plural(holes, "hole"))
    if scale:
        parts.append("fastest {}, median {}, slowest {}".format(*scale.ends))
    return ", ".join(parts)


def _legend(tiles: Sequence[Tile], scale: ColourScale | None) -> str:
    keys = [_steps(scale)] if scale else []
    for state, name in (("reused", "reused"), ("hole", "hole: could not be computed")):
        if amount := sum(tile.state == state for tile in tiles):
            keys.append(
                f'<p class="key"><i class="{state}" aria-hidden="true"></i>'
                f"{name} <b>{markup.count(amount)}</b></p>"
            )
    return "".join(keys)


def _steps(scale: ColourScale) -> str:
    steps = "".join(f'<i class="t{step}"></i>' for step in range(SHADES))
    at = f"{scale.place(scale.median) * 100:.1f}%"
    marks = "".join(
        f"<span>{name} <b>{end}</b></span>"
        for name, end in zip(("min", "median", "max"), scale.ends, strict=True)
    )
    return (
        f'<div class="scale"><div class="tick" style="--at:{at}" aria-hidden="true"></div>'
        f'<div class="steps" aria-hidden="true">{steps}</div><div class="marks">{marks}</div></div>'
    )
