"""Separate the imported modules of different directories, and supply PESTO's own two modules.

Two projects may each have a package `algorithm`. While a `ModuleSpace` is active, the modules of
its directory are in `sys.modules` and the directory is in `sys.path`; afterwards both are removed.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from enum import Enum, auto
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor.sources import import_from_source, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pesto_runtime.processor.sources import Source

_turn = threading.Condition(threading.RLock())
_active: list[tuple[ModuleSpace, int]] = []  # the active space, once per thread in it


class ModuleSpace:
    """The modules of one directory, and those supplied to it.

    Several threads may be in one space; another space waits until all have left.
    """

    def __init__(self, root: Path, supplied: Mapping[str, ModuleType] | None = None) -> None:
        import_from_source(root)
        self.root = root
        self._modules: dict[str, ModuleType] = dict(supplied or {})
        self._names = {*_importable(root), *(name.partition(".")[0] for name in self._modules)}
        self._claimed: set[str] = set()
        self._hidden: dict[str, ModuleType] = {}
        self._newest_seen: str | None = None
        self._state_on_leaving: tuple[str, int] | None = None
        self._folder = str(root)

    def active(self) -> _ActiveSpace:
        """Make the modules of the directory importable inside the block.

        Raises:
            InvalidContract: this thread is in another space, so it would wait for itself.
        """
        return _ActiveSpace(self)

    def enter(self, thread: int) -> None:
        """Begin a block of this thread."""
        with _turn:
            if _active:
                self._wait(thread)
            if not _active:
                self._enter()
            _active.append((self, thread))

    def leave(self, thread: int) -> None:
        """End a block of this thread."""
        with _turn:
            _active.remove((self, thread))
            if not _active:
                self._leave()
                _turn.notify_all()

    def sources(self) -> list[Source]:
        """Return the files of the directory's imported modules, as they were compiled."""
        found = (source_of(module) for module in self._modules.values())
        return [each for each in found if each and each.file.is_relative_to(self.root)]

    def _wait(self, thread: int) -> None:
        if _active[0][0] is self:
            return
        if any(each == thread for _, each in _active):
            raise InvalidContract(
                f"{self.root}: cannot be loaded while the code of {_active[0][0].root} loads "
                "or runs; load it before"
            )
        _turn.wait_for(lambda: not _active or _active[0][0] is self)

    def _enter(self) -> None:
        # Entering happens at every call, and a process has hundreds of modules: the names are
        # compared again only if a module was imported since this space was left.
        if (_newest(), len(sys.modules)) != self._state_on_leaving:
            claimed = {name for name in self._names if not self._is_shared(name)}
            if claimed != self._claimed:
                self._claimed, self._newest_seen = claimed, None
        self._hidden = self._removed(self._hidden)
        sys.modules.update(self._modules)
        self._newest_seen = _newest()
        sys.path.insert(0, self._folder)

    def _leave(self) -> None:
        self._modules = self._removed(self._modules)
        sys.modules.update(self._hidden)
        self._newest_seen = _newest()
        self._state_on_leaving = (self._newest_seen, len(sys.modules))
        sys.path.remove(self._folder)

    def _is_shared(self, name: str) -> bool:
        """Return whether this module of the directory is imported outside of any space."""
        module = sys.modules.get(name)
        file = _file(module) if module else None
        return file is not None and file.is_relative_to(self.root)

    def _removed(self, known: Iterable[str]) -> dict[str, ModuleType]:
        """Remove the claimed modules: the known ones, and those imported after the newest seen."""
        names = dict.fromkeys((*known, *_since(self._newest_seen)))
        claimed = [name for name in names if name.partition(".")[0] in self._claimed]
        return {name: sys.modules.pop(name) for name in claimed if name in sys.modules}


class _ActiveSpace:
    """The block of `ModuleSpace.active`; a generator would take three times as long per call."""

    __slots__ = ("_space", "_thread")

    def __init__(self, space: ModuleSpace) -> None:
        self._space, self._thread = space, threading.get_ident()

    def __enter__(self) -> None:
        self._space.enter(self._thread)

    def __exit__(self, *_: object) -> None:
        self._space.leave(self._thread)


def _newest() -> str:
    """Return the name of the module that was imported last."""
    return next(reversed(sys.modules))


def _since(seen: str | None) -> list[str]:
    """Return the modules that were imported after one; all modules if that one is gone.

    `sys.modules` is a dict, so it has the order of the imports.
    """
    if _newest() == seen:
        return []
    names = list(sys.modules)  # a copy, because other threads import meanwhile
    names.reverse()
    return names[: names.index(seen)] if seen in sys.modules else names


def _importable(root: Path) -> Iterator[str]:
    for entry in root.iterdir():
        if entry.suffix == ".py":
            yield entry.stem
        elif entry.is_dir() and entry.name.isidentifier() and any(entry.glob("*.py")):
            yield entry.name


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None


_TYPE, _DESCRIPTION, _REQUIRED = "pesto.type", "pesto.description", "pesto.required"


class Definition(Enum):
    """Definitions of every PESTO schema."""

    Image = auto()
    Images = auto()
    Polygon = auto()
    Polygons = auto()
    Metadata = auto()
    Metadatas = auto()


def field(description: str = "", required: bool = False, **options: object) -> object:
    """Declare a dataclass field of a JSON type, with the metadata for PESTO's `schemagen`."""
    return _field({_DESCRIPTION: description, _REQUIRED: required}, options)


def definition(
    definition: Definition | str, description: str = "", required: bool = False, **options: object
) -> object:
    """Declare a dataclass field of one of PESTO's definitions, or of the project's own."""
    facts = {_TYPE: definition, _DESCRIPTION: description, _REQUIRED: required}
    return _field(facts, options)


def supplied_modules(full_version: str, profiles: Sequence[str]) -> dict[str, ModuleType]:
    """Create the modules `pesto.common.pesto` and `pesto.cli.fields`, and their packages."""
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
    declared: object = dataclasses.field(metadata=facts, **options)  # type: ignore[call-overload]  # the author's options
    return declared


def _profile_class(full_version: str, profiles: Sequence[str]) -> type:
    active = frozenset(profiles)

    class Pesto:
        """Reports the version and the profiles of a project to its code."""

        @staticmethod
        def get_profile() -> str:
            """Return the version and the profiles in order, joined by hyphens."""
            return full_version

        @staticmethod
        def is_profile_active(profile: str) -> bool:
            """Return whether the project was built with this profile."""
            return profile in active

    return Pesto


def _module(name: str, content: Mapping[str, object]) -> ModuleType:
    module = ModuleType(name, "Supplied to a PESTO project while it loads.")
    if name in ("pesto", "pesto.common", "pesto.cli"):
        module.__path__ = []
    vars(module).update(content)
    return module
