"""Validate the inputs of a request that are no images against the description.

Nothing here loads numpy, which the process that receives requests does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonschema import Draft6Validator
from jsonschema.exceptions import best_match

from pesto_runtime.contract import IMAGE_KINDS
from pesto_runtime.errors import shortened
from pesto_runtime.schema import main_errors, surely_fits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema.exceptions import ValidationError as SchemaFault
    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.service.request import Faults, InputValue


class ValueValidator:
    """Validates the values of one process; images are validated when they are read."""

    def __init__(self, description: Description) -> None:
        """Compile the schema of the description, without images."""
        self._description = description
        self._image_names = {port.name for port in description.inputs if port.kind in IMAGE_KINDS}
        schema = _schema_of_others(description)
        self._validator, self._surely_fits = Draft6Validator(schema), surely_fits(schema)

    def validate(self, known: Mapping[str, InputValue], faults: Faults) -> None:
        """Add a fault for each value that is absent or does not match its schema."""
        for port in self._description.inputs:
            if port.required and port.name not in known:
                faults.add(f"/{port.name}", f"is required; {_expected(port)}")
        others = {name: known[name] for name in known if name not in self._image_names}
        if self._surely_fits(others):
            return
        errors = list(self._validator.iter_errors(known))
        found = [best_match([each]) or each for each in errors]  # of the nearest branch of an anyOf
        for inner in main_errors(found):
            pointer = "".join(f"/{_escaped(str(part))}" for part in inner.absolute_path)
            faults.add(pointer, _validation_message(inner), inner.instance)


def known_values(
    description: Description, values: Mapping[str, InputValue]
) -> dict[str, InputValue]:
    """Select the values of inputs; as PESTO, ignore others, and null for an optional image."""
    return {
        port.name: values[port.name]
        for port in description.inputs
        if port.name in values
        and (values[port.name] is not None or port.required or port.kind not in IMAGE_KINDS)
    }


def _schema_of_others(description: Description) -> dict[str, JsonValue]:
    schema = dict(description.known.input)
    properties = schema.get("properties")
    others = dict(properties) if isinstance(properties, dict) else {}
    for port in description.inputs:
        if port.kind in IMAGE_KINDS:
            others.pop(port.name, None)
    schema.pop("required", None)
    schema.pop("additionalProperties", None)
    return {**schema, "properties": others}


def _expected(port: Port) -> str:
    if port.kind in IMAGE_KINDS:
        return f"it must be {'an image' if port.kind == 'image' else 'a list of images'}"
    return f"it must match {shortened(dict(port.schema))}"


def _validation_message(error: SchemaFault) -> str:
    # jsonschema's message contains the whole value, which may have megabytes.
    limit = shortened(error.validator_value)
    if error.validator == "required":
        return error.message.removesuffix(" property")
    phrases = {
        "type": "must be of type",
        "enum": "must be one of",
        "minimum": "must be at least",
        "maximum": "must be at most",
        "maxLength": "must have at most this many characters:",
        "minLength": "must have at least this many characters:",
    }
    return f"{phrases.get(str(error.validator), f'violates {error.validator!r}:')} {limit}"


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
