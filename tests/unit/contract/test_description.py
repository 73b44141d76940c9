"""A description is read without loss, and refused with every wrong field at once."""

import copy
import hashlib
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from pesto_runtime.contract import Description, Margin, merge_patch
from pesto_runtime.errors import InvalidContract

FOLDER = Path(__file__).parents[2] / "data" / "pesto_descriptions"
FILES = sorted(FOLDER.glob("*.json"))
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-1e6, 1e6) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
QUIET = settings(deadline=None, derandomize=True)
Document = dict[str, JsonValue]


def minimal(**keys: JsonValue) -> Document:
    document: Document = {"name": "p", "version": "1", "input": {}, "output": {}}
    return document | keys


def with_port(raster: JsonValue, name: str = "scene") -> Document:
    return minimal(input={"properties": {name: {"x-raster": raster}}})


def read(name: str) -> Document:
    document: Document = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def shuffled(value: JsonValue) -> JsonValue:
    """The same JSON with every object's keys in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_pesto_description_is_read_without_loss(path: Path) -> None:
    """Unknown keys at any depth, empty ones and their order: all as they were."""
    document = json.loads(path.read_text())
    description = Description.parse(document)
    assert json.dumps(description.to_json()) == json.dumps(document)
    assert description == Description.parse(json.loads(path.read_text()))


@QUIET
@given(extra=st.dictionaries(KEYS.map("x-".__add__), JSON, max_size=3), inner=JSON)
def test_any_unknown_key_is_kept(extra: Document, inner: JsonValue) -> None:
    """Beside the known keys, in a port's schema and in `x-raster`."""
    document = with_port({"margin": 3, "x-of-mine": inner}) | extra
    assert Description.parse(document).to_json() == document


def test_reading_leaves_the_document_alone_and_keeps_its_own() -> None:
    """Neither the caller's document nor the answer of `to_json` is the description's."""
    document = read("water_levels")
    before = copy.deepcopy(document)
    description = Description.parse(document)
    document["input"]["properties"].clear()  # type: ignore[index,union-attr,call-overload]
    description.to_json().clear()
    assert description.to_json() == before
    assert description.input("image") is not None
    assert "enum" in description.input("season").schema  # type: ignore[union-attr]


def test_ports_are_of_the_kind_that_their_schema_says() -> None:
    """Images by `$ref`, lists of them, all else JSON; required and default as told."""
    description = Description.parse(read("water_levels"))
    kinds = {port.name: (port.kind, port.required, port.has_default) for port in description.inputs}
    assert kinds == {
        "image": ("image", True, False),
        "extras": ("images", False, False),
        "settings": ("json", False, False),
        "level": ("json", False, True),
        "season": ("json", False, False),
        "nested": ("json", False, False),
    }
    assert [(p.name, p.kind) for p in description.outputs] == [
        ("water", "image"), ("outlines", "json"), ("area", "json")
    ]  # fmt: skip


def test_what_says_nothing_of_tiles_needs_the_whole_image() -> None:
    """A PESTO service of today cannot be tiled: its `config` there is a schema, no values."""
    description = Description.parse(read("water_levels"))
    assert description.tileable == "whole"
    assert description.margin == Margin()


@pytest.mark.parametrize(
    ("name", "ports", "margin"),
    [("ship_tiles", ["tile"], 48), ("tile_changes", ["before", "after"], 0)],
)
def test_padding_of_a_tile_template_is_the_margin(name: str, ports: list[str], margin: int) -> None:
    """The geoprocessing templates name the border of their tiles; it makes them tileable."""
    description = Description.parse(read(name))
    assert [port.name for port in description.image_inputs] == ports
    assert description.margin == Margin.of(margin)
    assert description.tileable == "map"


@pytest.mark.parametrize("padding", [True, -1, "48", None, 1.5, {"minimum": 0}])
def test_a_padding_that_is_no_number_of_pixels_makes_nothing_tileable(padding: JsonValue) -> None:
    """Negative control: what is not understood is not guessed."""
    document = read("ship_tiles") | {"config": {"zoom": [15], "padding": padding}}
    assert Description.parse(document).tileable == "whole"


