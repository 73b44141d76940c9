"""The promise of tiling: a filter within its margin cannot tell tiled from whole."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pesto_runtime import tiling
from pesto_runtime.contract import Margin, Scale
from pesto_runtime.tiling import Step, read_window, tiles_of
from tests.unit.tiling.cases import cases
from tests.unit.tiling.oracle import Case, Filter, Operation, verify

THOROUGHLY = settings(
    deadline=None,
    derandomize=True,
    max_examples=250,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SIDES = ("top", "right", "bottom", "left")


def chain(*margins: Margin, operation: Operation = "sum", size: tuple[int, int] = (61, 53)) -> Case:
    """Filters one after another, one per margin, cut into tiles of 16 x 12."""
    filters = tuple(
        Filter(Step(f"step{n}", (f"x{n}",), (f"x{n + 1}",), margin), margin, operation)
        for n, margin in enumerate(margins)
    )
    return Case(size, ("x0",), filters, (f"x{len(margins)}",), (16, 12))


@THOROUGHLY
@given(cases())
def test_a_filter_within_its_margin_cannot_tell_tiled_from_whole(case: Case) -> None:
    """Any chain or graph of filters gives the same pixels for any scene, tile and chunks."""
    verify(case)


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (16, 12), (17, 13), (15, 11)])
@pytest.mark.parametrize("operation", ["sum", "min", "max"])
def test_ragged_and_degenerate_scenes_are_nothing_special(
    size: tuple[int, int], operation: Operation
) -> None:
    """One pixel wide, a tile exactly, one more and one less: all as the whole."""
    verify(chain(Margin(3, 1, 0, 5), Margin.of(2), operation=operation, size=size))


@pytest.mark.parametrize("margin", [Margin.of(20), Margin.of(400), Margin(0, 400, 30, 0)])
def test_a_margin_may_be_wider_than_a_tile_and_than_the_scene(margin: Margin) -> None:
    """A margin only costs reading; it never moves or loses a pixel."""
    verify(chain(margin, Margin(1, 2, 3, 4)))


@pytest.mark.parametrize("ratio", [2, "1/2", "1/4", [2, "1/2"], ["1/4", 1]])
@pytest.mark.parametrize("size", [(64, 48), (61, 53), (5, 7)])
def test_a_scaled_chain_keeps_the_promise_at_ragged_edges(
    ratio: object, size: tuple[int, int]
) -> None:
    """Incomplete pixels at the far edge are dropped, tiled and untiled alike."""
    scaling = Filter(
        Step("scale", ("x0",), ("x1",), Margin(1, 0, 2, 3), scale=Scale.of(ratio)),
        Margin(1, 0, 2, 3),
    )
    after = Filter(Step("after", ("x1",), ("x2",), Margin.of(1)), Margin.of(1))
    verify(Case(size, ("x0",), (scaling, after), ("x1", "x2"), (16, 12)))


@pytest.mark.parametrize("align", [2, 3, 4, 8])
def test_a_filter_that_counts_rows_sees_the_phase_of_the_scene(align: int) -> None:
    """Windows start at multiples of the alignment, so local rows count as the scene's do."""
    step = Step("phase", ("x0",), ("x1",), Margin(1, 2, 0, 5), align)
    verify(Case((61, 53), ("x0",), (Filter(step, step.margin),), ("x1",), (7, 5)))


def test_an_alignment_that_nobody_heeds_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the phase: windows that start anywhere give other pixels."""
    step = Step("phase", ("x0",), ("x1",), align=4)
    case = Case((61, 53), ("x0",), (Filter(step, Margin()),), ("x1",), (16, 12))
    verify(case)
    monkeypatch.setattr(tiling, "tiles_of", lambda chunk, _: tiles_of(chunk, (7, 5)))
    verify(case)
    monkeypatch.setattr(
        "pesto_runtime.tiling.chain.read_window",
        lambda keep, step, grid: read_window(keep, replace(step, align=1), grid),
    )
    with pytest.raises(AssertionError):
        verify(case)


def test_margins_add_up_along_both_arms_of_a_branch() -> None:
    """The source is read once, as widely as the longer arm needs; both arms come out right."""
    arm = Margin(2, 0, 1, 4)
    steps = (
        Step("near", ("s",), ("n",), Margin.of(1)),
        Step("far1", ("s",), ("f",), arm),
        Step("far2", ("f",), ("g",), arm),
        Step("join", ("n", "g"), ("j",), Margin(0, 3, 0, 0)),
    )
    filters = tuple(Filter(step, step.margin) for step in steps)
    verify(Case((61, 53), ("s",), filters, ("j", "n"), (16, 12)))


@settings(THOROUGHLY, max_examples=60)
@given(
    sides=st.tuples(*[st.integers(1, 6)] * 4),
    short=st.sampled_from(SIDES),
    where=st.integers(0, 1),
)
def test_a_margin_one_too_small_on_one_side_differs(
    sides: tuple[int, int, int, int], short: str, where: int
) -> None:
    """Negative control: without it, a test of sameness could pass on anything."""
    margin = Margin(*sides)
    case = chain(margin, margin)
    verify(case)
    lacking = replace(margin, **{short: getattr(margin, short) - 1})
    with pytest.raises(AssertionError, match="told from whole"):
        verify(case.with_margins({f"step{where}": lacking}))


@pytest.mark.parametrize("operation", ["sum", "min", "max"])
@pytest.mark.parametrize("short", SIDES)
def test_the_control_holds_for_every_operation(operation: Operation, short: str) -> None:
    """A least or most of random pixels shows a missing row or column too."""
    margin = Margin.of(3)
    case = chain(margin, operation=operation)
    with pytest.raises(AssertionError, match="told from whole"):
        verify(case.with_margins({"step0": replace(margin, **{short: 2})}))
