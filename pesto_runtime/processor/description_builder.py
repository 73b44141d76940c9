"""Build the description document of a decorated function, in the layout of a PESTO service.

Whether the declarations are valid is checked in `ports` and `authoring`.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from pesto_runtime.errors import InvalidContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from pydantic import JsonValue

    from pesto_runtime.contract import Tileable
    from pesto_runtime.processor.annotations import ProcessOptions
    from pesto_runtime.processor.ports import PortSpec


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
"""Definitions in the object schemas of every PESTO service; part of the wire format, verbatim."""


def object_schema(
    properties: Mapping[str, JsonValue],
    *,
    required: Sequence[str] = (),
    definitions: Mapping[str, JsonValue] | None = None,
    title: str = "",
    description: str = "Expected format",
) -> dict[str, JsonValue]:
    """Return the object schema of inputs or outputs, in the layout of PESTO's `/describe`.

    A definition of PESTO's takes precedence over one of the author's.
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


_TEMPLATE = "#/definitions/{model}"


def describe(
    function: Callable[..., object],
    options: ProcessOptions,
    inputs: Sequence[PortSpec],
    outputs: Sequence[PortSpec],
    tileable: Tileable | None,
) -> dict[str, JsonValue]:
    """Build the description, without undeclared keys that PESTO does not have.

    Raises:
        InvalidContract: a class has the name of one of PESTO's definitions.
    """
    name = options.get("name", function.__name__.strip("_").replace("_", "-"))
    document: dict[str, JsonValue] = {
        "title": options.get("title", name.replace("-", " ").capitalize()),
        "name": name,
        "version": options.get("version", "0.0.0"),
        "family": options.get("family", ""),
        "description": inspect.getdoc(function) or "",
        "organization": options.get("organization", ""),
        "email": options.get("email", ""),
        "resources": _resources(options),
        "asynchronous": False,
    }
    if "keywords" in options:
        document["keywords"] = list(options["keywords"])
    if "batched" in options:
        document["batched"] = options["batched"]
    if "releases_gil" in options:
        document["releases_gil"] = options["releases_gil"]
    if tileable is not None:
        document["tileable"] = tileable
    if "reduce" in options:
        document["x-reduce"] = dict(options["reduce"])
    if "examples" in options:
        document["x-examples"] = [dict(each) for each in options["examples"]]
    document["input"] = _side(inputs, "validation", f"{name} input")
    document["output"] = _side(outputs, "serialization", f"{name} output")
    return document


def _resources(options: ProcessOptions) -> dict[str, JsonValue]:
    resources: dict[str, JsonValue] = dict(options.get("resources", {}))
    if "max_batch_size" in options:
        resources["max_batch_size"] = options["max_batch_size"]
    return resources


def _side(
    ports: Sequence[PortSpec], mode: Literal["validation", "serialization"], title: str
) -> dict[str, JsonValue]:
    adapters = [(port.name, mode, port.adapter) for port in ports if port.adapter is not None]
    schemas, shared = TypeAdapter.json_schemas(adapters, ref_template=_TEMPLATE)
    definitions = _draft_06(shared.get("$defs", {}))
    taken = sorted(set(definitions) & set(DEFINITIONS)) if isinstance(definitions, dict) else []
    if taken:
        raise InvalidContract(f"{title}: the name {taken[0]} is PESTO's own; rename the class")
    properties = {
        port.name: _property(port, _draft_06(schemas.get((port.name, mode), {}))) for port in ports
    }
    required = [port.name for port in ports if port.required]
    known = definitions if isinstance(definitions, dict) else {}
    return object_schema(properties, required=required, definitions=known, title=title)


def _property(port: PortSpec, schema: JsonValue) -> JsonValue:
    written = schema if isinstance(schema, dict) and schema else port.type.schema
    body: dict[str, JsonValue] = {**written, **port.lengths}
    if port.text:
        body["description"] = port.text
    if port.has_default:
        body["default"] = port.default
    if port.raster is not None:
        body["x-raster"] = port.raster.to_json()
    if port.vector is not None:
        body["x-vector"] = port.vector.to_json()
    if port.fold is not None:
        body["x-fold"] = port.fold
    return body


def _draft_06(schema: object) -> JsonValue:
    """Convert a schema from draft 2020-12, which pydantic writes, to draft-06.

    Tuples differ: `prefixItems` was `items`, and `items` was `additionalItems`
    (https://json-schema.org/draft/2020-12/release-notes).
    """
    if isinstance(schema, dict):
        converted = {str(key): _draft_06(value) for key, value in schema.items()}
        if isinstance(schema.get("prefixItems"), list):
            rest: Mapping[str, JsonValue] = {"additionalItems": converted.pop("items", False)}
            converted = {**converted, "items": converted.pop("prefixItems"), **rest}
        return converted
    if isinstance(schema, list):
        return [_draft_06(each) for each in schema]
    return schema if isinstance(schema, (str, int, float)) or schema is None else str(schema)
