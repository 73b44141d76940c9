"""Draw chains of filters, scenes and tiles: one to four steps, branches, margins of any shape."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from pesto_runtime.contract import Fill, Margin, Scale
from pesto_runtime.tiling import Step
from tests.unit.tiling.oracle import Case, Filter

RATIOS = (Fraction(1), Fraction(1), Fraction(2), Fraction(1, 2), Fraction(1, 4))
_SIDES = st.one_of(st.integers(0, 5), st.sampled_from([0, 0, 9, 140]))
_MOST_TILES = 7


@st.composite
def margins(draw: st.DrawFn) -> Margin:
    """Any margin: asymmetric, none, wider than a tile, wider than the scene."""
    return Margin(draw(_SIDES), draw(_SIDES), draw(_SIDES), draw(_SIDES))


@st.composite
def cases(draw: st.DrawFn, *, scaled: bool = True) -> Case:
    """Any chain over any scene, cut in any way."""
    tile = (draw(st.integers(1, 200)), draw(st.integers(1, 200)))
    size = (
        min(draw(st.integers(1, 130)), _MOST_TILES * tile[0]),
        min(draw(st.integers(1, 130)), _MOST_TILES * tile[1]),
    )
    sources = ("a", "b")[: draw(st.integers(1, 2))]
    scales = dict.fromkeys(sources, Scale())
    filters: list[Filter] = []
    for number in range(draw(st.integers(1, 4))):
        each = draw(_filters(number, scales, scaled=scaled, size=size))
        filters.append(each)
        total = scales[each.step.reads[0]] * each.step.scale
        scales |= dict.fromkeys(each.step.makes, total)
    made = [name for each in filters for name in each.step.makes]
    others = draw(st.lists(st.sampled_from(made), max_size=2))
    return Case(
        size=size,
        sources=sources,
        filters=tuple(filters),
        wanted=tuple(dict.fromkeys([made[-1], *others])),
        tile=tile,
        at_most=draw(st.integers(1, 4)),
        quantum=(draw(st.integers(1, 40)), draw(st.integers(1, 40))),
    )


@st.composite
def _filters(
    draw: st.DrawFn, number: int, scales: dict[str, Scale], *, scaled: bool, size: tuple[int, int]
) -> Filter:
    first = draw(st.sampled_from(sorted(scales)[::-1]))
    alike = [name for name in scales if scales[name] == scales[first] and name != first]
    second = draw(st.lists(st.sampled_from(alike), max_size=1)) if alike else []
    margin = draw(margins())
    is_mirrored = draw(st.sampled_from([False, False, True]))
    step = Step(
        name=f"step{number}",
        reads=(first, *second),
        makes=tuple(f"{kind}{number}" for kind in "xy"[: draw(st.integers(1, 2))]),
        margin=margin,
        align=draw(st.sampled_from([1, 1, 2, 4])),
        scale=draw(_scales(scales[first], size)) if scaled else Scale(),
        mirror=margin if is_mirrored else Margin(),
        is_filled=draw(st.booleans()),
        least=draw(st.sampled_from([1, 1, 5, 48])),
    )
    fills: list[Fill] = ["reflect"] if is_mirrored else ["reflect", "edge", 7]
    fill = draw(st.sampled_from(fills))
    return Filter(step, margin, draw(st.sampled_from(["sum", "sum", "min", "max"])), fill)


@st.composite
def _scales(draw: st.DrawFn, so_far: Scale, size: tuple[int, int]) -> Scale:
    """Up, then down: never up again, which a plan refuses; never down to nothing."""

    def ratio(before: Fraction, length: int) -> Fraction:
        fitting = [r for r in RATIOS if r <= 1 or before >= 1]
        return draw(st.sampled_from([r for r in fitting if 1 <= length * before * r <= 300]))

    return Scale(ratio(so_far.x, size[0]), ratio(so_far.y, size[1]))
