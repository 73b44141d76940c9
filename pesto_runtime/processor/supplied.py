"""The two modules that a PESTO project may import, made for it while it loads, never installed."""

from __future__ import annotations

import dataclasses
from enum import Enum, auto
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TYPE, _DESCRIPTION, _REQUIRED = "pesto.type", "pesto.description", "pesto.required"


class Definition(Enum):
    """Definitions that every PESTO schema carries."""

    Image = auto()
    Images = auto()
    Polygon = auto()
    Polygons = auto()
    Metadata = auto()
    Metadatas = auto()


def field(description: str = "", required: bool = False, **options: object) -> object:
    """Declare a dataclass field of a JSON type, with what `schemagen` reads of it."""
    return _field({_DESCRIPTION: description, _REQUIRED: required}, options)


def definition(
    definition: Definition | str, description: str = "", required: bool = False, **options: object
) -> object:
    """Declare a dataclass field of one of PESTO's definitions, or of the project's own."""
    facts = {_TYPE: definition, _DESCRIPTION: description, _REQUIRED: required}
    return _field(facts, options)


def supplied_modules(full_version: str, profiles: Sequence[str]) -> dict[str, ModuleType]:
    """Make `pesto.common.pesto` and `pesto.cli.fields`, with the packages that hold them."""
    profile = _module("pesto.common.pesto", {"Pesto": _profile_class(full_version, profiles)})
    fields = _module(
        "pesto.cli.fields",
        {
            "Definition": Definition,
            "field": field,
            "definition": definition,
            "user_definition": definition,
        },
    )
    common = _module("pesto.common", {"pesto": profile})
    cli = _module("pesto.cli", {"fields": fields})
    root = _module("pesto", {"common": common, "cli": cli})
    return {module.__name__: module for module in (root, common, cli, profile, fields)}


def _field(facts: Mapping[str, object], options: Mapping[str, object]) -> object:
    made: object = dataclasses.field(metadata=facts, **options)  # type: ignore[call-overload]  # the author's options
    return made


def _profile_class(full_version: str, profiles: Sequence[str]) -> type:
    active = frozenset(profiles)

    class Pesto:
        """Tells a project's code how it was built."""

        @staticmethod
        def get_profile() -> str:
            """The version and the profiles in order, joined by hyphens."""
            return full_version

        @staticmethod
        def is_profile_active(profile: str) -> bool:
            """Whether it was built with exactly this profile."""
            return profile in active

    return Pesto


def _module(name: str, content: Mapping[str, object]) -> ModuleType:
    module = ModuleType(name, "Supplied to a PESTO project while it loads.")
    if name in ("pesto", "pesto.common", "pesto.cli"):
        module.__path__ = []
    vars(module).update(content)
    return module
