"""Compute the window that each step of a chain reads and returns for one tile.

`Chain.windows` goes backward through the chain from the wanted pixels: a step needs its output
window, extended by its margin, extended to its alignment, and clipped to the grid. So margins add
up along a chain, and no step has an edge that the untiled run would not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Margin, Scale, Window
from pesto_runtime.tiling.grid import Size, covering_window, scaled_size, scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Step:
    """The geometry of a map stage.

    Attributes:
        name: The stage's id.
        reads: Names of the rasters it reads, all on one grid.
        makes: Names of the rasters it makes, all on one grid.
        margin: Input pixels needed around an output pixel.
        align: Read windows start at multiples of it and are multiples of it in size, except at the
            far edge of the grid.
        scale: Output pixels per input pixel.
    """

    name: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    margin: Margin = Margin()
    align: int = 1
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class StepWindows:
    """The windows of a step for one tile.

    Attributes:
        read: Window of its inputs' grid that it receives.
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
            unknown = [name for name in step.reads if name not in sizes]
            if unknown:
                raise ValueError(f"step {step.name!r} reads {unknown[0]!r}, which does not exist")
            read = {sizes[name] for name in step.reads}
            if len(read) != 1:
                raise ValueError(f"step {step.name!r} reads rasters of sizes {sorted(read)}")
            sizes.update(dict.fromkeys(step.makes, scaled_size(read.pop(), step.scale)))
        return cls(ordered, sizes)

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
            grid = self.sizes[step.reads[0]]
            read = read_window(keep, step, grid)
            steps[step.name] = StepWindows(read, scaled_window(read, step.scale), keep)
            for name in step.reads:
                needed[name] = _union([read, *([needed[name]] if name in needed else [])])
        made = {name for step in self.steps for name in step.makes}
        sources = {name: window for name, window in needed.items() if name not in made}
        return TileWindows(sources, dict(reversed(steps.items())))


def read_window(keep: Window, step: Step, grid: Size) -> Window:
    """Return the input window that a step needs for `keep`: margin, alignment, clipped to the grid.

    >>> read_window(Window(4, 0, 4, 4), Step("s", ("a",), ("b",), Margin.of(1), align=4), (10, 10))
    Window(col_off=0, row_off=0, width=10, height=8)
    """
    under = covering_window(keep, step.scale)
    margin = step.margin
    # Multiples of the denominator are whole output pixels. Clipping comes last, so only a window at
    # the far edge of the grid is not a multiple.
    quantum_x = math.lcm(step.align, step.scale.x.denominator)
    quantum_y = math.lcm(step.align, step.scale.y.denominator)
    return Window.spanning(
        _down(max(under.col_off - margin.left, 0), quantum_x),
        _down(max(under.row_off - margin.top, 0), quantum_y),
        _up(under.col_stop + margin.right, quantum_x),
        _up(under.row_stop + margin.bottom, quantum_y),
    ).intersection(whole(grid))


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
