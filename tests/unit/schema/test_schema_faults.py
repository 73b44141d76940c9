"""JSON Schema at work: every wrong field at once, and what can be known before a value is there."""

import pytest
from pydantic import JsonValue

from pesto_runtime.errors import InvalidContract
from pesto_runtime.schema import schema_faults, typed_text, why_not_accepted

SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["wet", "dry"]},
        "a/b": {"type": "array", "items": {"type": ["number", "null"]}},
        "image": {"$ref": "#/definitions/Image"},
    },
    "required": ["n"],
    "definitions": {"Image": {"type": "string", "maxLength": 100}},
}


def faults(schema: dict[str, JsonValue], value: JsonValue) -> dict[str, str]:
    return {each.pointer: each.detail for each in schema_faults(schema, value, pointer="/in")}


def test_every_wrong_field_is_reported_with_its_pointer() -> None:
    """In words that name what is allowed; escaped as RFC 6901 says."""
    value: JsonValue = {"n": -1, "kind": "icy", "a/b": [1, None, "x"], "image": 3}
    assert faults(SCHEMA, value) == {
        "/in/n": "must be at least 0",
        "/in/kind": "must be one of ['wet', 'dry']",
        "/in/a~1b/2": "must be number or null",
        "/in/image": "must be string",
    }
    assert faults(SCHEMA, {}) == {"/in": "'n' is a required property"}


def test_a_value_that_fits_has_no_fault() -> None:
    """Negative control."""
    assert faults(SCHEMA, {"n": 0, "kind": "dry", "a/b": [None, 1.5], "image": "a"}) == {}


def nested(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value]
    return value


NAN, INFINITE = float("nan"), float("inf")
NULLABLE: dict[str, JsonValue] = {
    "anyOf": [{"type": "array", "items": {"type": "integer", "enum": [1, 2]}}, {"type": "null"}]
}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "number"}, NAN, {"/in": "must be a finite number"}),
        ({}, {"a": [1, -INFINITE], "b/": NAN},
         {"/in/a/1": "must be a finite number", "/in/b~1": "must be a finite number"}),
        ({}, {"a": [1, -2.5], "b/": 1e300}, {}),
        ({}, nested(101), {"/in" + 101 * "/0": "is nested deeper than 100 levels"}),
        ({}, nested(100), {}),
    ],
    ids=["alone", "nested", "finite", "too deep", "deep"],
)  # fmt: skip
def test_what_a_plan_cannot_store_is_a_fault(
    schema: dict[str, JsonValue], value: JsonValue, expected: dict[str, str]
) -> None:
    """JSON has no NaN, a plan would store it as null; and parsers limit the depth."""
    assert faults(schema, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([3, "x", 1], {"/in/0": "must be one of [1, 2]", "/in/1": "must be integer"}),
        ("x", {"/in": "must be array or null"}),
        (None, {}),
    ],
    ids=["elements", "neither", "null"],
)
def test_of_a_choice_the_branch_of_the_type_is_reported(
    value: JsonValue, expected: dict[str, str]
) -> None:
    """Every wrong element, and one fault for an element of another type."""
    assert faults(NULLABLE, value) == expected
    assert len(list(schema_faults(NULLABLE, value))) == len(expected)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "string"}, "null", "null"),
        ({"type": "number"}, "5", 5),
        ({"type": "number"}, "five", "five"),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": ["string", "null"]}, "5", "5"),
        ({"type": ["string", "null"]}, "null", "null"),
        ({"type": ["string", "integer"]}, "5", "5"),
        ({"type": ["string", "integer"]}, "2.5", "2.5"),
        ({"type": ["string", "boolean"]}, "true", "true"),
        ({"type": ["string", "boolean"]}, "1", "1"),
        ({"type": "array"}, "[1, {}]", [1, {}]),
        ({}, "5", 5),
        ({}, "five", "five"),
        ({"title": "Any"}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "2024", "2024"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "2.0", 2.0),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x", "x"),
        ({"anyOf": [{"type": "string", "minLength": 3}, {"type": "integer"}]}, "5", 5),
        ({"anyOf": [{"type": "string", "minLength": 3}, {"type": "null"}]}, "5", "5"),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, "12e5", "12e5"),
        ({"allOf": [{"type": "string"}]}, "5", "5"),
        ({"enum": ["8", "16"]}, "8", "8"),
        ({"enum": ["8", "16"]}, "9", "9"),
        ({"enum": [8, 16]}, "8", 8),
        ({"enum": ["8", 8]}, "8", "8"),
        ({"const": "8"}, "8", "8"),
        ({"type": "string", "minLength": 5}, "123", "123"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "123", "123"),
        ({"$ref": "#/definitions/S", "definitions": {"S": {"type": "string"}}}, "5", "5"),
        ({"$ref": "#/definitions/N", "definitions": {"N": {"type": "number"}}}, "5", 5),
        ({"$ref": "#/definitions/O", "definitions": {"O": {"type": "object"}}}, "{}", {}),
        ({"$ref": "#/definitions/None"}, "5", 5),
        ({"minLength": 3}, "5", 5),
        ({"type": "array"}, "[" * 100_000, "[" * 100_000),
    ],
)  # fmt: skip
def test_a_text_is_read_by_the_type_of_its_schema(
    schema: dict[str, JsonValue], text: str, value: JsonValue
) -> None:
    """What is not JSON stays a text, which the schema then rejects by name."""
    read = typed_text(schema, text)
    assert (read, type(read)) == (value, type(value))


