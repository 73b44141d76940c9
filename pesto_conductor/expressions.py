"""Find the expressions of a workflow definition, and check one against a JSON schema.

This file does not know which tasks a workflow has: `lint.py` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import json_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

# Conductor escapes a literal `${` as `$${`.
_EXPRESSION = re.compile(r"(?<!\$)\$\{([^{}]*)\}")
_BRACE = re.compile(r"(?P<open>(?<!\$)\$\{)|(?P<more>\{)|(?P<close>\})")
_STEP = re.compile(r"\.?(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\*)\]|\['(?P<quoted>[^']*)'\]")


@dataclass(frozen=True)
class Expression:
    """One expression `${…}`.

    Attributes:
        text: The text between the braces.
        pointer: JSON pointer to the string that contains it.
        steps: Its names and indices; the first is a task reference or `workflow`.
    """

    text: str
    pointer: str
    steps: tuple[str, ...]

    @property
    def owner(self) -> str:
        """The task reference from which it reads, or `workflow`."""
        return self.steps[0] if self.steps else ""


def expressions(value: JsonValue, *, pointer: str = "") -> Iterator[Expression]:
    """Yield every expression in the strings of a value.

    >>> [each.steps for each in expressions({"a": ["${plan.output.chunks[0]}", "$${x}"]})]
    [('plan', 'output', 'chunks', '0')]
    """
    if isinstance(value, str):
        for found in _EXPRESSION.finditer(value):
            yield Expression(found[1], pointer, _steps(found[1]))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from expressions(each, pointer=pointer + json_pointer(index))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from expressions(each, pointer=pointer + json_pointer(key))


def unclosed(value: JsonValue, *, pointer: str = "") -> Iterator[str]:
    """Yield JSON pointers to the strings in a value that begin an expression and do not end it.

    >>> list(unclosed({"a": "${plan.output.plan", "b": "${plan.output.plan}", "c": "$${x"}))
    ['/a']
    """
    if isinstance(value, str):
        if _ends_inside(value):
            yield pointer
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from unclosed(each, pointer=pointer + json_pointer(index))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from unclosed(each, pointer=pointer + json_pointer(key))


def _ends_inside(text: str) -> bool:
    """Whether a text ends within an expression; braces outside expressions are text."""
    depth = 0
    for brace in _BRACE.finditer(text):
        if brace["open"] or (brace["more"] and depth):
            depth += 1
        elif brace["close"] and depth:
            depth -= 1
    return depth > 0


def missing_field(schema: JsonValue, steps: tuple[str, ...]) -> str | None:
    """Follow steps through a JSON schema; return the fault of the first step without a target.

    A field that the schema does not declare is valid if `additionalProperties` permit it.

    >>> missing_field({"properties": {"tiles": {"type": "integer"}}}, ("tile",))
    "has no field 'tile'; there are: tiles"
    """
    here: JsonValue = schema
    for step in steps:
        here = _resolved(here, schema)
        if not isinstance(here, dict):
            return None
        if step.isdigit() or step == "*":
            if here.get("type") in ("object", "string", "integer", "number", "boolean"):
                return f"is not an array: [{step}] has no target"
            here = here.get("items", True)
            continue
        properties = here.get("properties")
        if isinstance(properties, dict) and step in properties:
            here = properties[step]
        elif here.get("additionalProperties", not properties) is False:
            known = ", ".join(properties) if isinstance(properties, dict) else "none"
            return f"has no field {step!r}; there are: {known}"
        else:
            here = here.get("additionalProperties", True)
    return None


def field_schema(schema: JsonValue, steps: tuple[str, ...]) -> JsonValue:
    """Follow steps through a JSON schema; return the schema there, True if it is not known.

    >>> field_schema({"properties": {"chunks": {"items": {"type": "array"}}}}, ("chunks", "0"))
    {'type': 'array'}
    """
    here: JsonValue = schema
    for step in steps:
        here = _resolved(here, schema)
        if not isinstance(here, dict):
            return True
        properties = here.get("properties")
        if step.isdigit() or step == "*":
            here = here.get("items", True)
        elif isinstance(properties, dict) and step in properties:
            here = properties[step]
        else:
            here = here.get("additionalProperties", True)
    return _resolved(here, schema)


def types_of(schema: JsonValue) -> frozenset[str]:
    """Return the JSON types that a schema permits; empty if it permits any, or they are not known.

    >>> sorted(types_of({"anyOf": [{"type": "integer"}, {"type": "null"}]}))
    ['integer', 'null']
    """
    if not isinstance(schema, dict):
        return frozenset()
    if isinstance(options := schema.get("anyOf"), list):
        found = [types_of(each) for each in options]
        return frozenset().union(*found) if all(found) else frozenset()
    if isinstance(values := schema.get("enum"), list):
        return frozenset(_type_name(value) for value in values)
    declared = schema.get("type")
    listed = declared if isinstance(declared, list) else [declared] if declared else []
    return frozenset(str(each) for each in listed)


def fits(given: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether a value of one of some types can be of a wanted type; unknown types fit."""
    given = given - {"null"}
    if not given or not wanted:
        return True
    numbers = {"integer", "number"}
    return bool(given & wanted) or bool(given & numbers and wanted & numbers)


def _type_name(value: JsonValue) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array",
             dict: "object"}  # fmt: skip
    return names.get(type(value), "null")


def _steps(text: str) -> tuple[str, ...]:
    return tuple(
        found["name"] or found["index"] or found["quoted"] or "" for found in _STEP.finditer(text)
    )


def _resolved(schema: JsonValue, root: JsonValue) -> JsonValue:
    """Return the target of a `$ref`, the type of a nullable schema, or else the schema itself."""
    if isinstance(schema, dict) and isinstance(root, dict):
        target = schema.get("$ref")
        if isinstance(target, str):
            definitions = root.get("$defs")
            name = target.rpartition("/")[2]
            return definitions.get(name) if isinstance(definitions, dict) else True
        types = _types(schema)
        if len(types) == 1:
            return _resolved(types[0], root)
    return schema


def _types(schema: Mapping[str, JsonValue]) -> list[JsonValue]:
    options = schema.get("anyOf")
    return (
        [each for each in options if each != {"type": "null"}] if isinstance(options, list) else []
    )
