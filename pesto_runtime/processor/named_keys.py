"""The part of a JSON value that its schema names: what a PESTO project is given of an object.

PESTO hands an algorithm the properties that a nested schema lists, and no others; projects may pass
them on as keyword arguments. An object whose schema lists none, or speaks of others, stays whole;
so does one behind a `$ref`, which PESTO never took.
"""

from __future__ import annotations


def named_part(value: object, schema: object) -> object:
    """Leave out keys that the schema does not name, at every depth.

    >>> schema = {"type": "object", "properties": {"a": {"type": "number"}}}
    >>> named_part({"a": 1, "b": 2}, schema)
    {'a': 1}
    >>> named_part({"a": 1, "b": 2}, {"type": "object"})
    {'a': 1, 'b': 2}
    """
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list):
        return [named_part(each, schema.get("items")) for each in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    is_open = "additionalProperties" in schema or "patternProperties" in schema
    return {
        key: named_part(each, properties.get(key))
        for key, each in value.items()
        if is_open or key in properties
    }
