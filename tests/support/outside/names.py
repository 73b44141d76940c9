"""What is imported and declared: public names with their signatures, entry points, errors."""

from __future__ import annotations

import hashlib
import inspect
import re
from typing import TYPE_CHECKING

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
_INHERITED = ("model_", "_")


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
    attributes: dict[str, str] = {}
    for each in reversed(ours):
        members |= vars(each)
        attributes |= {
            name: _text(str(kind)) for name, kind in inspect.get_annotations(each).items()
        }
    foreign = [each.__name__ for each in thing.__mro__ if each not in ours]
    return {
        "call": _signature(thing),
        "is": foreign[0],
        "attributes": {name: kind for name, kind in attributes.items() if _is_public(name)},
        "members": {
            name: _member(member) for name, member in members.items()
            if _is_public(name) and _member(member)
        },
    }  # fmt: skip


def _member(member: object) -> str:
    if isinstance(member, property):
        return "property"
    if isinstance(member, (classmethod, staticmethod)):
        return f"{type(member).__name__} {_signature(member.__func__)}"
    return _signature(member) if inspect.isfunction(member) else ""


def _is_public(name: str) -> bool:
    return not name.startswith(_INHERITED)


def _signature(thing: object) -> str:
    try:
        return _text(str(inspect.signature(thing)))  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError):
        return type(thing).__name__


def _text(text: str) -> str:
    """Leave out the modules of our own names, which may move, and addresses."""
    return _ADDRESS.sub("", _OURS.sub("", text))
