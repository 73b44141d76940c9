"""A quick yes to a value that plainly fits its JSON Schema; jsonschema judges all the rest.

It never says no: what it does not understand, or does not like, is for a validator to tell of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    SurelyFits: TypeAlias = Callable[[object], bool]

_TYPES: dict[object, tuple[type, ...]] = {
    "number": (int, float), "integer": (int,), "string": (str,), "boolean": (bool,),
}  # fmt: skip
_SAYING_NOTHING = {"title", "description", "default", "examples", "$schema", "format", "$comment"}
_OF_OBJECTS = {*_SAYING_NOTHING, "type", "properties", "definition", "definitions", "required"}


def surely_fits(schema: Mapping[str, JsonValue]) -> SurelyFits:
    """A check of scalars and flat objects that is True only where a value fits for sure.

    Args:
        schema: JSON Schema of a value.

    >>> surely_fits({"type": "integer", "minimum": 1})(0)
    False
    >>> surely_fits({"properties": {"a": {"type": "string"}}})({"a": "b"})
    True
    """
    properties = schema.get("properties")
    if isinstance(properties, dict) and schema.keys() <= _OF_OBJECTS:
        required = schema.get("required", [])
        if schema.get("type", "object") == "object" and isinstance(required, list):
            return _object_check(properties, {str(name) for name in required})
        return _unsure
    return _scalar_check(schema)


def _unsure(_value: object) -> bool:
    return False


def _object_check(properties: Mapping[str, JsonValue], required: set[str]) -> SurelyFits:
    checks = {
        name: surely_fits(each) if isinstance(each, dict) else _unsure
        for name, each in properties.items()
    }

    def fits(value: object) -> bool:
        return (
            type(value) is dict
            and required <= value.keys()
            and all(name in checks and checks[name](each) for name, each in value.items())
        )

    return fits


def _scalar_check(schema: Mapping[str, JsonValue]) -> SurelyFits:
    bounds = {"minimum", "maximum"} if schema.get("type") in ("number", "integer") else set[str]()
    least, most = schema.get("minimum"), schema.get("maximum")
    kind = schema.get("type")
    types = _TYPES.get(kind) if isinstance(kind, str) else None
    if types is None or not schema.keys() <= {*_SAYING_NOTHING, *bounds, "type"}:
        return _unsure
    if not all(each is None or isinstance(each, (int, float)) for each in (least, most)):
        return _unsure

    def fits(value: object) -> bool:
        if type(value) not in types:
            return False
        return (least is None or value >= least) and (most is None or value <= most)  # type: ignore[operator]  # numbers, for only they have bounds

    return fits
