"""The quick yes is never wrong: whatever it accepts, jsonschema accepts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft6Validator

from pesto_runtime.schema import surely_fits

TYPES = ["number", "integer", "string", "boolean", "object", "array"]
NAMES = st.sampled_from("ab")
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([-1.5, 0.0, 1.0, 2.5, float("nan")]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(["", "a", "b"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner)),
    max_leaves=4,
)  # fmt: skip
SCALARS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*TYPES, ["string", "null"]]),
        "minimum": st.integers(-2, 2), "maximum": st.integers(-2, 2), "enum": st.just(["a", 1]),
        "minLength": st.just(1), "title": st.just("t"), "exclusiveMinimum": st.just(0),
    },
)  # fmt: skip
SCHEMAS = st.one_of(
    SCALARS,
    st.fixed_dictionaries(
        {"properties": st.dictionaries(st.sampled_from("ab"), SCALARS)},
        optional={
            "type": st.sampled_from(["object", "array"]), "required": st.just(["a"]),
            "additionalProperties": st.just(False), "definitions": st.just({}),
        },
    ),
)  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=1500)
@given(SCHEMAS, VALUES)
def test_what_surely_fits_fits(schema: dict[str, object], value: object) -> None:
    """For schemas of every kind, known to it or not."""
    if surely_fits(schema)(value):  # type: ignore[arg-type]  # JSON
        assert Draft6Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "number", "minimum": 0, "title": "x"}, 1.5),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {"a": ""}),
    ],
)
def test_the_plain_case_is_quick(schema: dict[str, object], value: object) -> None:
    """Control: it says yes at all."""
    assert surely_fits(schema)(value)  # type: ignore[arg-type]  # JSON
