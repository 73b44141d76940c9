"""What is imported and declared: public names with their signatures, entry points, errors."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel

import pesto_airflow
import pesto_runtime
import tests.support.airflow_home  # noqa: F401  # before anything imports Airflow
from pesto_runtime import PestoError
from tests.support.outside.command import ROOT, entry_points

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from pydantic import JsonValue

_OURS = re.compile(r"\bpesto_(?:runtime|airflow|conductor)\.(?:[a-z_]+\.)*")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_UNPACKED = re.compile(r"Unpack\[(\w+)\]")
_INHERITED = ("model_", "_")
_CONTEXT = ("__enter__", "__exit__", "__aenter__", "__aexit__")


def public() -> dict[str, JsonValue]:
    """Write down the public names of both packages, and what each can be called with."""
    return {package.__name__: _names(package) for package in (pesto_runtime, pesto_airflow)}


def entries() -> dict[str, JsonValue]:
    """Write down the entry points, and what each loads; the modules that hold them may move."""
    found: dict[str, JsonValue] = {}
    for entry in entry_points():
        thing, name = entry.load(), f"{entry.group}: {entry.name}"
        if inspect.isroutine(thing):
            found[name] = _signature(thing)
        elif type(thing).__module__.startswith("pesto_"):
            verbs = (each for each in vars(type(thing)) if _is_public(each))
            found[name] = {each: _signature(getattr(thing, each)) for each in verbs}
        else:
            found[name] = type(thing).__name__
    return found


def errors() -> dict[str, JsonValue]:
    """Write down the kinds of error as HTTP, the command line and engines see them."""
    return {
        kind.slug: {
            "title": kind.title,
            "status": kind.status,
            "exit_code": kind.exit_code,
            "retryable": kind.retryable,
        }
        for kind in _kinds(PestoError)
    }


def schemas() -> dict[str, JsonValue]:
    """Write down the sha256 of every schema file."""
    files = sorted((ROOT / "schemas").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _kinds(kind: type[PestoError]) -> Iterator[type[PestoError]]:
    """The package's own kinds: tests may have made more."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == PestoError.__module__:
            yield from _kinds(child)


def _names(package: ModuleType) -> dict[str, JsonValue]:
    return {name: _shape(getattr(package, name)) for name in package.__all__}


def _shape(thing: object) -> JsonValue:
    """A function's signature; a class's, with those of its public members and its attributes."""
    if not inspect.isclass(thing):
        return _signature(thing)
    ours = [each for each in thing.__mro__ if each.__module__.startswith("pesto_")]
    members: dict[str, object] = {}
    attributes: dict[str, object] = {}
    for each in reversed(ours):
        members |= vars(each)
        attributes |= inspect.get_annotations(each)
    return {
        "call": _fields(thing) if issubclass(thing, BaseModel) else _signature(thing),
        "is": next(each.__name__ for each in thing.__mro__ if each not in ours),
        "attributes": {
            name: _text(str(kind)) for name, kind in attributes.items() if _is_public(name)
        },
        "members": {
            name: shown
            for name, member in members.items()
            if _is_public(name) and (shown := _member(member))
        },
    }


def _fields(model: type[BaseModel]) -> JsonValue:
    """What a model is made of; its signature has pydantic's own words, and those change."""
    return {
        name: "required"
        if field.is_required()
        else repr(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
    }


def _member(member: object) -> str:
    if isinstance(member, (property, cached_property)):
        return "property"
    if isinstance(member, (classmethod, staticmethod)):
        return f"{type(member).__name__} {_signature(member.__func__)}"
    is_async = inspect.iscoroutinefunction(member)
    is_method = inspect.isfunction(member)
    return ("async " if is_async else "") + _signature(member) if is_method else ""


def _is_public(name: str) -> bool:
    return name in _CONTEXT or not name.startswith(_INHERITED)


def _signature(thing: object) -> str:
    try:
        text = _text(str(inspect.signature(thing)))  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError):
        return type(thing).__name__
    return _UNPACKED.sub(lambda found: f"Unpack[{_options(found[1])}]", text)


def _options(name: str) -> str:
    """The keyword arguments that a TypedDict of ours stands for; its name if only types use it."""
    # Only type checkers load the types of Airflow's own arguments, and some tests.
    ours = [
        each for key, each in sys.modules.items()
        if key.startswith("pesto_") and key != "pesto_airflow.arguments"
    ]  # fmt: skip
    found = next((vars(each)[name] for each in ours if name in vars(each)), None)
    if found is None:
        return name
    kinds = inspect.get_annotations(found).items()
    return ", ".join(
        f"{key}: {_text(getattr(kind, '__forward_arg__', str(kind)))}" for key, kind in kinds
    )


def _text(text: str) -> str:
    """Leave out the modules of our own names, which may move, and addresses."""
    return _ADDRESS.sub("", _OURS.sub("", text))
