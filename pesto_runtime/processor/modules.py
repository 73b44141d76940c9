"""Author's modules kept apart: what one directory imports never meets what another does.

Two projects may each have an `algorithm` package. A `ModuleSpace` puts its directory's modules
into `sys.modules` and its directory onto `sys.path` only while it is active, and takes them back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import threading
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidContract

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


_turn = threading.Condition(threading.RLock())
_active: list[tuple[ModuleSpace, int]] = []  # the same space, with each thread that is in it


class ModuleSpace:
    """The modules of one directory, and those supplied to it.

    Threads of one space are in it together; another space waits until they have left.
    """

    def __init__(self, root: Path, supplied: Mapping[str, ModuleType] | None = None) -> None:
        self.root = root
        self._modules: dict[str, ModuleType] = dict(supplied or {})
        self._names = {*_importable(root), *(name.partition(".")[0] for name in self._modules)}
        self._claimed: set[str] = set()
        self._hidden: dict[str, ModuleType] = {}
        self._seen: str | None = None
        self._left: tuple[str, int] | None = None
        self._folder = str(root)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the directory importable, and nothing else of its names, inside the block.

        Raises:
            InvalidContract: this very thread is in another space, which would wait for itself.
        """
        entry = (self, threading.get_ident())
        with _turn:
            if _active:
                self._wait(entry[1])
            if not _active:
                self._enter()
            _active.append(entry)
        try:
            yield
        finally:
            with _turn:
                _active.remove(entry)
                if not _active:
                    self._leave()
                    _turn.notify_all()

    def sources(self) -> list[Path]:
        """Files of the directory's modules that were imported, sorted."""
        files = (_file(module) for module in self._modules.values())
        return sorted({file for file in files if file and file.is_relative_to(self.root)})

    def _wait(self, thread: int) -> None:
        if any(space is not self and each == thread for space, each in _active):
            raise InvalidContract(
                f"{self.root}: cannot be loaded while the code of {_active[0][0].root} loads "
                "or runs; load it before"
            )
        _turn.wait_for(lambda: not _active or _active[0][0] is self)

    def _enter(self) -> None:
        if (_newest(), len(sys.modules)) != self._left:
            claimed = {name for name in self._names if not self._is_shared(name)}
            if claimed != self._claimed:
                self._claimed, self._seen = claimed, None
        self._hidden = self._taken(self._hidden)
        sys.modules.update(self._modules)
        self._seen = _newest()
        sys.path.insert(0, self._folder)

    def _leave(self) -> None:
        self._modules = self._taken(self._modules)
        sys.modules.update(self._hidden)
        self._seen = _newest()
        self._left = (self._seen, len(sys.modules))
        sys.path.remove(self._folder)

    def _is_shared(self, name: str) -> bool:
        """Whether the process at large already has this very module of the directory."""
        module = sys.modules.get(name)
        file = _file(module) if module else None
        return file is not None and file.is_relative_to(self.root)

    def _taken(self, known: Iterable[str]) -> dict[str, ModuleType]:
        """Take the claimed modules out: those known, and what came after the newest one seen."""
        names = dict.fromkeys((*known, *_since(self._seen)))
        claimed = [name for name in names if name.partition(".")[0] in self._claimed]
        return {name: sys.modules.pop(name) for name in claimed if name in sys.modules}


def _newest() -> str:
    """The module that came last into this process."""
    return next(reversed(sys.modules))


def _since(seen: str | None) -> list[str]:
    """Modules that came after one, which a dict keeps in their order; all where it is gone.

    A process has hundreds, a call that imports nothing finds none of them new.
    """
    if _newest() == seen:
        return []
    names = list(sys.modules)  # at once: other threads import meanwhile
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


def sources_digest(root: Path, files: Sequence[Path], *, profiles: Sequence[str] = ()) -> str:
    """`sha256:…` over profiles in order, and files sorted, each with its name below the root."""
    total = hashlib.sha256()
    for profile in profiles:
        total.update(f"profile\0{profile}\0".encode())
    for file in sorted(set(files)):
        content = file.read_bytes()
        total.update(f"file\0{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return "sha256:" + total.hexdigest()
