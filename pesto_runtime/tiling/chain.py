"""Compute the window that each step of a chain reads and returns for one tile.

`Chain.windows` goes backward through the chain from the wanted pixels: a step needs its output
window, extended by its margin, extended to its alignment, and clipped to its extent: the grid, and
the pixels that are added beyond it. So margins add up along a chain, and no step has an edge that
the untiled run would not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pesto_runtime.contract import Margin, Scale, Window
from pesto_runtime.tiling.grid import Size, covering_window, scaled_size, scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_NO_MARGIN = Margin()


@dataclass(frozen=True, slots=True)
class Step:
    """The geometry of a map stage.

    Attributes:
        name: The stage's id.
        reads: Names of the rasters it reads; empty for a step that reads nothing of the chain, and
            whose outputs are sources of it with a size.
        ratios: Of each raster in `reads`, its pixels per pixel of the step's grid; empty if all are
            on that grid.
        makes: Names of the rasters it makes, all on one grid.
        margin: Pixels of its grid needed around an output pixel.
        align: Read windows start at multiples of it and are multiples of it in size, except at the
            far edge of a grid that is not filled.
        scale: Output pixels per pixel of its grid.
        mirror: Pixels that are mirrored beyond the edges of the grid.
        is_filled: Whether the far edges of the grid are extended to a multiple of `align` and to
            `least`.
        least: Smallest side of a read window.
        most: Largest side of a read window; None for any.
    """

    name: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    margin: Margin = Margin()
    align: int = 1
    scale: Scale = Scale()
    ratios: tuple[Scale, ...] = ()
    mirror: Margin = Margin()
    is_filled: bool = False
    least: int = 1
    most: int | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether all read windows have one size."""
        return self.most == self.least

    @property
    def fits_any_size(self) -> bool:
        """Whether windows of every size can be read as they are."""
        return self.align == 1 and not (self.is_filled or self.is_fixed)

    @property
    def quantum(self) -> Size:
        """Smallest width and height that are aligned, and whole pixels of the outputs."""
        scales = (self.scale, *self.ratios)
        return (
            math.lcm(self.align, *(scale.x.denominator for scale in scales)),
            math.lcm(self.align, *(scale.y.denominator for scale in scales)),
        )

    def read(self, grid: Size, sizes: Mapping[str, Size], window: Window) -> dict[str, Window]:
        """Return the window of each raster that a window of the step's grid shows.

        Args:
            grid: Width and height of the step's grid.
            sizes: Width and height of each raster.
            window: A read window, which may extend beyond the grid.
        """
        if not self.ratios:  # the usual case
            return dict.fromkeys(self.reads, source_window(window, grid))
        return {
            name: source_window(scaled_window(window, ratio), sizes[name])
            for name, ratio in zip(self.reads, self.ratios, strict=True)
        }

    def extent(self, grid: Size) -> Window:
        """Return the window that read windows are clipped to: a grid with what is beyond it.

        It depends on the grid and not on the tiles, so no tile has an edge of its own.

        >>> Step("s", ("a",), ("b",), align=32, is_filled=True).extent((1403, 977))
        Window(col_off=0, row_off=0, width=1408, height=992)
        """
        if not self.is_filled and self.mirror == _NO_MARGIN:  # the usual case
            return Window(0, 0, *grid)
        (left, right), (top, bottom) = (
            self._beyond(size, before, after, quantum)
            for size, before, after, quantum in zip(
                grid,
                (self.mirror.left, self.mirror.top),
                (self.mirror.right, self.mirror.bottom),
                self.quantum,
                strict=True,
            )
        )
        return Window.spanning(left, top, right, bottom)

    def _beyond(self, size: int, before: int, after: int, quantum: int) -> tuple[int, int]:
        first = -_up(before, quantum)
        if not self.is_filled:
            return first, size + after
        return first, first + _up(max(size + after - first, self.least), quantum)


@dataclass(frozen=True, slots=True)
class StepWindows:
    """The windows of a step for one tile.

    Attributes:
        read: Window of its inputs' grid that it receives; it may extend beyond the grid.
        makes: The same window in its outputs' grid, which it returns.
        keep: The part of `makes` that is correct, and that later steps need.
    """

    read: Window
    makes: Window
    keep: Window


@dataclass(frozen=True)
class TileWindows:
    """The windows of all steps for one tile.

    Attributes:
        sources: Raster from outside the chain -> window to read of it.
        steps: Step name -> its windows, without the steps that are not needed.
    """

    sources: Mapping[str, Window]
    steps: Mapping[str, StepWindows]


