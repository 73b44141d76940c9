"""Write the schemas of a PESTO project from its dataclasses `Input` and `Output` (`schemagen`).

Types are `bool`, `int`, `float`, `str`, `dict`, lists, optional ones, numpy arrays (`Image`), and
dataclasses, which become definitions; `pesto.cli.fields` names descriptions, required fields and
PESTO's definitions.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
from enum import Enum
from typing import TYPE_CHECKING, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from pesto_runtime.errors import BadField, InvalidContract, StoreFailed, StoreRefused
from pesto_runtime.processor.function import author_code
from pesto_runtime.processor.modules import ModuleSpace, supplied_modules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

_MODULE = "algorithm.input_output"
_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_FILES = {"Input": "input_schema.json", "Output": "output_schema.json"}
_DEFINITIONS = "user_definitions.json"


def generated_schemas(directory: Path) -> dict[str, dict[str, JsonValue]]:
    """Return file name -> schema, from the dataclasses of `algorithm/input_output.py`.

    Raises:
        InvalidContract: there are no such dataclasses, or types have no schema; lists all of them.
        AlgorithmFailed: the code raises when it is imported.
    """
    space = ModuleSpace(directory, supplied_modules("", ()))
    known = _user_definitions(directory)
    builder = _Builder(known)
    found: dict[str, dict[str, JsonValue]] = {}
    with author_code(f"loading {_MODULE}", directory), space.active():
        module = importlib.import_module(_MODULE)
        for name, file in _FILES.items():
            kind = getattr(module, name, None)
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                builder.faults.append(BadField(f"/{name}", f"{_MODULE} has no such dataclass"))
                continue
            found[file] = builder.ports(kind)
    if builder.faults:
        raise InvalidContract.of(f"{directory}/algorithm/input_output.py", builder.faults)
    if builder.made:
        found[_DEFINITIONS] = {**known, **builder.made}
    return found


def write_generated(directory: Path, *, force: bool = False) -> list[Path]:
    """Write the schemas; existing other ones are replaced only by `force`.

    Returns:
        The files that changed.

    Raises:
        StoreRefused: a file exists and differs; nothing is written.
        StoreFailed: a file cannot be written.
    """
    folder = directory / "pesto" / "api"
    changed = {
        folder / name: schema
        for name, schema in generated_schemas(directory).items()
        if _content(folder / name) != schema
    }
    existing = [str(path) for path in changed if path.exists()]
    if existing and not force:
        raise StoreRefused(f"{', '.join(existing)} would change; replace by -f")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, schema in changed.items():
            path.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror or error}") from error
    return sorted(changed)


class _Builder:
    """Makes schemas of fields; collects faults, and definitions of nested dataclasses."""

    def __init__(self, known: Mapping[str, JsonValue]) -> None:
        self.known = known
        self.made: dict[str, JsonValue] = {}
        self.faults: list[BadField] = []

    def ports(self, kind: type) -> dict[str, JsonValue]:
        """Return the flat map of a side: name -> schema, and `required`."""
        hints = get_type_hints(kind)
        found: dict[str, JsonValue] = {}
        required: list[JsonValue] = []
        for field in dataclasses.fields(kind):
            found[field.name] = self._field(field, hints[field.name], f"/{kind.__name__}")
            if field.metadata.get("pesto.required"):
                required.append(field.name)
        return {**found, "required": required}

    def _field(self, field: dataclasses.Field[object], hint: object, where: str) -> JsonValue:
        pointer = f"{where}/{field.name}"
        named = field.metadata.get("pesto.type")
        schema = self._type(hint, pointer) if named is None else self._named(named, pointer)
        if "pesto.description" in field.metadata:
            schema["description"] = str(field.metadata["pesto.description"])
        value = field.default
        if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory() or None
        if value is not dataclasses.MISSING and value is not None:
            try:
                schema["default"] = json.loads(json.dumps(value))
            except (TypeError, ValueError):
                self.faults.append(BadField(pointer, "its default is not JSON", repr(value)))
        return schema

    def _named(self, named: object, pointer: str) -> dict[str, JsonValue]:
        """Return the schema of one of PESTO's definitions, or the content of a user's one."""
        if isinstance(named, Enum):
            return {"$ref": f"#/definitions/{named.name}"}
        body = self.known.get(str(named))
        if not isinstance(body, dict):
            detail = (
                f"is no definition of {_DEFINITIONS}; there is {', '.join(self.known) or 'none'}"
            )
            self.faults.append(BadField(pointer, f"{named!r} {detail}"))
            return {}
        return dict(body)

    def _type(self, hint: object, pointer: str) -> dict[str, JsonValue]:
        arguments, origin = get_args(hint), get_origin(hint)
        if origin in (Union, types.UnionType):
            others = [each for each in arguments if each is not type(None)]
            if len(others) == 1:  # optional: PESTO omits an absent value, and sends no null
                return self._type(others[0], pointer)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (list, tuple) and arguments:
            items = self._type(arguments[0], pointer)
            is_image = items.get("$ref") == "#/definitions/Image"
            return (
                {"$ref": "#/definitions/Images"} if is_image else {"type": "array", "items": items}
            )
        return self._plain(hint if isinstance(hint, type) else origin, pointer)

    def _plain(self, kind: object, pointer: str) -> dict[str, JsonValue]:
        if kind in _TYPES:
            return {"type": _TYPES[kind]}  # type: ignore[index]  # it is one of the keys
        if kind is np.ndarray or kind is np.array:
            return {"$ref": "#/definitions/Image"}
        if kind in (dict, object):
            return {"type": "object"}
        if kind in (list, tuple):
            return {"type": "array"}
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return self._dataclass(kind)
        self.faults.append(BadField(pointer, f"the type {kind!r} has no schema"))
        return {}

    def _dataclass(self, kind: type) -> dict[str, JsonValue]:
        name = kind.__name__
        if name not in self.made:
            self.made[name] = {}  # a class may contain itself
            ports = self.ports(kind)
            required = ports.pop("required")
            body: dict[str, JsonValue] = {"type": "object", "properties": ports}
            self.made[name] = {**body, "required": required} if required else body
        return {"$ref": f"#/definitions/{name}"}


def _user_definitions(directory: Path) -> dict[str, JsonValue]:
    content = _content(directory / "pesto" / "api" / _DEFINITIONS)
    return content if isinstance(content, dict) else {}


def _content(path: Path) -> JsonValue:
    try:
        content: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidContract(f"{path}: cannot be read as JSON: {error}") from error
    return content
