"""Start a workflow with inputs as they are written on a command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import file_href, looks_like_href
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_conductor.rest import Conductor

    Document = dict[str, JsonValue]

_INPUT = re.compile(r"\$\{workflow\.input\.([^{}.\[\]]+)\}")


def start(conductor: Conductor, definition: Document, texts: Mapping[str, str]) -> str:
    """Start a registered workflow; answers its id.

    Args:
        conductor: The server.
        definition: Its definition: the schema of its input says which texts are paths.
        texts: Input name -> JSON, or text.

    Raises:
        InvalidInput: an input is missing, unknown or of the wrong kind; with every one.
    """
    inputs = read_inputs(definition, texts)
    name, version = str(definition["name"]), definition.get("version")
    return conductor.start(
        name,
        inputs,
        version=version if isinstance(version, int) else None,
        domains=domains_of(definition),
    )


def read_inputs(definition: Mapping[str, JsonValue], texts: Mapping[str, str]) -> Document:
    """Turn texts into the workflow's input: JSON where they are, paths made hrefs.

    A folder that targets are relative to becomes absolute, as workers run elsewhere; so does the
    definition's own where it lies below the current directory.

    Raises:
        InvalidInput: they do not fit the definition; with every reason.
    """
    schema = _input_schema(definition)
    properties = schema.get("properties")
    kinds = properties if isinstance(properties, dict) else {}
    inputs = {name: _value(text, kinds.get(name)) for name, text in texts.items()}
    faults = tuple(schema_faults(schema, inputs))
    if faults:
        raise InvalidInput.of(f"inputs of {definition.get('name')}", faults)
    return inputs | _folders(definition, inputs)


def _folders(definition: Mapping[str, JsonValue], inputs: Document) -> Document:
    """Inputs that are `base` of a plan, made absolute; defaults only where they exist here."""
    template = definition.get("inputTemplate")
    defaults = template if isinstance(template, dict) else {}
    made: Document = {}
    for name in _bases(definition):
        text = inputs.get(name, defaults.get(name))
        if not isinstance(text, str) or looks_like_href(text) or Path(text).is_absolute():
            continue
        if name in inputs or Path(text).is_dir():
            made[name] = str(Path(text).resolve())
    return made


def _bases(definition: Mapping[str, JsonValue]) -> list[str]:
    """Inputs of the workflow that its tasks take for `base`."""
    tasks = definition.get("tasks")
    given = [
        task.get("inputParameters")
        for task in (tasks if isinstance(tasks, list) else [])
        if isinstance(task, dict) and task.get("name") == "pesto_plan"
    ]
    read = [_INPUT.fullmatch(str(each.get("base"))) for each in given if isinstance(each, dict)]
    return [found[1] for found in read if found]


def domains_of(definition: Mapping[str, JsonValue]) -> dict[str, str]:
    """Task domains that a definition asks for: of its tasks that want a GPU."""
    metadata = definition.get("metadata")
    domains = metadata.get("taskToDomain") if isinstance(metadata, dict) else None
    return (
        {name: str(domain) for name, domain in domains.items()} if isinstance(domains, dict) else {}
    )


def _input_schema(definition: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The schema that it declares; else the names of its inputs."""
    declared = definition.get("inputSchema")
    data = declared.get("data") if isinstance(declared, dict) else None
    if isinstance(data, dict):
        return data
    names = definition.get("inputParameters")
    known = [str(name) for name in names] if isinstance(names, list) else []
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": dict.fromkeys(known, True),
        "additionalProperties": False,
    }


def _value(text: str, kind: JsonValue) -> JsonValue:
    wanted = kind if isinstance(kind, dict) else {}
    if wanted.get("format") == "uri-reference":
        return text if looks_like_href(text) else file_href(text)
    if wanted.get("type") == "string":
        return text
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value
