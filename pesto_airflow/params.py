"""A process's inputs as a DAG's `params`: Airflow's form asks for them, by their schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Param

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port

_NOT_FOR_FORMS = ("$ref", "x-raster", "x-vector", "default", "description", "examples")


def params_of(description: Description) -> dict[str, Param]:
    """A `Param` for each input; those without a default are empty, and so required, in the form.

    An image is asked for by its href. An input that a call may leave out may stay empty.
    """
    return {port.name: _param(port, description) for port in description.inputs}


def inputs_of(description: Description, params: Mapping[str, object]) -> dict[str, object]:
    """The inputs of a call among a run's `params`; what was left empty is left out."""
    named = {port.name: params.get(port.name) for port in description.inputs}
    return {name: value for name, value in named.items() if value is not None}


def _param(port: Port, description: Description) -> Param:
    schema = _schema(port, description)
    text = str(port.schema.get("description") or port.schema.get("title") or "") or None
    if port.has_default:
        return Param(port.schema["default"], text, schema=schema)
    if port.required:
        return Param(description=text, schema=schema)
    return Param(None, text, schema=_or_null(schema))


def _schema(port: Port, description: Description) -> dict[str, JsonValue]:
    if port.kind == "image":
        return {"type": "string", "title": f"{port.name}: href of an image", "minLength": 1}
    if port.kind == "images":
        items: dict[str, JsonValue] = {"type": "string", "minLength": 1}
        return {"type": "array", "title": f"{port.name}: hrefs of images", "items": items}
    known = {name: each for name, each in port.schema.items() if name not in _NOT_FOR_FORMS}
    definitions = description.known.input.get("definitions")
    if "$ref" in port.schema and isinstance(definitions, dict):
        named = definitions.get(str(port.schema["$ref"]).rpartition("/")[2])
        known = {**(named if isinstance(named, dict) else {}), **known}
    return known


def _or_null(schema: dict[str, JsonValue]) -> dict[str, JsonValue]:
    kinds = schema.get("type")
    if isinstance(kinds, str) and kinds != "null":
        return {**schema, "type": [kinds, "null"]}
    return schema
