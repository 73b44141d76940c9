"""Validate values against JSON Schema, reporting all wrong fields at once; write `schemas/`.

`python -m pesto_runtime.schema DIR` generates the files from the models again, and preserves their
examples. This file does not derive schemas from type hints: `processor/hints.py` does.
"""

from __future__ import annotations

import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime import contract
from pesto_runtime.contract.call import Problem
from pesto_runtime.errors import BadField, InvalidContract, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import NoReturn

    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator
    from pydantic import BaseModel, JsonValue

    SurelyFits: TypeAlias = Callable[[object], bool]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


STRICT_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
"""Decodes JSON; NaN and Infinity, which Python accepts, are errors."""

MODELS: Mapping[str, type[BaseModel]] = {
    "describe": contract.DescriptionDocument,
    "x-raster": contract.RasterContract,
    "x-vector": contract.VectorContract,
    "image": contract.WireImage,
    "imageCapabilities": contract.ImageCapabilities,
    "inputCapabilities": contract.InputCapabilities,
    "pipeline": contract.Pipeline,
    "plan": contract.Plan,
    "chunk": contract.Chunk,
    "chunk-result": contract.ChunkResult,
    "job": contract.Job,
    "problem": Problem,
}

_JSON_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")

_TYPES: dict[object, tuple[type, ...]] = {
    "number": (int, float), "integer": (int,), "string": (str,), "boolean": (bool,),
}  # fmt: skip

_PHRASES = {
    "enum": "be one of",
    "minimum": "be at least",
    "maximum": "be at most",
    "exclusiveMinimum": "be greater than",
    "exclusiveMaximum": "be less than",
    "multipleOf": "be a multiple of",
    "pattern": "match the pattern",
}

_DEEPEST = 100
_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "format", "$comment"}
_OBJECT_KEYWORDS = {*_ANNOTATIONS, "type", "properties", "definition", "definitions", "required"}


def schema_faults(
    schema: Mapping[str, JsonValue], value: JsonValue, *, pointer: str = ""
) -> Iterator[BadField]:
    """Find every field of a value that does not fit a schema, each with its JSON pointer.

    NaN and the infinities fit no schema, because JSON has no such numbers; nor does a value that is
    nested deeper than 100 levels, which the JSON parsers of services and stores may refuse.

    Raises:
        InvalidContract: it is not a valid JSON Schema, or a `$ref` cannot be resolved.
    """
    found = [leaf for error in _errors(schema, value) for leaf in _leaves(error)]
    yield from _not_storable(value, pointer)
    for error in sorted(
        main_errors(found), key=lambda each: [str(part) for part in each.absolute_path]
    ):
        where = pointer + json_pointer(*error.absolute_path)
        yield BadField(where, _reason(str(error.validator), error.validator_value, error.message),
                       shortened(error.instance))  # fmt: skip


def main_errors(errors: Iterable[ValidationError]) -> list[ValidationError]:
    """Return the errors without second ones: a value of another type is in no `enum` either."""
    found = list(errors)
    of_type = {tuple(each.absolute_path) for each in found if each.validator == "type"}
    return [e for e in found if e.validator == "type" or tuple(e.absolute_path) not in of_type]


def typed_text(schema: Mapping[str, JsonValue], text: str) -> JsonValue:
    """Read the text of a value: by its schema, then as JSON.

    A text that the schema accepts is the value, unless the schema accepts any value. Otherwise the
    value is the JSON of the text, if there is one. A text that the schema rejects for another
    reason than its type remains a text.

    Args:
        schema: JSON Schema of the value, with the `definitions` that it refers to.
        text: The value in a form, a query or an option.

    >>> typed_text({"type": "string"}, "5"), typed_text({"type": "number"}, "5")
    ('5', 5)
    >>> typed_text({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null"), typed_text({}, "5")
    ('null', 5)
    """
    try:
        faults = _errors(schema, text)
        is_text = not faults and not _accepts_anything(json.dumps(schema, sort_keys=True))
    except InvalidContract:  # reported where a value is validated
        faults, is_text = [], False
    if is_text:
        return text
    try:
        value: JsonValue = STRICT_JSON.decode(text)
    except (ValueError, RecursionError):
        return text
    if faults and not any(_is_of_type(each) for each in faults) and _errors(schema, value):
        return text
    return value


