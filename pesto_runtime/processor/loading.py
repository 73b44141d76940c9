"""Load the processor of a target: `file.py:function`, `package.module:function`, or a project.

A processor is loaded again only if its sources change. The author's function is not called here.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import threading
import uuid
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract.pipeline import LIVE, PROFILES
from pesto_runtime.errors import (
    AlgorithmFailed,
    InvalidContract,
    InvalidInput,
    NotFound,
    shortened,
)
from pesto_runtime.processor.authoring import FunctionContract, collected_errors, contract_of
from pesto_runtime.processor.function import FunctionProcessor, author_code
from pesto_runtime.processor.modules import ModuleSpace
from pesto_runtime.processor.project import ProjectProcessor, load_project
from pesto_runtime.processor.project_files import project_build
from pesto_runtime.processor.sources import (
    UncachedLoader,
    import_from_source,
    is_unchanged,
    modules_below,
    sources_digest,
    sources_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from pesto_runtime.processor.protocol import Processor, ServedTarget
    from pesto_runtime.processor.sources import Source

_FORMS = "a target is file.py:function, package.module:function, or a PESTO project directory"
_MOST_LOADS = 3
# Reentrant, because an author's module may itself load a target while it is imported.
_gate = threading.RLock()


def is_placeless(processor: ServedTarget) -> bool:
    """Whether a process certainly does not receive the place of its pixels in the scene."""
    if isinstance(processor, FunctionProcessor):
        return processor.contract.tile is None
    return isinstance(processor, ProjectProcessor)


@dataclass(frozen=True)
class _LoadedModule:
    """A module, its build, its source files as they were compiled, and its wrong processes."""

    module: ModuleType
    build: str
    sources: tuple[Source, ...]
    errors: Mapping[str, InvalidContract]

    @property
    def is_fresh(self) -> bool:
        return all(is_unchanged(each.file, each.stamp) for each in self.sources)


_files: dict[Path, _LoadedModule] = {}
_modules: dict[str, _LoadedModule] = {}
_functions: dict[tuple[str, str], FunctionProcessor] = {}
_live: dict[str, FunctionContract] = {}
_projects: dict[tuple[Path, tuple[str, ...], str], Processor] = {}


def load_processor(
    target: str, *, profiles: Sequence[str] = (), base: Path | None = None
) -> Processor:
    """Load the processor of a target; cached until one of its sources changes.

    Args:
        target: `file.py:function`, `package.module:function`, or a PESTO project directory, also
            with profiles: `DIRECTORY#profiles=P1,P2`.
        profiles: Further profiles of a project, in the order in which they apply.
        base: Directory that relative paths are relative to; the working directory by default.

    Raises:
        NotFound: the file, directory, module or function does not exist; lists existing ones.
        InvalidContract: the function is not a process, or the project contradicts itself.
        InvalidInput: the target is a function, and there are profiles.
        AlgorithmFailed: the author's code raises when it is imported.
    """
    with _gate:
        if target.startswith(LIVE):
            return _live_function(target)
        target, mark, named = target.partition(PROFILES)
        profiles = (*(named.split(",") if mark else ()), *profiles)
        directory = _path(target, base)
        if os.path.isdir(directory):  # noqa: PTH112  # Path raises for a long name
            return _project(directory, tuple(profiles))
        place, colon, function = target.rpartition(":")
        if function.isdigit():
            raise InvalidInput(f"{target} is not a target; did you mean http://{target}?")
        if not colon and not target.endswith(".py"):
            raise NotFound(f"{directory}: there is no such directory; {_FORMS}")
        if profiles:
            raise InvalidInput(f"{target}: profiles {list(profiles)} are for PESTO projects")
        return _function(*((place, function) if colon else (target, "")), base)


def target_of(function: object) -> str:
    """Return the target of a decorated function.

    It is the file or the module of the function. A function of a notebook or of the main script,
    or one that is defined in another function, gets a target of this process alone; it has a new
    build each time, because the code that it uses may have changed.

    Raises:
        InvalidContract: it is not a decorated function.
        InvalidInput: its file was edited since it was imported.
    """
    contract = contract_of(function)
    if contract is None:
        raise InvalidContract(
            f"{shortened(function)} is not a process: decorate it with @pesto_runtime.process, or "
            "give a target or a URL as a string"
        )
    name, module = contract.function.__name__, contract.function.__module__
    if module == "__main__" or getattr(sys.modules.get(module), name, None) is not function:
        target = f"{LIVE}{name}-{uuid.uuid4().hex[:12]}"
        _live[target] = contract
        return target
    place = module if "." in module else inspect.getsourcefile(contract.function)
    target = f"{place}:{name}"
    loaded = load_processor(target)
    code = loaded.contract.function.__code__ if isinstance(loaded, FunctionProcessor) else None
    if code != contract.function.__code__:
        raise InvalidInput(f"{target} was edited since it was imported: import it again")
    return target


def _live_function(target: str) -> FunctionProcessor:
    contract = _live.get(target)
    if contract is None:
        raise NotFound(
            f"{target} is a function of another process, such as a notebook: write it into a file, "
            "and use FILE.py:FUNCTION"
        )
    return _cached(contract, target, contract.function.__name__)


def _path(text: str, base: Path | None) -> Path:
    return ((base or Path.cwd()) / Path(text).expanduser()).resolve()


def _project(directory: Path, profiles: tuple[str, ...]) -> Processor:
    build = project_build(directory, profiles)
    known = _projects.get((directory, profiles, build))
    if known is not None:
        return known
    # Its JSON files are read before its code is imported: if a file changed between, load it again,
    # but not for ever, because a project may itself write a file when it is imported.
    loaded = load_project(directory, profiles=profiles)
    for _ in range(_MOST_LOADS - 1):
        if loaded.build == build:
            break
        build, loaded = loaded.build, load_project(directory, profiles=profiles)
    _projects[directory, profiles, loaded.build] = loaded
    return loaded


def _load_file(path: Path) -> _LoadedModule:
    known = _files.get(path)
    if known is not None and known.is_fresh:
        return known
    if not os.path.isfile(path):  # noqa: PTH113  # Path raises for a long name
        beside = sorted(file.name for file in path.parent.glob("*.py"))
        close = get_close_matches(path.name, beside, n=1)
        hint = f"did you mean {close[0]}?" if close else f"beside it: {', '.join(beside) or 'none'}"
        raise NotFound(f"{path}: there is no such file; {hint}")
    space = ModuleSpace(path.parent)
    try:
        with (
            author_code(f"loading {path.name}", path.parent),
            space.active(),
            collected_errors() as errors,
        ):
            module, source = _executed(path)
    except AlgorithmFailed as error:
        if isinstance(error.__cause__, (AttributeError, ImportError)):
            raise AlgorithmFailed(f"{error.detail}{_hidden_modules(path.parent)}") from error
        raise
    sources = (source, *space.sources())
    build = sources_digest(path.parent, sources=sources)
    _files[path] = _LoadedModule(module, build, sources, errors)
    return _files[path]


def _hidden_modules(folder: Path) -> str:
    """Return a hint if files of a folder hide modules of Python itself."""
    standard = sys.stdlib_module_names
    names = sorted(file.name for file in folder.glob("*.py") if file.stem in standard)
    if not names:
        return ""
    return f"; {', '.join(names)} beside it has the name of a module of Python: rename it"


def _executed(path: Path) -> tuple[ModuleType, Source]:
    """Run a file as a module with a name that no other file has; return what was compiled."""
    path_hash = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"_pesto_author_{path_hash}_{path.stem}"
    loader = UncachedLoader(name, str(path))
    module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    # Registered before it runs, because dataclasses look up their module in sys.modules:
    # https://docs.python.org/3/library/importlib.html#importing-a-source-file-directly
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if previous is not None:
            sys.modules[name] = previous
        raise
    return module, loader.source


def _load_module(name: str, base: Path) -> _LoadedModule:
    absent = NotFound(f"{name}: there is no such module; {_FORMS}, and a service is http://…")
    if not all(part.isidentifier() for part in name.split(".")):
        raise absent
    known = _modules.get(name)
    if known is not None and sys.modules.get(name) is known.module:
        return known  # Python does not import it again: its build is that of the imported files
    sys.path.insert(0, str(base))
    try:
        with author_code(f"loading {name}", base), collected_errors() as errors:
            _compile_from_source(name)
            module = importlib.import_module(name)
    except AlgorithmFailed as error:
        # Only if the module or its package is missing; a failed import in it is the author's error.
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
            raise absent from error
        raise
    finally:
        sys.path.remove(str(base))
    file = Path(module.__file__ or "")
    if not file.is_file():
        raise NotFound(f"{name}: is a package without a file; name the module of the function")
    _modules[name] = _LoadedModule(module, _package_build(module), (), errors)
    return _modules[name]


def _compile_from_source(name: str) -> None:
    """Have a module and its package compiled from their sources, if not imported yet."""
    top = name.partition(".")[0]
    spec = None if top in sys.modules else find_spec(top)
    if spec is None:
        return
    for place in map(Path, spec.submodule_search_locations or ()):
        import_from_source(place)
        import_from_source(place.parent, below=False)  # finds the package's `__init__.py`
    if not spec.submodule_search_locations:
        import_from_source(Path(spec.origin or "").parent)


def _package_build(module: ModuleType) -> str:
    """Return the build of a module's top-level package and its modules, or of the module's file.

    Of all modules, imported or not: another process may have imported others, and must get the
    same build. Those that are imported count as they were compiled. The others, and those that the
    program had imported before, count as they are now: what will be read, or was, is not known.
    """
    top = module.__name__.partition(".")[0]
    file = Path(module.__file__ or "")
    root, files = file.parent, {file}
    for place in map(Path, getattr(sys.modules.get(top), "__path__", ())):
        if file.is_relative_to(place):
            root, files = place.parent, {*modules_below(place)}
            break
    compiled = [each for each in sources_of(top) if each.file in files]
    return sources_digest(root, files, sources=compiled)


def _function(place: str, name: str, base: Path | None) -> FunctionProcessor:
    if place.endswith(".py"):
        loaded = _load_file(_path(place, base))
    else:
        loaded = _load_module(place, (base or Path.cwd()).absolute())
    found = getattr(loaded.module, name, None)
    contract = contract_of(found)
    if contract is not None:
        return _cached(contract, loaded.build, name)
    wrong = loaded.errors.get(getattr(found, "__name__", name))
    if wrong is not None:
        raise InvalidContract(wrong.detail, fields=wrong.fields)
    known = [f"{place}:{key}" for key, each in vars(loaded.module).items() if contract_of(each)]
    choice = f"there is {', '.join(sorted(known))}" if known else "the module has none"
    choice += "".join(f"; {place}:{key} is wrong: {e}" for key, e in loaded.errors.items())
    if callable(found):
        raise InvalidContract(
            f"{place}:{name} is not a process: decorate it with @pesto_runtime.process; {choice}"
        )
    wanted = f"{place} has no process {name!r}" if name else f"{place}: name its function"
    raise NotFound(f"{wanted}; {choice}")


def _cached(contract: FunctionContract, build: str, name: str) -> FunctionProcessor:
    """Return the one processor of a function and build, so that its set-up runs once."""
    known = _functions.get((build, name))
    if known is None or known.contract is not contract:
        known = _functions[build, name] = FunctionProcessor(contract, build)
    return known