@dataclass(frozen=True)
class Chain:
    """Steps in order, over rasters whose sizes are known.

    Attributes:
        steps: Each reads sources, or outputs of earlier steps.
        sizes: Raster name -> width and height of its grid, for sources and outputs.
    """

    steps: tuple[Step, ...]
    sizes: Mapping[str, Size]

    @classmethod
    def over(cls, sources: Mapping[str, Size], steps: Iterable[Step]) -> Chain:
        """Make a chain, and compute the sizes of the outputs of its steps.

        Raises:
            ValueError: a step reads rasters of different sizes, or one that does not exist.
        """
        sizes = dict(sources)
        ordered = tuple(steps)
        for step in ordered:
            if not step.reads:
                continue
            unknown = [name for name in step.reads if name not in sizes]
            if unknown:
                raise ValueError(f"step {step.name!r} reads {unknown[0]!r}, which does not exist")
            ratios = step.ratios or (Scale(),) * len(step.reads)
            read = {
                scaled_size(sizes[name], Scale() / ratio)
                for name, ratio in zip(step.reads, ratios, strict=True)
            }
            if len(read) != 1:
                raise ValueError(f"step {step.name!r} reads rasters of sizes {sorted(read)}")
            sizes.update(dict.fromkeys(step.makes, scaled_size(read.pop(), step.scale)))
        return cls(ordered, sizes)

    def grid(self, step: Step) -> Size:
        """Return width and height of the grid of a step, which is that of its first image port."""
        if not step.reads:
            return self.sizes[step.makes[0]]
        size = self.sizes[step.reads[0]]
        return scaled_size(size, Scale() / step.ratios[0]) if step.ratios else size

    @cached_property
    def _made(self) -> frozenset[str]:
        """The rasters that its steps make."""
        return frozenset(name for step in self.steps for name in step.makes)

    def windows(self, wanted: Mapping[str, Window]) -> TileWindows:
        """Compute the windows of all steps, backward from the wanted windows of some rasters.

        Args:
            wanted: Raster name -> window of its own grid; an empty window is ignored.
        """
        needed = {name: window for name, window in wanted.items() if window.pixels}
        steps: dict[str, StepWindows] = {}
        # Backward: when a step's turn comes, all later steps have added the windows that they need.
        for step in reversed(self.steps):
            outputs = [needed[name] for name in step.makes if name in needed]
            if not outputs:
                continue
            keep = _union(outputs)
            grid = self.grid(step)
            read = read_window(keep, step, grid)
            steps[step.name] = StepWindows(read, scaled_window(read, step.scale), keep)
            for name, source in step.read(grid, self.sizes, read).items():
                needed[name] = _union([source, *([needed[name]] if name in needed else [])])
        sources = {name: window for name, window in needed.items() if name not in self._made}
        return TileWindows(sources, dict(reversed(steps.items())))

    def fits(self, wanted: Mapping[str, Window]) -> bool:
        """Whether each step accepts the size of the window that it receives for `wanted`."""
        read = self.windows(wanted).steps
        return all(
            step.most is None or max(read[step.name].read[2:]) <= step.most
            for step in self.steps
            if step.name in read
        )


def read_window(keep: Window, step: Step, grid: Size) -> Window:
    """Return the input window that a step needs for `keep`: margin, alignment, smallest side.

    It is clipped to the step's extent, and moved inward to have the smallest side.

    >>> read_window(Window(4, 0, 4, 4), Step("s", ("a",), ("b",), Margin.of(1), align=4), (10, 10))
    Window(col_off=0, row_off=0, width=10, height=8)
    """
    under = covering_window(keep, step.scale)
    margin, extent, quantum = step.margin, step.extent(grid), step.quantum
    left, right = _span(
        (under.col_off - margin.left, under.col_stop + margin.right),
        (extent.col_off, extent.col_stop), quantum[0], step.least,
    )  # fmt: skip
    top, bottom = _span(
        (under.row_off - margin.top, under.row_stop + margin.bottom),
        (extent.row_off, extent.row_stop), quantum[1], step.least,
    )  # fmt: skip
    return Window.spanning(left, top, right, bottom)


def source_window(read: Window, grid: Size) -> Window:
    """Return the pixels of a grid that a read window shows, also as mirror images.

    >>> source_window(Window(96, 0, 32, 8), (100, 8))
    Window(col_off=71, row_off=0, width=29, height=8)
    """
    if whole(grid).contains(read):  # the usual case
        return read
    left, right = _shown(read.col_off, read.col_stop, grid[0])
    top, bottom = _shown(read.row_off, read.row_stop, grid[1])
    return Window.spanning(left, top, right, bottom)


def _span(
    needed: tuple[int, int], limits: tuple[int, int], quantum: int, least: int
) -> tuple[int, int]:
    """Return start and stop of a read window along one axis."""
    # Clipping comes after the rounding: only the far end of a grid that is not filled is no
    # multiple of the quantum, which is a whole number of output pixels.
    start = max(_down(needed[0], quantum), limits[0])
    stop = min(_up(needed[1], quantum), limits[1])
    least = _up(least, quantum)
    if stop - start < least:
        stop = min(start + least, limits[1])
        start = max(_down(stop - least, quantum), limits[0])
    return start, stop


def _shown(start: int, stop: int, size: int) -> tuple[int, int]:
    """Return the first and the last but one pixel of an axis that a span shows."""
    first, last = max(start, 0), min(stop, size)
    if start <= -size or stop >= 2 * size:  # mirrored more than once
        return 0, size
    if start < 0:
        last = max(last, 1 - start)  # the image of -n is n
    if stop > size:
        first = min(first, 2 * size - 1 - stop)  # the image of size - 1 + n is size - 1 - n
    return max(first, 0), min(last, size)


def _down(value: int, quantum: int) -> int:
    return value // quantum * quantum


def _up(value: int, quantum: int) -> int:
    return -(-value // quantum) * quantum


def _union(windows: Iterable[Window]) -> Window:
    found = iter(windows)
    union = next(found)
    for window in found:
        union = union.union(window)
    return union
