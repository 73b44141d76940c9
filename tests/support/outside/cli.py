"""Every command of `pesto` with its options: names, types, defaults, bounds; help may change."""

from __future__ import annotations

import enum
import os
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any
from unittest.mock import patch

import typer
from typer.main import get_command

from tests.support.outside.command import pesto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

_CORES = "number of cores"


def commands() -> dict[str, JsonValue]:
    """Write down the whole tree of commands, those of installed packages included."""
    apps: list[typer.Typer] = []

    def kept(app: typer.Typer, *_: object, **__: object) -> None:
        apps.append(app)

    with patch.object(typer.Typer, "__call__", kept):  # of any module that holds the application
        pesto("--help")
    return dict(_tree(get_command(apps[0]), "pesto"))


def _tree(command: Any, path: str) -> Iterator[tuple[str, JsonValue]]:  # typer's own click
    hints = typing.get_type_hints(command.callback, include_extras=True) if command.callback else {}
    options = [each for each in command.params if each.param_type_name == "option"]
    arguments = [each for each in command.params if each not in options]
    yield path, {
        **{", ".join(sorted(_names(each))): _parameter(each, hints.get(each.name))
           for each in options},
        **{f"argument {number}": _parameter(each, hints[each.name])
           for number, each in enumerate(arguments, start=1)},
    }  # fmt: skip
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _tree(child, f"{path} {name}")


def _parameter(parameter: Any, hint: object) -> JsonValue:  # typer's own click
    default = parameter.default
    facts = {
        "type": _type(hint),
        "required": parameter.required,
        "many": parameter.multiple or parameter.nargs != 1,
        "flag": getattr(parameter, "is_flag", False),
        "hidden": getattr(parameter, "hidden", False),
        "default": _CORES if parameter.name == "concurrency" else _plain(default),
        "environment": parameter.envvar,
    }
    if parameter.name == "concurrency":
        assert default == (os.cpu_count() or 1)
    for info in typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ():
        facts |= {"min": info.min, "max": info.max}
    return {key: value for key, value in facts.items() if value is not None and value is not False}


def _names(option: Any) -> list[str]:  # typer's own click
    return [*option.opts, *option.secondary_opts]


def _plain(value: object) -> JsonValue:
    if isinstance(value, enum.Enum):
        return str(value.value)
    return value if isinstance(value, (str, int, float, type(None))) else repr(value)


def _type(hint: object) -> str:
    """A type as who writes a command line sees it: an enumeration is its words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if isinstance(hint, enum.EnumType):
        return " or ".join(str(each.value) for each in hint)  # type: ignore[var-annotated]  # of any enum
    if origin in (typing.Union, types.UnionType):
        return _type(next(each for each in arguments if each is not type(None)))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    return getattr(hint, "__name__", str(hint))