def test_padding_elsewhere_is_only_a_parameter() -> None:
    """Without one of the templates, `config.padding` may mean anything."""
    document = read("ship_tiles") | {"template": "object-detection"}
    assert Description.parse(document).margin == Margin()


def test_an_own_contract_wins_over_padding() -> None:
    """What a port says of itself is not overruled by its template."""
    patch: Document = {"input": {"properties": {"before": {"x-raster": {"margin": 5}}}}}
    description = Description.parse(read("tile_changes")).overlaid(patch)
    assert description.margin == Margin.of(5)


@pytest.mark.parametrize(
    ("document", "canonical"),
    [
        (
            {"version": "1", "name": "p", "output": {}, "input": {}, "_links": {"self": 1}},
            '{"input":{},"name":"p","output":{},"version":"1"}',
        ),
        (
            {"name": "é\n\u20ac", "version": "1", "input": {"properties": {}}, "output": {},
             "\U0001f600": [1.0, 1e21, 0.1, -0.0, 4.5e-7], "\ufb33": None, "_Z": True},
            ('{"_Z":true,"input":{"properties":{}},"name":"é\\n€","output":{},"version":"1",'
            '"\U0001f600":[1,1e+21,0.1,0,4.5e-7],"\ufb33":null}'),
        ),
    ],
)  # fmt: skip
def test_the_digest_is_of_the_canonical_text(document: Document, canonical: str) -> None:
    """Keys sorted by UTF-16, numbers as JavaScript writes them, no `_links`: texts by hand."""
    expected = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    assert Description.parse(document).digest == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_digest_heeds_neither_order_nor_links(path: Path) -> None:
    """Two deployments of one process say the same; a changed letter does not."""
    document = json.loads(path.read_text())
    digest = Description.parse(document).digest
    other = shuffled(document)
    assert isinstance(other, dict)
    other["_links"] = {"self": {"href": "https://elsewhere.example"}}
    assert Description.parse(other).digest == digest
    assert Description.parse(document | {"version": "9.9.9"}).digest != digest


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 2**60])
def test_a_number_that_json_cannot_carry_has_no_digest(number: float) -> None:
    """It is refused by name, not hashed as something else."""
    with pytest.raises(InvalidContract, match="no canonical form"):
        _ = Description.parse(minimal(extra=number)).digest


def test_a_description_crosses_processes() -> None:
    """Pickled and back, it is equal, ports and all."""
    for path in FILES:
        description = Description.parse(json.loads(path.read_text()))
        back = pickle.loads(pickle.dumps(description))  # noqa: S301  # of our own making
        assert back == description
        assert back.digest == description.digest


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_an_overlay_is_a_merge_patch(
    target: JsonValue, patch: JsonValue, result: JsonValue
) -> None:
    """Every row of the table in RFC 7396, appendix A; the target stays as it was."""
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == result
    assert target == before


def test_an_overlay_says_what_a_service_does_not() -> None:
    """A plain PESTO service becomes tileable; its own digest is not touched."""
    plain = Description.parse(read("water_levels"))
    overlay: Document = {
        "tileable": "map",
        "input": {"properties": {"image": {"x-raster": {"bands": 3, "margin": {"top": 4}}}}},
    }
    known = plain.overlaid(overlay)
    assert (known.tileable, known.margin) == ("map", Margin(top=4))
    assert known.digest != plain.digest
    assert plain.tileable == "whole"
    assert known.to_json()["_links"] == plain.to_json()["_links"]


def test_the_largest_margin_of_the_images_is_the_process_s() -> None:
    """Side by side, as all images of a call are read by one window."""
    ports: Document = {
        "a": {"x-raster": {"margin": {"top": 3, "left": 1}}},
        "b": {"x-raster": {"margin": 2}},
    }
    description = Description.parse(minimal(input={"properties": ports}))
    assert description.margin == Margin(3, 2, 2, 2)
