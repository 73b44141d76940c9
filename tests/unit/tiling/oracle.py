"""Run made chains of filters twice, untiled and through the geometry, and compare every pixel.

The filters are shifts, sums and reshapes of numpy arrays: they know nothing of windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pesto_runtime import tiling
from pesto_runtime.contract import Margin, Scale, Window
from pesto_runtime.raster.filling import extended

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from pesto_runtime.contract import Fill
    from pesto_runtime.tiling import Size, StepWindows

Plane: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.uint64]]"
Operation: TypeAlias = Literal["sum", "min", "max"]


@dataclass(frozen=True)
class Filter:
    """A step, and the footprint that its filter really has.

    Attributes:
        step: What the geometry is told.
        footprint: What the filter sees around a pixel; the step's margin, or more in a control.
        operation: What it does with what it sees.
        fill: How pixels beyond a scene are made.
    """

    step: tiling.Step
    footprint: Margin
    operation: Operation = "sum"
    fill: Fill = "reflect"


@dataclass(frozen=True)
class Case:
    """A chain of filters over sources of one size, and how it is cut.

    Attributes:
        size: Width and height of the sources.
        sources: Names of the sources.
        filters: In order.
        wanted: Rasters compared.
        tile: Width and height asked for; made a multiple of what the scales need.
        at_most: Chunks.
        quantum: Width and height whose multiples chunks are, before scales and alignments.
    """

    size: Size
    sources: tuple[str, ...]
    filters: tuple[Filter, ...]
    wanted: tuple[str, ...]
    tile: Size
    at_most: int = 1
    quantum: Size = (1, 1)

    def with_margins(self, margins: Mapping[str, Margin]) -> Case:
        """The same filters with other margins declared, by step name."""
        filters = tuple(
            replace(f, step=replace(f.step, margin=margins.get(f.step.name, f.step.margin)))
            for f in self.filters
        )
        return replace(self, filters=filters)


def verify(case: Case) -> None:
    """Assert that tiles cannot be told from the whole, and that each pixel is written once.

    Raises:
        AssertionError: a promise of the geometry is broken.
    """
    pixels = source_pixels(case)
    expected = untiled(case, pixels)
    made, written = tiled(case, pixels)
    for name in case.wanted:
        assert made[name].shape == expected[name].shape
        assert (written[name] == 1).all(), f"{name}: a pixel is not written once"
        assert np.array_equal(made[name], expected[name]), f"{name}: tiles can be told from whole"


def source_pixels(case: Case) -> dict[str, Plane]:
    """Random pixels (row, col) of every source, the same at each call."""
    random = np.random.default_rng(case.size[0] * 1000 + case.size[1])
    shape = case.size[::-1]
    return {name: random.integers(1, 1 << 20, shape, dtype=np.uint64) for name in case.sources}


def untiled(case: Case, sources: Mapping[str, Plane]) -> dict[str, Plane]:
    """Every raster (row, col) of the chain, each filter over its whole inputs."""
    rasters = dict(sources)
    for each in case.filters:
        made = filtered_whole(each, [rasters[name] for name in each.step.reads])
        rasters.update({name: made + np.uint64(n) for n, name in enumerate(each.step.makes)})
    return rasters


def filtered_whole(each: Filter, inputs: list[Plane]) -> Plane:
    """What a filter makes of whole rasters, extended by numpy and trimmed afterwards."""
    step, (rows, cols) = each.step, inputs[0].shape
    made = filtered(each, [beyond(each, pixels) for pixels in inputs])
    (top, _), (left, _) = around(step, (rows, cols))
    first = int(top * step.scale.y), int(left * step.scale.x)
    height, width = int(rows * step.scale.y), int(cols * step.scale.x)
    return made[first[0] : first[0] + height, first[1] : first[1] + width]


def beyond(each: Filter, pixels: Plane) -> Plane:
    """Pixels of a raster with those that are mirrored and filled around it, by `numpy.pad`."""
    widths = around(each.step, pixels.shape)
    if isinstance(each.fill, str):
        return np.pad(pixels, widths, mode=each.fill)  # type: ignore[call-overload,no-any-return]
    return np.pad(pixels, widths, constant_values=each.fill or 0)


def around(step: tiling.Step, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows above and below, columns left and right of a raster (row, col) that it is given."""
    mirror, found = step.mirror, []
    for size, before, after, ratio in (
        (shape[0], mirror.top, mirror.bottom, step.scale.y),
        (shape[1], mirror.left, mirror.right, step.scale.x),
    ):
        quantum = math.lcm(step.align, ratio.denominator)
        while before % quantum:
            before += 1  # noqa: PLW2901  # counted, not computed: another way than the geometry's
        while step.is_filled and (
            (before + size + after) % quantum or before + size + after < step.least
        ):
            after += 1  # noqa: PLW2901
        found.append((before, after))
    return found[0], found[1]