def test_a_long_value_makes_a_short_message() -> None:
    """Ten megabytes that do not fit are not repeated."""
    found = list(schema_faults(SCHEMA, {"n": 1, "image": "x" * 10_000_000}))
    assert len(found) == 1
    assert len(str(found[0])) + len(str(found[0].value)) < 500


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "nmber"}, "not a JSON schema"),
        ({"$ref": "#/definitions/Nope"}, "/definitions/Nope cannot be resolved"),
    ],
)
def test_what_is_no_schema_is_refused_by_name(schema: dict[str, JsonValue], reason: str) -> None:
    """The author's mistake, never a crash and never taken for the caller's."""
    with pytest.raises(InvalidContract, match=reason):
        faults(schema, 1)


@pytest.mark.parametrize("draft", ["draft-06", "draft-07"])
def test_the_schema_s_own_draft_is_heeded(draft: str) -> None:
    """PESTO writes draft-06, where an exclusive bound is a number."""
    schema: dict[str, JsonValue] = {
        "$schema": f"http://json-schema.org/{draft}/schema#",
        "exclusiveMinimum": 0,
    }
    assert faults(schema, 0)
    assert not faults(schema, 1)


@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ({"type": "number"}, {"type": "integer"}),
        ({"type": "number"}, {"type": "number"}),
        ({"type": ["number", "null"]}, {"type": "integer"}),
        ({}, {"type": "object"}),
        ({"type": "string"}, {}),
        ({"enum": ["a", "b", "c"]}, {"enum": ["a", "c"]}),
        ({"type": "string"}, {"type": "string", "enum": ["a"]}),
    ],
)
def test_what_fits_may_be_bound(taken: dict[str, JsonValue], given: dict[str, JsonValue]) -> None:
    """And what cannot be known before the value is there is let pass."""
    assert why_not_accepted(taken, given) is None


@pytest.mark.parametrize(
    ("taken", "given", "reason"),
    [
        ({"type": "integer"}, {"type": "number"}, "number given, integer taken"),
        ({"type": "number"}, {"type": "string"}, "string given, number taken"),
        ({"type": "number"}, {"type": ["number", "null"]}, "null or number given, number taken"),
        ({"type": "object"}, {"type": "array"}, "array given, object taken"),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, "may be 'b', which is not one of"),
    ],
)
def test_a_schema_that_cannot_fit_is_explained(
    taken: dict[str, JsonValue], given: dict[str, JsonValue], reason: str
) -> None:
    """With both sides named."""
    message = why_not_accepted(taken, given)
    assert message is not None
    assert reason in message
