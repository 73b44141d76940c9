"""Which ports an input feeds, and the limits that a form can show of them."""

from __future__ import annotations

import pytest

from pesto_runtime.pipeline import fed_ports, input_defaults, input_faults, input_schema
from tests.unit.pipeline.building import NUMBER, image, pipeline, process

ONE = process("one", {"x": image(), "gain": {**NUMBER, "minimum": 0, "maximum": 9}}, {"y": image()})
TWO = process(
    "two",
    {"x": image(), "limit": {**NUMBER, "minimum": 2, "maximum": 12}, "word": {"enum": ["a", "b"]}},
    {"y": image()},
    optional=("word",),
)
MADE = pipeline(
    {
        "a": ("one", {"x": "$inputs.scene", "gain": "$inputs.level"}),
        "b": ("two", {"x": "$a.y", "limit": "$inputs.level", "word": "$inputs.word"}),
        "c": ("two", {"x": "$b.y", "limit": 3, "word": "$$inputs.level"}),
    },
    {"o": "$c.y"},
    inputs={"scene": "image", "level": "number", "word": "string", "unused": "array"},
)
DESCRIPTIONS = {"one": ONE, "two": TWO}


def test_every_port_that_an_input_feeds_is_found() -> None:
    """In several stages, under other names; a literal with an escaped `$` is no input."""
    fed = fed_ports(MADE, DESCRIPTIONS)
    assert {name: [str(port) for port in ports] for name, ports in fed.items()} == {
        "scene": ["'x' of stage 'a'"],
        "level": ["'gain' of stage 'a'", "'limit' of stage 'b'"],
        "word": ["'word' of stage 'b'"],
        "unused": [],
    }


def test_a_process_without_a_description_feeds_nothing() -> None:
    """It is reported elsewhere; the ports of the others are found."""
    fed = fed_ports(MADE, {"one": ONE})
    assert [str(port) for port in fed["level"]] == ["'gain' of stage 'a'"]


@pytest.mark.parametrize(
    ("schemas", "expected"),
    [
        ([{"default": 3}], {"value": 3}),
        ([{"default": None}], {"value": None}),
        ([{"default": 3}, {"default": 3}], {"value": 3}),
        ([{"default": 3}, {"default": 4}], {}),
        ([{"default": 3}, {}], {}),
        ([{}, {"default": 3}], {}),
        ([], {}),
    ],
)
def test_a_default_is_that_of_all_ports(
    schemas: list[dict[str, object]], expected: dict[str, object]
) -> None:
    """A scene never has one."""
    inputs = {f"p{index}": schema for index, schema in enumerate(schemas)}
    description = process("many", {"x": {**image(), "default": "s.tif"}, **inputs}, {"y": image()})
    bindings = {"x": "$inputs.scene", **dict.fromkeys(inputs, "$inputs.value")}
    made = pipeline(
        {"s": ("many", bindings)}, {"o": "$s.y"}, inputs={"scene": "image", "value": "number"}
    )
    assert input_defaults(made, {"many": description}) == expected


def test_null_is_not_a_value_of_an_input_that_feeds_no_port() -> None:
    """No port accepts it; a value of the type is accepted."""
    given = {"scene", "level", "word", "unused"}
    (fault,) = input_faults(MADE, DESCRIPTIONS, {"unused": None}, given=given)
    assert str(fault).startswith("/inputs/unused: must be array, not None: write a list as -i ")
    assert not [*input_faults(MADE, DESCRIPTIONS, {"unused": []}, given=given)]


@pytest.mark.parametrize(
    ("kind", "schemas", "expected"),
    [
        ("number", [{"minimum": 0, "maximum": 9}, {"minimum": 2, "maximum": 12}],
         {"type": "number", "minimum": 2, "maximum": 9}),
        ("number", [{"exclusiveMinimum": 1, "exclusiveMaximum": 9}, {"exclusiveMinimum": 3}],
         {"type": "number", "exclusiveMinimum": 3, "exclusiveMaximum": 9}),
        ("string", [{"enum": ["a", "b", "c"]}, {"enum": ["c", "b"]}],
         {"type": "string", "enum": ["b", "c"]}),
        ("string", [{"minLength": 2, "maxLength": 8}, {"minLength": 1, "maxLength": 4}],
         {"type": "string", "minLength": 2, "maxLength": 4}),
        ("number", [{"anyOf": [{"type": "number", "minimum": 1}, {"type": "null"}], "title": "x"}],
         {"type": "number", "minimum": 1}),
        ("number", [{"type": "integer", "default": 3}], {"type": "number"}),
        ("integer", [], {"type": "integer"}),
    ],
    ids=["range", "exclusive", "enum", "length", "nullable", "nothing to inherit", "unused"],
)  # fmt: skip
def test_a_form_has_the_limits_of_all_ports(
    kind: str, schemas: list[dict[str, object]], expected: dict[str, object]
) -> None:
    """The narrowest of each; the type is that of the input."""
    inputs = {f"p{index}": schema for index, schema in enumerate(schemas)}
    description = process("many", {"x": image(), **inputs}, {"y": image()})
    bindings = {"x": "$inputs.scene", **dict.fromkeys(inputs, "$inputs.value")}
    made = pipeline(
        {"s": ("many", bindings)}, {"o": "$s.y"}, inputs={"scene": "image", "value": kind}
    )
    assert input_schema(kind, fed_ports(made, {"many": description})["value"]) == expected
