"""Windows, margins and ratios: small algebra that everything else stands on."""

import pickle
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import (
    Margin,
    Pipeline,
    RasterContract,
    Scale,
    Window,
    nodata_to_json,
    parse_window,
)
from pesto_runtime.errors import InvalidInput, InvalidPipeline

QUIET = settings(deadline=None, derandomize=True)
WINDOWS = st.builds(Window, *[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2)
MARGINS = st.builds(Margin, *[st.integers(0, 99)] * 4)
SCALES = st.builds(Scale, *[st.fractions(Fraction(1, 9), 9, max_denominator=9)] * 2)


def pixels(window: Window) -> set[tuple[int, int]]:
    rows, cols = window.slices
    return {(row, col) for row in range(rows.start, rows.stop)
            for col in range(cols.start, cols.stop)}  # fmt: skip


@QUIET
@given(WINDOWS, WINDOWS)
def test_an_intersection_is_the_pixels_of_both(a: Window, b: Window) -> None:
    """Compared with sets; disjoint windows share an empty one, of no negative size."""
    both = a.intersection(b)
    assert pixels(both) == pixels(a) & pixels(b)
    assert both.pixels == len(pixels(a) & pixels(b))
    assert both.width >= 0 <= both.height


@QUIET
@given(WINDOWS, WINDOWS, WINDOWS)
def test_a_union_is_the_smallest_that_holds_both(a: Window, b: Window, other: Window) -> None:
    """It holds both, and whatever holds both holds it."""
    union = a.union(b)
    assert union.contains(a)
    assert union.contains(b)
    assert not (other.contains(a) and other.contains(b)) or other.contains(union)


@QUIET
@given(WINDOWS, WINDOWS)
def test_containing_is_of_every_pixel(a: Window, b: Window) -> None:
    """Half-open: a window that ends one later is not contained."""
    assert a.contains(b) == (pixels(b) <= pixels(a))
    assert not a.contains(Window(*a[:2], a.width + 1, a.height))


@QUIET
@given(WINDOWS, WINDOWS)
def test_relative_windows_move_and_keep_their_size(a: Window, b: Window) -> None:
    """Counted from another window's first pixel, and back."""
    moved = a.relative_to(b)
    assert moved[2:] == a[2:]
    assert moved.relative_to(Window(-b.col_off, -b.row_off, 1, 1)) == a


@pytest.mark.parametrize("value", [[0, 0, 1, 1], (3, 4, 5, 6)])
def test_a_window_is_read(value: object) -> None:
    """Four whole numbers in rasterio's order."""
    assert list(parse_window(value)) == list(value)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "value",
    [None, "0,0,1,1", [0, 0, 1], [0, 0, 1, 1, 1], [-1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, -1],
     [0.0, 0, 1, 1], [True, 0, 1, 1], ["0", 0, 1, 1], {0, 1}, {}],
)  # fmt: skip
def test_what_is_no_window_is_refused(value: object) -> None:
    """With what a window is."""
    with pytest.raises(InvalidInput, match=r"is not \[col_off, row_off, width, height\]"):
        parse_window(value)


@QUIET
@given(MARGINS, MARGINS, MARGINS)
def test_margins_are_a_sum_and_a_largest(a: Margin, b: Margin, c: Margin) -> None:
    """Adding is associative with 0 as its zero; the union is idempotent, and below the sum."""
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Margin() == a
    assert a.union(a) == a
    assert a.union(b).union(a + b) == a + b
    assert Margin.of(a.to_json()) == a


@pytest.mark.parametrize("value", [-1, 1.5, "2", True, None, [1, 2, 3, 4], {"top": "1"}, {"t": 1}])
def test_what_is_no_margin_is_refused(value: object) -> None:
    """Neither guessed nor rounded."""
    with pytest.raises(ValueError, match="margin"):
        Margin.of(value)


def test_absent_sides_of_a_margin_are_0() -> None:
    """And one number where all sides agree is written as one."""
    assert Margin.of({"left": 3}) == Margin(0, 0, 0, 3)
    assert Margin(2, 2, 2, 2).to_json() == 2
    assert Margin(2, 2, 2, 1).to_json() == {"top": 2, "right": 2, "bottom": 2, "left": 1}


@QUIET
@given(SCALES, SCALES)
def test_scales_multiply_exactly(a: Scale, b: Scale) -> None:
    """Ratios, not floats: a third of a third is a ninth."""
    assert a * b == Scale(a.x * b.x, a.y * b.y)
    assert a * Scale() == a
    assert Scale.of(a.to_json()) == a