def type_phrase(schema: Mapping[str, JsonValue]) -> str:
    """Return the type of a schema in words.

    >>> type_phrase({"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]})
    'array of integer or null'
    >>> type_phrase({"$ref": "#/definitions/Metadata"}), type_phrase({"enum": [1, 2]})
    ('Metadata', '1 or 2')
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if isinstance(branches, list):
        return " or ".join(type_phrase(each) for each in branches if isinstance(each, dict))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return " or ".join(json.dumps(each, ensure_ascii=False) for each in values)
    items = schema.get("items")
    of_items = f" of {type_phrase(items)}" if isinstance(items, dict) and items else ""
    kinds = sorted(_types(schema)) or ["any"]
    return " or ".join(kind + (of_items if kind == "array" else "") for kind in kinds)


def typed_value(schema: Mapping[str, JsonValue], value: JsonValue) -> JsonValue:
    """Return a value that may be a text, or a list of texts, by the type of its schema."""
    if isinstance(value, list):
        branches = schema.get("anyOf")
        arrays = [schema, *(branches if isinstance(branches, list) else ())]
        items = next((s["items"] for s in arrays if isinstance(s, dict) and "items" in s), None)
        each = items if isinstance(items, dict) else {}
        each = {**each, "definitions": schema.get("definitions", {})}
        return [typed_text(each, item) if isinstance(item, str) else item for item in value]
    return typed_text(schema, value) if isinstance(value, str) else value


def why_not_accepted(taken: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> str | None:
    """Explain why a value of the schema `given` may not fit the schema `taken`; None if it fits.

    Compares types and enumerations only; without a value, the rest cannot be compared.

    >>> why_not_accepted({"type": "number"}, {"type": "integer"})
    >>> why_not_accepted({"type": "integer"}, {"type": "string"})
    'string given, integer taken'
    """
    accepted, provided = _types(taken), _types(given)
    if accepted and provided and not all(_is_a(kind, accepted) for kind in provided):
        return f"{' or '.join(sorted(provided))} given, {' or '.join(sorted(accepted))} taken"
    values, allowed = given.get("enum"), taken.get("enum")
    if isinstance(values, list) and isinstance(allowed, list):
        extra = [value for value in values if value not in allowed]
        if extra:
            return f"may be {shortened(extra[0])}, which is not one of {shortened(allowed)}"
    return None


def surely_fits(schema: Mapping[str, JsonValue]) -> SurelyFits:
    """Make a quick check of scalars and flat objects; True only if a value fits for certain.

    False means that `schema_faults` must decide. The check serves the hot path of calls: a value of
    the common form is accepted without jsonschema.

    Args:
        schema: JSON Schema of a value.

    >>> surely_fits({"type": "integer", "minimum": 1})(0)
    False
    >>> surely_fits({"properties": {"a": {"type": "string"}}})({"a": "b"})
    True
    """
    properties = schema.get("properties")
    if isinstance(properties, dict) and schema.keys() <= _OBJECT_KEYWORDS:
        required = schema.get("required", [])
        if schema.get("type", "object") == "object" and isinstance(required, list):
            return _object_check(properties, {str(name) for name in required})
        return _unsure
    return _scalar_check(schema)


def generated_schema(name: str) -> dict[str, JsonValue]:
    """Generate the schema of a model as in its file, without examples."""
    model = MODELS[name]
    document = model.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:pesto:schema:{name}",
        **document,
    }


def write_schemas(folder: Path) -> None:
    """Generate every schema file again; the examples of existing files are preserved."""
    for name in MODELS:
        path = folder / f"{name}.json"
        document = generated_schema(name)
        if path.exists():
            document["examples"] = json.loads(path.read_text()).get("examples", [])
        path.write_text(json.dumps(document, indent=2) + "\n")


def _errors(schema: Mapping[str, JsonValue], value: JsonValue) -> list[ValidationError]:
    """Return the errors of jsonschema.

    Raises:
        InvalidContract: it is not a valid JSON Schema, or a `$ref` cannot be resolved.
    """
    from referencing.exceptions import Unresolvable

    try:
        return list(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except Unresolvable as missing:
        raise InvalidContract(f"not a JSON schema: {missing.ref} cannot be resolved") from missing


@cache
def _accepts_anything(schema_text: str) -> bool:
    """Return whether a schema accepts a value of each JSON type."""
    samples: tuple[JsonValue, ...] = (None, True, 0, 0.5, "", [], {})
    return all(_validator(schema_text).is_valid(each) for each in samples)


def _is_of_type(error: ValidationError) -> bool:
    """Return whether the value has another type than the schema, in each branch of a union."""
    if error.context:
        branches: dict[object, list[ValidationError]] = {}
        for each in error.context:
            branches.setdefault(each.schema_path[0], []).append(each)
        return all(any(map(_is_of_type, branch)) for branch in branches.values())
    return error.validator == "type" and not error.path


@cache
def _validator(schema_text: str) -> Validator:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft6Validator, validator_for

    schema = json.loads(schema_text)
    kind = validator_for(schema, default=Draft6Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise InvalidContract(f"not a JSON schema: {error.message}") from error
    return kind(schema)


def _leaves(error: ValidationError) -> list[ValidationError]:
    """Return the errors of the only branch of an `anyOf` whose type fits, or else the error."""
    branches: dict[object, list[ValidationError]] = {}
    for each in error.context or ():
        branches.setdefault(each.schema_path[0], []).append(each)
    of_type = [
        branch
        for branch in branches.values()
        if not any(each.validator == "type" and not each.path for each in branch)
    ]
    return [leaf for each in of_type[0] for leaf in _leaves(each)] if len(of_type) == 1 else [error]


def _not_storable(value: JsonValue, pointer: str, depth: int = 0) -> Iterator[BadField]:
    """Yield each number that JSON does not have, and each part that is nested too deep."""
    if isinstance(value, float) and not math.isfinite(value):
        yield BadField(pointer, "must be a finite number", shortened(value))
    elif depth > _DEEPEST:
        yield BadField(pointer, f"is nested deeper than {_DEEPEST} levels", shortened(value))
    elif isinstance(value, (list, dict)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_storable(each, pointer + json_pointer(key), depth + 1)


def _reason(keyword: str, allowed: object, message: str) -> str:
    if keyword == "type":
        return f"must be {' or '.join(allowed) if isinstance(allowed, list) else allowed}"
    if keyword == "anyOf" and (kinds := _types_of_branches(allowed)):
        return f"must be {' or '.join(sorted(kinds))}"
    if keyword in _PHRASES:
        return f"must {_PHRASES[keyword]} {shortened(allowed)}"
    return message if len(message) <= 200 else f"does not fit {keyword} {shortened(allowed)}"


def _types(schema: Mapping[str, JsonValue]) -> set[str]:
    kinds = schema.get("type")
    found = kinds if isinstance(kinds, list) else [kinds]
    return {kind for kind in found if isinstance(kind, str) and kind in _JSON_TYPES}


def _types_of_branches(branches: object) -> set[str]:
    """Return the types that the branches of an `anyOf` declare."""
    schemas = branches if isinstance(branches, list) else []
    return set().union(*(_types(each) for each in schemas if isinstance(each, dict)))


def _type_of(value: JsonValue) -> str:
    """Return the JSON type of a value; bool before int, whose subclass it is."""
    kinds: dict[type, str] = {
        bool: "boolean", int: "integer", float: "number", str: "string", list: "array",
        dict: "object",
    }  # fmt: skip
    return kinds.get(type(value), "null")


def _is_a(kind: str, wanted: set[str]) -> bool:
    return kind in wanted or (kind == "integer" and "number" in wanted)


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
    if types is None or not schema.keys() <= {*_ANNOTATIONS, *bounds, "type"}:
        return _unsure
    if not all(each is None or isinstance(each, (int, float)) for each in (least, most)):
        return _unsure

    def fits(value: object) -> bool:
        if type(value) not in types:
            return False
        return (least is None or value >= least) and (most is None or value <= most)  # type: ignore[operator]  # numbers, for only they have bounds

    return fits


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
