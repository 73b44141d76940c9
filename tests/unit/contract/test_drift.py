"""What changed in a contract, and whether a pipeline that was checked against it may break."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from pesto_runtime.contract import Description, drift, is_breaking, merge_patch
from pesto_runtime.errors import InvalidContract

FOLDER = Path(__file__).parents[2] / "data" / "pesto_descriptions"
DOCUMENTS = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
Document = dict[str, JsonValue]
SAVED: Document = {
    "name": "mask",
    "version": "1.0.0",
    "title": "Mask",
    "tileable": "map",
    "resources": {"ram": 2},
    "input": {
        "definitions": {"Image": {"type": "string"}, "Season": {"enum": ["wet", "dry"]}},
        "properties": {
            "scene": {
                "$ref": "#/definitions/Image",
                "description": "a scene",
                "x-raster": {
                    "bands": ["red", "nir"],
                    "dtype": "uint16",
                    "nodata": 0,
                    "margin": 2,
                    "tile": {"max": 4096},
                    "memory": {"input_pixel": 8},
                    "capabilities": {"sensors": ["LANDSAT-8"]},
                },
            },
            "season": {"$ref": "#/definitions/Season"},
            "limit": {"type": "number", "default": 0.5, "maximum": 1},
        },
        "required": ["scene"],
    },
    "output": {
        "properties": {
            "mask": {"$ref": "#/definitions/Image", "x-raster": {"bands": 1, "dtype": "uint8"}},
            "area": {"type": "number"},
        }
    },
}
SCENE = "/input/properties/scene"
RASTER = f"{SCENE}/x-raster"


def at(pointer: str, value: JsonValue) -> Document:
    """A merge patch that sets what the pointer names; None removes it."""
    patch: JsonValue = value
    for key in reversed(pointer.strip("/").split("/")):
        patch = {key: patch}
    assert isinstance(patch, dict)
    return patch


def changes(patch: Document) -> dict[str, bool]:
    """Pointer -> whether it breaks, of the saved description and the patched one."""
    live = Description.parse(merge_patch(copy.deepcopy(SAVED), patch))
    return {each.pointer: each.breaking for each in drift(Description.parse(SAVED), live)}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/name", "other"),
        ("/tileable", "whole"),
        (f"{RASTER}/bands", ["nir", "red"]),
        (f"{RASTER}/bands", 2),
        (f"{RASTER}/dtype", ["uint16", "uint8"]),
        (f"{RASTER}/nodata", None),
        (f"{RASTER}/nodata", 1),
        (f"{RASTER}/margin", 3),
        (f"{RASTER}/margin", 1),
        (f"{RASTER}/margin", {"top": 2, "right": 2, "bottom": 2}),
        (f"{RASTER}/edge", "reflect"),
        (f"{RASTER}/align", 2),
        (f"{RASTER}/exactness", {"rtol": 1e-6}),
        (f"{RASTER}/tile", {"max": 512}),
        ("/output/properties/mask/x-raster/scale", 2),
        ("/output/properties/mask/x-raster/dtype", "uint16"),
        ("/output/properties/area", None),
        ("/output/properties/area/type", "string"),
        ("/input/properties/limit", None),
        ("/input/properties/limit/type", "integer"),
        ("/input/properties/limit/default", 0.6),
        ("/input/properties/limit/maximum", 0.9),
        ("/input/definitions/Season/enum", ["wet"]),
        ("/input/properties/season/$ref", "#/definitions/Images"),
    ],
)
def test_what_decides_pixels_types_or_ports_is_breaking(pointer: str, value: JsonValue) -> None:
    """Of a change, in whichever direction: the check of the saved one does not hold for it."""
    found = changes(at(pointer, value))
    assert any(found.values())
    assert all(pointer.startswith(each) for each, breaking in found.items() if breaking)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/version", "1.1.0"),
        ("/title", "Masks"),
        ("/description", "new words"),
        ("/resources", {"ram": 4}),
        ("/keywords", ["cloud"]),
        ("/asynchronous", True),
        (f"{SCENE}/description", "one scene"),
        (f"{RASTER}/memory/input_pixel", 16),
        (f"{RASTER}/capabilities", None),
        (f"{RASTER}/x-own", 1),
        ("/input/properties/more", {"type": "number"}),
        ("/output/properties/more", {"type": "number"}),
        ("/input/definitions/Season/description", "of the year"),
        ("/input/required", []),
    ],
)
def test_what_adds_or_explains_is_compatible(pointer: str, value: JsonValue) -> None:
    """It is told, and breaks nothing."""
    found = changes(at(pointer, value))
    assert found
    assert not any(found.values()), found


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/_links", {"self": {"href": "http://elsewhere"}}),
        (f"{RASTER}/edge", "clip"),
        (f"{RASTER}/align", 1),
        (f"{RASTER}/exactness", "bitwise"),
        (f"{RASTER}/margin", {"top": 2, "right": 2, "bottom": 2, "left": 2}),
        (f"{RASTER}/dtype", ["uint16"]),
        ("/output/properties/mask/x-raster/scale", ["1", 1.0]),
        ("/output/properties/mask/x-raster/margin", 0),
    ],
)
def test_another_way_to_say_the_same_is_no_change(pointer: str, value: JsonValue) -> None:
    """Links, defaults written out, one number for four sides."""
    assert changes(at(pointer, value)) == {}


def test_a_port_newly_required_breaks() -> None:
    """A new one, and one that was optional: calls of yesterday lack it."""
    required: Document = {"input": {"required": ["scene", "limit"]}}
    assert changes(required) == {"/input/properties/limit": True}
    new = merge_patch(at("/input/properties/more", {}), {"input": {"required": ["scene", "more"]}})
    assert isinstance(new, dict)
    assert changes(new) == {"/input/properties/more": True}


def test_a_fold_that_changed_breaks() -> None:
    """Partials of yesterday would be merged in another way."""
    reduce: Document = {"tileable": "reduce", "x-reduce": {"n": "sum"}}
    saved = Description.parse(merge_patch(copy.deepcopy(SAVED), reduce))
    live = saved.overlaid({"x-reduce": {"n": "max"}})
    assert [(c.pointer, c.breaking) for c in drift(saved, live)] == [("/x-reduce", True)]


def test_pointers_are_escaped() -> None:
    """A port may be called anything."""
    assert changes({"input": {"properties": {"a/b~c": {}}}}) == {"/input/properties/a~1b~0c": False}


def test_changes_come_in_one_order() -> None:
    """The same drift reads the same at every look."""
    patch: Document = {"output": {"properties": {"mask": None, "area": None, "z": {}, "a": {}}}}
    live = Description.parse(merge_patch(copy.deepcopy(SAVED), patch))
    pointers = [each.pointer for each in drift(Description.parse(SAVED), live)]
    assert pointers == [f"/output/properties/{name}" for name in ("area", "mask", "a", "z")]


@pytest.mark.parametrize("document", [SAVED, *DOCUMENTS], ids=lambda each: str(each["name"]))
def test_nothing_drifts_from_itself(document: Document) -> None:
    """Nor from a copy with its keys in another order."""
    description = Description.parse(document)
    other = Description.parse(dict(reversed(document.items())))
    assert drift(description, description) == drift(description, other) == ()


VALUES = st.sampled_from([None, 0, 1, 2, "uint8", "1/2", [1], {}, {"type": "number"}, "text"])
PLACES = st.sampled_from([
    "/title", f"{RASTER}/margin", f"{RASTER}/align", f"{RASTER}/x-own", f"{RASTER}/nodata",
    "/input/properties/limit", "/input/properties/limit/minimum", "/output/properties/new",
])  # fmt: skip


@settings(deadline=None, derandomize=True)
@given(place=PLACES, value=VALUES)
def test_drift_is_seen_from_both_sides(place: str, value: JsonValue) -> None:
    """Empty one way exactly where it is empty the other way, and where documents are the same."""
    document = merge_patch(copy.deepcopy(SAVED), at(place, value))
    try:
        live = Description.parse(document)
    except InvalidContract:  # not every draw is a contract
        return
    saved = Description.parse(SAVED)
    there, back = drift(saved, live), drift(live, saved)
    assert bool(there) == bool(back)
    assert {each.pointer for each in there} == {each.pointer for each in back}
    assert is_breaking(there) == any(each.breaking for each in there)
    assert drift(live, live) == ()