@pytest.mark.parametrize(
    ("value", "ratio"),
    [(2, 2), (0.25, Fraction(1, 4)), ("1/3", Fraction(1, 3)), (1 / 3, Fraction(1, 3)), ("0.1",
     Fraction(1, 10)), (0.1, Fraction(1, 10))],
)  # fmt: skip
def test_a_ratio_is_read_as_it_was_meant(value: object, ratio: Fraction) -> None:
    """A float that stands for a third is a third."""
    assert Scale.of(value) == Scale(Fraction(ratio), Fraction(ratio))


@QUIET
@given(st.integers(1, 1 << 16), st.integers(1, 1 << 16))
def test_a_ratio_of_numbers_of_16_bits_is_exact(number: int, of: int) -> None:
    """As text, as a float and after a journey through JSON: 1/1000 never becomes 1/999."""
    ratio = Fraction(number, of)
    assert Scale.of(f"{number}/{of}").x == ratio
    assert Scale.of(number / of).x == ratio
    assert Scale.of(Scale(ratio, 1 / ratio).to_json()) == Scale(ratio, 1 / ratio)


@pytest.mark.parametrize("value", [0, -1, "a", "1/0", None, [], [1], [1, 2, 3], float("nan"),
                                   float("inf"), 1e-9, "1e-30", True, {}])  # fmt: skip
def test_what_is_no_ratio_is_refused(value: object) -> None:
    """Also one that is 0 at any precision that matters."""
    with pytest.raises(ValueError, match="ratio"):
        Scale.of(value)


@pytest.mark.parametrize(
    "contract",
    [
        RasterContract(),
        RasterContract.model_validate({"bands": ["r", "g"], "dtype": ["uint8", "int16"],
                                       "margin": {"top": 1}, "scale": ["1/2", 2]}),
        RasterContract.model_validate({"nodata": "-inf", "exactness": {"rtol": 1e-6}}),
    ],
)  # fmt: skip
def test_a_raster_contract_goes_through_json_and_pickle(contract: RasterContract) -> None:
    """What was declared comes back, and nothing else."""
    assert RasterContract.model_validate(contract.to_json()) == contract
    assert RasterContract.model_validate_json(contract.model_dump_json()) == contract
    assert pickle.loads(pickle.dumps(contract)) == contract  # noqa: S301  # of our own making
    assert set(contract.to_json()) == contract.model_fields_set


@pytest.mark.parametrize(
    ("nodata", "written"),
    [(None, None), (0, 0), (-9999.0, -9999.0), (float("nan"), "nan"), (float("inf"), "inf"),
     (float("-inf"), "-inf")],
)  # fmt: skip
def test_any_nodata_survives_json(nodata: float | None, written: object) -> None:
    """Those that JSON has no number for become words, and come back as numbers."""
    assert nodata_to_json(nodata) == written
    contract = RasterContract.model_validate({"nodata": written})
    assert contract.nodata == pytest.approx(nodata, nan_ok=True)
    text = contract.model_dump_json(exclude_unset=True)
    again = RasterContract.model_validate_json(text)
    assert again.nodata == pytest.approx(nodata, nan_ok=True)


def test_bands_are_names_a_count_or_any() -> None:
    """Names have a count; a count has no names."""
    named = RasterContract.model_validate({"bands": ["a", "b"]})
    counted = RasterContract.model_validate({"bands": 4})
    assert (named.band_names, named.band_count) == (("a", "b"), 2)
    assert (counted.band_names, counted.band_count) == (None, 4)
    assert (RasterContract().band_names, RasterContract().band_count) == (None, None)


def test_every_wrong_field_of_a_pipeline_is_told() -> None:
    """Typos too; pointers name keys of the file, and lists that are not empty are not called so."""
    stage = {"id": "a b", "process": "p", "inpts": {}}
    document = {"name": "p", "inputs": {"x": "raster"}, "services": {"m": 5}, "stages": [stage],
                "outputs": {"a": 1, "b/c": "$a.b"}}  # fmt: skip
    with pytest.raises(InvalidPipeline) as caught:
        Pipeline.parse(document)
    assert {field.pointer for field in caught.value.fields} == {
        "/inputs/x", "/services/m", "/stages/0/id", "/stages/0/inpts", "/outputs/a", "/outputs/b~1c"
    }  # fmt: skip
    absent = Pipeline.model_json_schema()["required"]
    with pytest.raises(InvalidPipeline) as caught:
        Pipeline.parse({})
    assert [field.pointer for field in caught.value.fields] == [f"/{name}" for name in absent]