def tiled(case: Case, sources: Mapping[str, Plane]) -> tuple[dict[str, Plane], dict[str, Plane]]:
    """The wanted rasters (row, col) put together of tiles, and how often each pixel was written."""
    steps = [each.step for each in case.filters]
    chain = tiling.Chain.over(dict.fromkeys(case.sources, case.size), steps)
    scales = total_scales(case)
    quantum = tiling.tile_quantum(scales.values(), [step.align for step in steps])
    tile = _rounded(case.tile, quantum)
    shapes = {name: chain.sizes[name][::-1] for name in case.wanted}
    made = {name: np.zeros(shape, np.uint64) for name, shape in shapes.items()}
    written = {name: np.zeros(shape, np.uint64) for name, shape in shapes.items()}
    chunks = tiling.chunks_of(
        case.size, quantum=_rounded(case.quantum, quantum), at_most=case.at_most
    )
    for window in (window for chunk in chunks for window in tiling.tiles_of(chunk, tile)):
        assert window.pixels, "a tile is empty"
        wanted = {name: tiling.scaled_window(window, scales[name]) for name in case.wanted}
        arrays = run_tile(case, chain, wanted, sources)
        for name, array in arrays.items():
            made[name][wanted[name].slices] = array
            written[name][wanted[name].slices] += np.uint64(1)
    return made, written


def run_tile(
    case: Case, chain: tiling.Chain, wanted: Mapping[str, Window], sources: Mapping[str, Plane]
) -> dict[str, Plane]:
    """Run the chain on the windows that the geometry gives for one tile."""
    windows = chain.windows(wanted)
    held: dict[str, tuple[Window, Plane]] = {}
    for name, window in windows.sources.items():
        assert inside(window, chain.sizes[name]), f"{name}: {window} leaves the scene"
        held[name] = (window, sources[name][window.slices])
    for each in case.filters:
        step = each.step
        if step.name not in windows.steps:
            continue
        take = windows.steps[step.name]
        grid = chain.sizes[step.reads[0]]
        _require_legal(take, step, grid)
        source = tiling.chain.source_window(take.read, grid)
        pixels = filtered(each, [
            extended(crop(*held[name], source)[np.newaxis], source, take.read,
                     size=grid, fill=each.fill)[0]
            for name in step.reads
        ])  # fmt: skip
        assert pixels.shape == (take.makes.height, take.makes.width), "made another window"
        kept = trim(pixels, take, step)
        held |= {name: (take.keep, kept + np.uint64(n)) for n, name in enumerate(step.makes)}
    return {name: crop(*held[name], window) for name, window in wanted.items() if window.pixels}


def trim(pixels: Plane, take: StepWindows, step: tiling.Step) -> Plane:
    """Cut what a step returned to what is right of it."""
    return crop(take.makes, pixels, take.keep)


def crop(held: Window, pixels: Plane, window: Window) -> Plane:
    """The window's pixels, out of those that are held."""
    assert held.contains(window), f"{window} is not in {held}"
    return pixels[window.relative_to(held).slices]


def inside(window: Window, size: Size) -> bool:
    """Whether a window is not empty and stays in a grid."""
    return (
        min(window) >= 0
        and window.pixels > 0
        and window.col_stop <= size[0]
        and window.row_stop <= size[1]
    )


