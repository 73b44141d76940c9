"""Read and write saved descriptions, compare them with live ones, and build `params` from them.

It contacts no service: a DAG file reads saved descriptions, and the tasks compare them later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import Param

from pesto_runtime.contract import Description, drift
from pesto_runtime.errors import BadField, InvalidContract, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Port
    from pesto_runtime.run.services import Discovered

_NOT_FOR_FORMS = ("$ref", "x-raster", "x-vector", "default", "description", "examples")


@dataclass(frozen=True)
class Saved:
    """A file `NAME@VERSION.json` of `pesto discover` or `PestoDiscoverOperator`.

    Attributes:
        path: The file.
        url: URL of the service; None if only its description was saved.
        said: The description that the service returned.
        description: The same with the file's overlay merged in.
        is_plain_pesto: Whether the service accepts only base64, as a PESTO service does.
    """

    path: Path
    url: str | None
    said: Description
    description: Description
    is_plain_pesto: bool = False


def read_saved(path: str | Path) -> Saved:
    """Read a saved description; it is quick enough for a DAG file, and contacts no service.

    Raises:
        InvalidInput: the file is missing, or is not a saved description.
        InvalidContract: the description in it contradicts itself.
    """
    file = Path(path)
    document = _document(file)
    url, overlay = document.get("url"), document.get("overlay")
    first = url[0] if isinstance(url, list) and url else url
    if not isinstance(first, str | None) or "description" not in document:
        raise InvalidInput(f"{file} is not a saved description: it needs `description`")
    try:
        said = Description.parse(document["description"])
        description = said.overlaid(overlay) if isinstance(overlay, dict) else said
    except InvalidContract as error:
        raise InvalidContract(f"{file}: {error.detail}", fields=error.fields) from error
    # Only services of this package report transports; a plain PESTO service reports none.
    is_plain = (first or "http").startswith("http") and not document.get("transports")
    return Saved(file, first, said, description, is_plain)


def require_no_drift(saved: Saved, live: Description, *, where: str) -> tuple[str, ...]:
    """Compare the live description of a service with the saved one.

    Returns:
        Compatible changes, as texts.

    Raises:
        InvalidContract: with every breaking change.
    """
    if saved.said.digest == live.digest:
        return ()
    changes = drift(saved.said, live)
    breaking = [BadField(each.pointer, each.detail) for each in changes if each.breaking]
    if breaking:
        title = f"{where} differs from {saved.path.name} (discover it again)"
        raise InvalidContract.of(title, breaking)
    return tuple(f"{each.pointer}: {each.detail}" for each in changes)


def write_catalog(found: Iterable[Discovered], folder: Path) -> None:
    """Save the description and the targets of each process, as `pesto discover` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in found:
        original, overlaid = each.said.to_json(), each.description.to_json()
        document: dict[str, JsonValue] = {
            "url": list(each.service.targets),
            "digest": each.said.digest,
            "transports": list(each.service.transports),
            "description": original,
        }
        if original != overlaid:
            document["overlay"] = overlay_between(original, overlaid)
        path = folder / f"{each.said.name}@{each.said.version}.json"
        path.write_text(json.dumps(document, indent=2) + "\n")


def overlay_between(original: JsonValue, overlaid: JsonValue) -> JsonValue:
    """Compute the JSON merge patch (RFC 7396) that turns one document into the other.

    >>> overlay_between({"a": 1, "b": 2, "c": {"d": 3}}, {"a": 1, "c": {"d": 4}})
    {'b': None, 'c': {'d': 4}}
    """
    if not isinstance(original, dict) or not isinstance(overlaid, dict):
        return overlaid
    changed = {
        name: overlay_between(original.get(name), value)
        for name, value in overlaid.items()
        if name not in original or original[name] != value
    }
    return {**{name: None for name in original if name not in overlaid}, **changed}


def params_of(description: Description) -> dict[str, Param]:
    """Return a `Param` for each input; a required input without a default is empty in the form.

    The value of an image is its href. An optional input may stay empty.
    """
    return {port.name: _param(port, description) for port in description.inputs}


def inputs_of(description: Description, params: Mapping[str, object]) -> dict[str, object]:
    """Return the inputs of a call from a run's `params`, without those that are empty."""
    named = {port.name: params.get(port.name) for port in description.inputs}
    return {name: value for name, value in named.items() if value is not None}


def _document(file: Path) -> Mapping[str, JsonValue]:
    try:
        document: JsonValue = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} does not exist; `pesto discover URL --save DIR`") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{file} is not a JSON object")
    return document


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
