"""The layout of a description document: PESTO's keys, its object schemas and its definitions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

DRAFT = "http://json-schema.org/draft-06/schema#"
_NUMBER: dict[str, JsonValue] = {"type": "number"}


def _list_of(items: JsonValue, at_least: int = 0) -> dict[str, JsonValue]:
    schema: dict[str, JsonValue] = {"type": "array", "items": items}
    return schema | {"minItems": at_least} if at_least else schema


DEFINITIONS: Mapping[str, JsonValue] = {
    "Image": {
        "$schema": DRAFT,
        "type": "string",
        "description": "Image to process : it can be an url or the raw bytes encoded in base64",
    },
    "Images": _list_of({"$ref": "#/definitions/Image"}),
    "Polygon": {
        "$schema": DRAFT,
        "title": "Polygon",
        "description": "GeoJSON Polygon",
        "type": "object",
        "required": ["type", "coordinates"],
        "properties": {
            "type": {"type": "string", "enum": ["Polygon"]},
            "coordinates": _list_of(_list_of(_list_of(_NUMBER, 2), 4)),
            "bbox": _list_of(_NUMBER, 4),
        },
    },
    "Polygons": _list_of({"$ref": "#/definitions/Polygon"}),
    "Metadata": {"type": "object"},
    "Metadatas": _list_of({"$ref": "#/definitions/Metadata"}),
}
"""Definitions that every PESTO object schema carries; part of the wire, word for word."""


def reference(definition: str) -> dict[str, JsonValue]:
    """Refer to a definition of the same object schema."""
    return {"$ref": f"#/definitions/{definition}"}


def object_schema(
    properties: Mapping[str, JsonValue],
    *,
    required: Sequence[str] = (),
    definitions: Mapping[str, JsonValue] | None = None,
    title: str = "",
    description: str = "Expected format",
) -> dict[str, JsonValue]:
    """Lay out the inputs or the outputs as PESTO's `/describe` does.

    A definition of the author's never replaces one of PESTO's.
    """
    schema: dict[str, JsonValue] = {
        "$schema": DRAFT,
        "title": title,
        "type": "object",
        "description": description,
        "definition": {},
        "definitions": {**(definitions or {}), **copy.deepcopy(dict(DEFINITIONS))},
        "properties": dict(properties),
    }
    if required:
        schema["required"] = list(required)
    return schema
