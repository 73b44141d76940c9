"""Plant the mistakes that tiling invites, one at a time, and see the promise catch every one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from pesto_runtime import tiling
from pesto_runtime.contract import Margin, Scale, Window
from pesto_runtime.tiling import Chain, Size, Step, StepWindows, TileWindows, source_window, whole
from pesto_runtime.tiling.chain import _span as span
from pesto_runtime.tiling.chain import read_window
from tests.unit.tiling.cases import cases
from tests.unit.tiling.oracle import Case, Filter, Plane, crop, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

extent = Step.extent
CAUGHT = (AssertionError, ValueError, IndexError, KeyError)
CHAIN = "pesto_runtime.tiling.chain"
TILING = "pesto_runtime.tiling"
ORACLE = "tests.unit.tiling.oracle"
BLUNT = {"stop_off_by_one", "clipped_one_short"}
BUGS: dict[str, tuple[str, Callable[..., object]]] = {}


def bug(target: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Register a wrong version of what stands at `target`."""

    def register(wrong: Callable[..., object]) -> Callable[..., object]:
        BUGS[wrong.__name__] = (target, wrong)
        return wrong

    return register


# What hypothesis draws depends on the modules that are loaded, whose constants it uses. A margin
# over enlarged pixels, which begins in the middle of a pixel of the scene, is seldom drawn.
ENLARGED = Case(
    (32, 24), ("a",),
    (Filter(Step("up", ("a",), ("b",), scale=Scale.of(2)), Margin()),
     Filter(Step("near", ("b",), ("c",), Margin.of(1)), Margin.of(1))),
    ("c",), (8, 6),
)  # fmt: skip


@settings(
    deadline=None, derandomize=True, database=None, max_examples=400,
    phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)  # fmt: skip
@given(cases())
@example(ENLARGED)
def suite(case: Case) -> None:
    verify(case)


def test_without_a_bug_the_promise_is_kept() -> None:
    """Negative control: what catches the bugs is no test that always fails."""
    suite()


@bug(f"{TILING}.tiles_of")
def last_tile_shifted_inward(chunk: Window, tile: Size) -> Iterator[Window]:
    width, height = min(tile[0], chunk.width), min(tile[1], chunk.height)
    for row_off in range(chunk.row_off, chunk.row_stop, height):
        for col_off in range(chunk.col_off, chunk.col_stop, width):
            left, top = min(col_off, chunk.col_stop - width), min(row_off, chunk.row_stop - height)
            yield Window(left, top, width, height)


