"""References to images: one text form and one JSON form, of bands and a window."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import ImageReference, RasterContract, Window
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import file_href, image_reference

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable())
NUMBERS = st.integers(min_value=1, max_value=300)
BANDS = st.one_of(
    st.lists(NUMBERS | NAMES, min_size=1, max_size=4).map(tuple),
    st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=4),
)
SIDES = st.integers(min_value=1, max_value=9999)


@settings(deadline=None, derandomize=True)
@given(BANDS | st.none(), st.builds(Window, SIDES, SIDES, SIDES, SIDES) | st.none())
def test_text_and_json_form_say_the_same(
    bands: tuple[int | str, ...] | dict[str, int] | None, window: Window | None
) -> None:
    """Any name is possible, also one of digits, commas, colons or a `#`."""
    reference = ImageReference(href="s3://bucket/a#1.tif", bands=bands, window=window)
    assert ImageReference.parse(str(reference)) == reference
    assert ImageReference.parse(reference.model_dump(mode="json")) == reference


@pytest.mark.parametrize(
    ("text", "bands", "window"),
    [
        ("file:///a.tif", None, None),
        ("file:///a.tif#bands=green:2,nir:4", {"green": 2, "nir": 4}, None),
        ("file:///a.tif#bands=2,4", (2, 4), None),
        ("file:///a.tif#bands=green,nir", ("green", "nir"), None),
        ("file:///a.tif#bands=B%2C1:2", {"B,1": 2}, None),
        ("file:///a.tif#window=1,2,30,40", None, (1, 2, 30, 40)),
        ("file:///a.tif#window=1,2,30,40&bands=2", (2,), (1, 2, 30, 40)),
    ],
)
def test_the_grammar(text: str, bands: object, window: object) -> None:
    """Each documented form, in any order of its parts."""
    reference = ImageReference.parse(text)
    assert (reference.href, reference.bands, reference.window) == ("file:///a.tif", bands, window)


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        ("bands=", "'' is neither NAME:NUMBER, nor a number, nor a name"),
        ("bands=a:1,a:2", "a name is repeated, or not every band is NAME:NUMBER"),
        ("bands=a:1,4", "a name is repeated, or not every band is NAME:NUMBER"),
        ("bands=0", "band 0 is not a number >= 1"),
        ("bands=a:0", "band 0 is not a number >= 1"),
        ("bands=:2", "':2' is neither"),
        ("bands=1&bands=2", "bands is given twice"),
        ("bands=1&align=2", "'align=2' is neither bands=… nor window=…"),
        ("window=1,2,3", "is not [col_off, row_off, width, height]"),
        ("window=1,2,3,0", "is not [col_off, row_off, width, height]"),
        ("window=-1,2,3,4", "is not [col_off, row_off, width, height]"),
        ("band=2", "'band=2' is neither"),
        ("", "neither"),
    ],
)
def test_a_wrong_fragment_is_refused_with_the_grammar(fragment: str, reason: str) -> None:
    """Never a raster without its selection."""
    with pytest.raises(InvalidInput) as caught:
        ImageReference.parse(f"http://host/a.tif#{fragment}")
    assert reason in caught.value.detail
    assert "HREF#bands=green:2,nir:4&window=COL_OFF,ROW_OFF,WIDTH,HEIGHT" in caught.value.detail


@pytest.mark.parametrize(
    "value",
    [
        {"href": "a.tif", "bands": "green"},
        {"href": "a.tif", "bands": []},
        {"href": "a.tif", "bands": [True]},
        {"href": "a.tif", "bands": {"green": "2"}},
        {"href": "a.tif", "bands": {"green": 1.0}},
        {"href": "a.tif", "window": [1, 2, 3]},
        {"href": "a.tif", "band": [1]},
        {"href": "a.tif#bands=1", "bands": [2]},
        {"bands": [1]},
        {},
        "",
        5,
        "{not json",
    ],
)
def test_a_wrong_object_is_refused(value: object) -> None:
    """With the error class of a wrong input."""
    with pytest.raises(InvalidInput):
        image_reference(value)


def test_a_file_whose_name_looks_like_a_fragment_is_that_file(tmp_path: Path) -> None:
    """If it does not exist, the text has a fragment; %23 is a part of the name in any href."""
    name = "a#bands=1.tif"
    assert image_reference(name, base=tmp_path).bands == ("1.tif",)
    (tmp_path / name).touch()
    both = (name, f"file://{quote(str(tmp_path / name))}")
    for text in both:
        found = image_reference(text, base=tmp_path)
        assert (found.href, found.bands) == (file_href(tmp_path / name), None)
    found = image_reference(f"{name}#bands=2", base=tmp_path)
    assert (found.href, found.bands) == (file_href(tmp_path / name), (2,))


def test_a_misspelt_fragment_of_a_file_is_no_other_file(tmp_path: Path) -> None:
    """`#band=2` behind an existing file is an error about the fragment, with the grammar."""
    (tmp_path / "a.tif").touch()
    with pytest.raises(InvalidInput, match="the fragment '#band=2' is wrong"):
        image_reference("a.tif#band=2", base=tmp_path)
    assert image_reference("b.tif#band=2", base=tmp_path).bands is None  # reported as missing


PORT = RasterContract(bands=("green", "nir"))


@pytest.mark.parametrize(
    ("bands", "in_order", "picked"),
    [
        (("nir", "red", "green"), False, (3, 1)),
        (("nir", "green"), True, (2, 1)),
        ((None, None), True, None),
        (("B3", "B8"), True, None),
    ],
)
def test_names_decide_before_order(
    bands: tuple[str | None, ...], in_order: bool, picked: object
) -> None:
    """A stated order counts only where the names do not decide."""
    assert PORT.pick(bands, in_order=in_order) == picked


@pytest.mark.parametrize(
    ("bands", "in_order", "reason"),
    [
        ((None, None), False, "the 2 bands of S have no names, and the port takes green, nir"),
        ((None,) * 4, False, "the 4 bands of S have no names"),
        ((None,) * 3, True, "2 bands are taken (green, nir), S has 3"),
        (("green", "red"), False, "band nir is missing: S has 2 (green, red)"),
        (("green", "nir", "green"), False, "bands 1 and 3 of S are both named 'green'"),
        (("green", "nir", "green"), True, "bands 1 and 3 of S are both named 'green'"),
    ],
)
def test_bands_that_cannot_be_identified_are_refused(
    bands: tuple[str | None, ...], in_order: bool, reason: str
) -> None:
    """Never taken by luck."""
    with pytest.raises(InvalidInput) as caught:
        PORT.pick(bands, in_order=in_order, of="S")
    assert reason in caught.value.detail