def _require_legal(take: StepWindows, step: tiling.Step, grid: Size) -> None:
    """Windows start and end at multiples, or at the far edge; they have the smallest side."""
    (top, bottom), (left, right) = around(step, grid[::-1])
    read, align = take.read, step.align
    assert read.pixels > 0, f"{step.name} reads nothing"
    assert -left <= read.col_off, f"{step.name} reads {read} of {grid}"
    assert -top <= read.row_off, f"{step.name} reads {read} of {grid}"
    assert read.col_stop <= grid[0] + right, f"{step.name} reads {read} of {grid}"
    assert read.row_stop <= grid[1] + bottom, f"{step.name} reads {read} of {grid}"
    assert read.col_off % align == read.row_off % align == 0, "a window is not aligned"
    assert read.col_stop % align == 0 or read.col_stop == grid[0] + right, "a width is not aligned"
    assert read.row_stop % align == 0 or read.row_stop == grid[1] + bottom, "not aligned"
    assert read.width >= min(step.least, left + grid[0] + right), "a window is too small"
    assert read.height >= min(step.least, top + grid[1] + bottom), "a window is too small"


def total_scales(case: Case) -> dict[str, Scale]:
    """Pixels per pixel of the sources, of every raster of the chain."""
    scales = dict.fromkeys(case.sources, Scale())
    for each in case.filters:
        scale = scales[each.step.reads[0]] * each.step.scale
        scales.update(dict.fromkeys(each.step.makes, scale))
    return scales


def filtered(each: Filter, inputs: list[Plane]) -> Plane:
    """What a filter makes of whole arrays, or of windows: it cannot know."""
    mixed = sum((np.uint64(3 * n + 1) * pixels for n, pixels in enumerate(inputs)), np.uint64(0))
    assert isinstance(mixed, np.ndarray)
    phased = _phased(mixed, each.step.align)
    across = _seen(phased, each.footprint.left, each.footprint.right, each.operation)
    seen = _seen(across.T, each.footprint.top, each.footprint.bottom, each.operation).T
    return _scaled(_scaled(seen, each.step.scale.y).T, each.step.scale.x).T


def _phased(pixels: Plane, align: int) -> Plane:
    """Every pixel becomes the sum of its align x align cell, times its place in the cell."""
    if align == 1:
        return pixels
    rows, cols = np.arange(pixels.shape[0]), np.arange(pixels.shape[1])
    sums = np.add.reduceat(np.add.reduceat(pixels, rows[::align]), cols[::align], axis=1)
    place = (1 + rows % align)[:, None] + 7 * (cols % align)[None, :]
    spread = sums[rows // align][:, cols // align]
    return np.asarray(spread * place.astype(np.uint64))


def _seen(pixels: Plane, before: int, after: int, operation: Operation) -> Plane:
    """Weighted sum, least or most of the pixels from `before` to `after` in each row, clipped."""
    width = pixels.shape[1]
    out = pixels.copy() if operation != "sum" else np.zeros_like(pixels)
    for shift in range(-min(before, width - 1), min(after, width - 1) + 1):
        to = slice(max(0, -shift), min(width, width - shift))
        seen = pixels[:, slice(to.start + shift, to.stop + shift)]
        if operation == "sum":
            out[:, to] += np.uint64(2 * (shift + before) + 1) * seen
        else:
            combine = np.minimum if operation == "min" else np.maximum
            out[:, to] = combine(out[:, to], seen)
    return out


def _scaled(pixels: Plane, ratio: Fraction) -> Plane:
    """Repeat rows, or add groups of them, an incomplete last group dropped."""
    grown = np.repeat(pixels, ratio.numerator, axis=0)
    grown = grown * (np.arange(len(grown), dtype=np.uint64) % ratio.numerator + 1)[:, None]
    count = ratio.denominator
    whole = grown[: len(grown) // count * count]
    return np.asarray(whole.reshape(-1, count, pixels.shape[1]).sum(axis=1, dtype=np.uint64))


def _rounded(size: Size, quantum: Size) -> Size:
    return (-(-size[0] // quantum[0]) * quantum[0], -(-size[1] // quantum[1]) * quantum[1])