@bug(f"{TILING}.tiles_of")
def remainder_dropped(chunk: Window, tile: Size) -> Iterator[Window]:
    width, height = min(tile[0], chunk.width), min(tile[1], chunk.height)
    for row in range(chunk.height // height):
        for col in range(chunk.width // width):
            yield Window(chunk.col_off + col * width, chunk.row_off + row * height, width, height)


@bug(f"{TILING}.chunks_of")
def chunks_overlap_by_a_row(size: Size, *, quantum: Size, at_most: int) -> tuple[Window, ...]:
    chunks = tiling.grid.chunks_of(size, quantum=quantum, at_most=at_most)
    return tuple(
        Window(c.col_off, c.row_off, c.width, c.height + 1).intersection(whole(size))
        for c in chunks
    )


@bug(f"{CHAIN}.read_window")
def margin_clipped_on_the_wrong_side(keep: Window, step: Step, grid: Size) -> Window:
    read, under = read_window(keep, step, grid), tiling.covering_window(keep, step.scale)
    lost = max(0, step.margin.left - under.col_off)
    return Window(read.col_off, read.row_off, max(read.width - lost, 1), read.height)


@bug(f"{CHAIN}.Chain.windows")
def margins_not_summed_along_the_chain(self: Chain, wanted: Mapping[str, Window]) -> TileWindows:
    needed = {name: window for name, window in wanted.items() if window.pixels}
    widest = Margin()
    for step in self.steps:
        widest = widest.union(step.margin)
    steps = {}
    for step in self.steps:
        name = next((name for name in step.makes if name in needed), next(iter(needed)))
        grown = Step("", (), (), widest, step.align)
        read = read_window(needed[name], grown, self.sizes[step.reads[0]])
        steps[step.name] = StepWindows(read, tiling.scaled_window(read, step.scale), read)
    made = {name for step in self.steps for name in step.makes}
    sources = {n: s.read for step in self.steps for n in step.reads if n not in made
               for s in [steps[step.name]]}  # fmt: skip
    return TileWindows(sources, steps)


def with_margin(step: Step, margin: Margin) -> Step:
    return replace(step, margin=margin)


@bug(f"{CHAIN}.read_window")
def top_and_bottom_swapped(keep: Window, step: Step, grid: Size) -> Window:
    m = step.margin
    return read_window(keep, with_margin(step, Margin(m.bottom, m.right, m.top, m.left)), grid)


@bug(f"{CHAIN}.read_window")
def left_and_right_swapped(keep: Window, step: Step, grid: Size) -> Window:
    m = step.margin
    return read_window(keep, with_margin(step, Margin(m.top, m.left, m.bottom, m.right)), grid)


@bug(f"{CHAIN}.read_window")
def rows_and_columns_swapped(keep: Window, step: Step, grid: Size) -> Window:
    m = step.margin
    return read_window(keep, with_margin(step, Margin(m.left, m.bottom, m.right, m.top)), grid)


@bug(f"{CHAIN}.read_window")
def margin_of_one_side_for_all(keep: Window, step: Step, grid: Size) -> Window:
    return read_window(keep, with_margin(step, Margin.of(step.margin.top)), grid)


@bug(f"{CHAIN}._down")
def start_snapped_inward(value: int, quantum: int) -> int:
    return -(-value // quantum) * quantum


@bug(f"{CHAIN}._up")
def stop_snapped_inward(value: int, quantum: int) -> int:
    return value // quantum * quantum


@bug(f"{CHAIN}.read_window")
def stop_off_by_one(keep: Window, step: Step, grid: Size) -> Window:
    return read_window(Window(*keep[:2], keep.width - 1, keep.height), step, grid)


@bug(f"{CHAIN}.Step.extent")
def intermediate_not_clipped_to_the_scene(step: Step, size: Size) -> Window:
    found = extent(step, size)
    return found._replace(width=found.width + 16, height=found.height + 16)


@bug(f"{CHAIN}.Step.extent")
def clipped_one_short(step: Step, size: Size) -> Window:
    found = extent(step, size)
    return found._replace(width=max(found.width - 1, 1))


@bug(f"{CHAIN}.Step.extent")
def filled_to_one_multiple_more(step: Step, size: Size) -> Window:
    found = extent(step, size)
    return found._replace(height=found.height + step.align * step.is_filled)


@bug(f"{CHAIN}.Step.extent")
def mirrored_one_pixel_less(step: Step, size: Size) -> Window:
    found = extent(step, size)
    lost = step.quantum[0] * (found.col_off < 0)
    return found._replace(col_off=found.col_off + lost, width=found.width - lost)


@bug(f"{CHAIN}.source_window")
def mirror_images_not_read(read: Window, grid: Size) -> Window:
    return read.intersection(whole(grid))


@bug(f"{CHAIN}.source_window")
def mirror_images_read_one_short(read: Window, grid: Size) -> Window:
    found = source_window(read, grid)
    lost = int(read.col_stop > grid[0] and found.col_off < read.col_off)
    return found._replace(col_off=found.col_off + lost, width=found.width - lost)


@bug(f"{CHAIN}._span")
def smallest_side_not_moved_inward(
    needed: tuple[int, int], limits: tuple[int, int], quantum: int, least: int
) -> tuple[int, int]:
    start, _ = span(needed, limits, quantum, 1)
    return start, min(max(start + least, span(needed, limits, quantum, 1)[1]), limits[1])


@bug("pesto_runtime.raster.filling._places")
def mirrored_with_the_edge_repeated(start: int, stop: int, size: int, fill: object) -> np.ndarray:
    places = np.arange(start, stop) % (2 * size)
    if fill != "reflect":
        return np.clip(np.arange(start, stop), 0, size - 1)
    return np.minimum(places, 2 * size - 1 - places)


@bug(f"{ORACLE}.trim")
def trimmed_by_margin_instead_of_by_offset(pixels: Plane, take: StepWindows, step: Step) -> Plane:
    top, left = int(step.margin.top * step.scale.y), int(step.margin.left * step.scale.x)
    kept = pixels[top : top + take.keep.height, left : left + take.keep.width]
    assert kept.shape == (take.keep.height, take.keep.width)
    return kept


@bug(f"{ORACLE}.trim")
def not_trimmed(pixels: Plane, take: StepWindows, step: Step) -> Plane:
    return crop(take.makes, pixels, take.makes)[: take.keep.height, : take.keep.width]


@bug(f"{CHAIN}.covering_window")
def scale_rounded_to_nearest(window: Window, scale: Scale) -> Window:
    return Window.spanning(
        round(window.col_off / scale.x), round(window.row_off / scale.y),
        round(window.col_stop / scale.x), round(window.row_stop / scale.y),
    )  # fmt: skip


@bug(f"{CHAIN}.covering_window")
def scale_of_rows_used_for_columns(window: Window, scale: Scale) -> Window:
    return tiling.covering_window(window, Scale(scale.y, scale.y))


@bug(f"{CHAIN}.covering_window")
def scale_forgotten(window: Window, scale: Scale) -> Window:
    return window


@bug(f"{TILING}.tile_quantum")
def tiles_cut_scaled_pixels(scales: object, aligns: object = ()) -> Size:
    return (1, 1)


@bug(f"{CHAIN}._union")
def second_reader_forgotten(windows: Iterator[Window]) -> Window:
    return next(iter(windows))


@bug(f"{CHAIN}.read_window")
def alignment_ignored(keep: Window, step: Step, grid: Size) -> Window:
    return read_window(keep, replace(step, align=1), grid)


@pytest.mark.parametrize("name", sorted(BUGS))
def test_the_promise_catches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A geometry with this bug breaks the promise on some drawn chain."""
    monkeypatch.setattr(*BUGS[name])
    with pytest.raises(CAUGHT):
        suite()


@pytest.mark.parametrize("name", sorted(set(BUGS) - BLUNT))
def test_a_bug_is_subtle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that spoils even pixel-wise steps over whole tiles would prove little of the suite."""
    monkeypatch.setattr(*BUGS[name])
    step = Step("step", ("a",), ("b",))
    verify(Case((32, 24), ("a",), (Filter(step, Margin()),), ("b",), (8, 6)))
