"""Read the JSON files of a PESTO project: profiles, description, version, build. Runs no code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description
from pesto_runtime.errors import BadField, InvalidContract, NotFound, shortened
from pesto_runtime.processor.description_builder import DRAFT, object_schema
from pesto_runtime.processor.shared_schemas import LOCK, SharedSchemas
from pesto_runtime.processor.sources import sources_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.processor.shared_schemas import SchemaMode, SharedSchema
    from pesto_runtime.processor.sources import Source

_TEXTS = ("title", "family", "description", "organization", "email")
_OPTIONAL = ("batched", "keywords", "template", "tileable", "releases_gil", "x-reduce",
             "x-examples")  # fmt: skip
_RESERVED = ("required", "definition", "$schema", "title", "type", "content", "definitions",
             "description")  # fmt: skip
_OPTIONAL_SCHEMAS = ("user_definitions", "config_schema")
_SCHEMAS = (*_OPTIONAL_SCHEMAS, "input_schema", "output_schema")
_PACKAGING = "packaged with PESTO v1.7.2"
"""The format of a project's files, verbatim as PESTO's clients know it."""


@dataclass(frozen=True)
class ProjectFiles:
    """The content of a project's JSON files.

    Attributes:
        directory: Directory of the project.
        profiles: In the order in which they were applied.
        description: The description, as a PESTO service returns it.
        version_document: The body of the response to `GET /api/v1/version`.
        full_version: The version and the profiles, joined by hyphens, for the project's code.
    """

    directory: Path
    profiles: tuple[str, ...]
    description: Description
    version_document: Mapping[str, JsonValue]
    full_version: str


def read_project(directory: Path, profiles: Sequence[str] = ()) -> ProjectFiles:
    """Read a project; each `X.json` is updated by its `X.PROFILE.json` in the order of profiles.

    Raises:
        NotFound: the directory is not a project, or has no file for a profile.
        InvalidContract: files are missing or wrong, or the description is invalid.
    """
    if not (directory / "algorithm" / "process.py").is_file():
        raise NotFound(f"{directory}: not a PESTO project; it has no algorithm/process.py")
    return ProjectReader(directory, tuple(profiles)).project()


class ProjectReader:
    """Reads the JSON files of a project, each once, with the changes of its profiles.

    Attributes:
        faults: Of all files so far.
    """

    def __init__(
        self,
        directory: Path,
        profiles: tuple[str, ...],
        *,
        build: str = "build",
        mode: SchemaMode = "locked",
    ) -> None:
        """Read nothing yet.

        Args:
            directory: Of the project.
            profiles: In the order in which they apply.
            build: Name of its build file without `.json`; it is never changed by profiles.
            mode: Of the schemas of other places, as of `SharedSchemas`.
        """
        self._mode = mode
        self.directory, self.profiles, self._build = directory, profiles, build
        self.faults: list[BadField] = []
        self._known: dict[str, dict[str, JsonValue]] = {}

    def read(self, name: str, *, optional: bool = True) -> dict[str, JsonValue]:
        """Return the content of a file, as `api/description`; empty if it is absent or wrong."""
        if name not in self._known:
            self._known[name] = self._updated(name, optional=optional)
        return self._known[name]

    @cached_property
    def shared(self) -> SharedSchemas:
        """The schemas of other places to which those of the project refer."""
        own = self.read("api/user_definitions")
        api = self.directory / "pesto" / "api"
        return SharedSchemas(api, reserved=own, mode=self._mode)

    @cached_property
    def schemas(self) -> dict[str, dict[str, JsonValue]]:
        """The content of the files of schemas by name; shared ones are among the definitions."""
        found = {}
        for name in _SCHEMAS:
            content = self.read(f"api/{name}", optional=name in _OPTIONAL_SCHEMAS)
            found[name] = self.shared.bundled(content, f"/pesto/api/{name}.json")
        self.faults.extend(self.shared.faults)
        if self.shared.definitions:
            found["user_definitions"] |= self.shared.definitions
            own = found["config_schema"].get("definitions", {})
            if found["config_schema"] and isinstance(own, dict):
                found["config_schema"]["definitions"] = {**own, **self.shared.definitions}
        return found

    def project(self) -> ProjectFiles:
        """Return the whole project.

        Raises:
            NotFound: it has no file for a profile.
            InvalidContract: files are missing or wrong, or the description is invalid.
        """
        for profile in self.profiles:
            _require_profile(self.directory / "pesto", profile)
        declared = self.read("api/description", optional=False)
        document = _document(declared, self.schemas)
        version = str(declared.get("version", ""))
        built = self.read("build/build").get("version", version)
        own = self.read("api/version")
        if self.faults:
            raise InvalidContract.of(f"project {self.directory}", self.faults)
        return ProjectFiles(
            self.directory,
            self.profiles,
            Description.parse(document),
            {"version": version, "__packaging": _PACKAGING, **own},
            "-".join([str(built), *self.profiles]),
        )

    def _updated(self, name: str, *, optional: bool) -> dict[str, JsonValue]:
        is_build = name == "build/build"
        file = self.directory / "pesto" / f"{f'build/{self._build}' if is_build else name}.json"
        if not file.is_file():
            if not optional:
                self.faults.append(BadField(self._pointer(file), "is missing"))
            return {}
        content = self._object(file)
        for profile in () if is_build else self.profiles:
            changes = file.with_name(f"{file.stem}.{profile}.json")
            if changes.is_file():
                content = profile_update(content, self._object(changes))
        return content

    def _object(self, file: Path) -> dict[str, JsonValue]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}"
            fault = BadField(self._pointer(file), f"is not JSON: {place}: {error.msg}")
        except (OSError, UnicodeDecodeError) as error:
            fault = BadField(self._pointer(file), f"cannot be read: {error}")
        else:
            if isinstance(content, dict):
                return content
            fault = BadField(self._pointer(file), "must be a JSON object", shortened(content))
        self.faults.append(fault)
        return {}

    def _pointer(self, file: Path) -> str:
        return f"/{file.relative_to(self.directory)}"


def used_schemas(directory: Path) -> list[SharedSchema]:
    """Return the schemas of other places that a project uses, with or without a profile.

    Each is read where it is, whether it is locked or not.

    Raises:
        InvalidContract: a file is wrong, or a schema cannot be read; lists all of them.
    """
    found: dict[str, SharedSchema] = {}
    faults: list[BadField] = []
    for profiles in ((), *((each,) for each in _profiles(directory / "pesto"))):
        reader = ProjectReader(directory, profiles, mode="live")
        if reader.schemas:
            found |= {each.href: each for each in reader.shared.used}
        faults += [each for each in reader.faults if each not in faults]
    if faults:
        raise InvalidContract.of(f"project {directory}", faults)
    return [found[href] for href in sorted(found)]


def project_build(
    directory: Path, profiles: Sequence[str] = (), *, compiled: Sequence[Source] = ()
) -> str:
    """Return `sha256:…` of the profiles and of all files that can change what a project computes.

    These are all files of `algorithm/` and `pesto/api/`, data files too, the version in
    `pesto/build/build.json`, and the modules of other folders, which the project may import.
    Those in `compiled` count as they were compiled, the others as they are now.
    """
    folders = (directory / "algorithm", directory / "pesto" / "api")
    found = [file for folder in folders for file in folder.rglob("*")]
    found += [directory / "pesto" / "build" / "build.json", *directory.glob("*.py")]
    for package in directory.iterdir():
        if package.name.isidentifier() and package.name not in ("algorithm", "pesto"):
            found += package.rglob("*.py")
    files = {file for file in found if file.is_file() and "__pycache__" not in file.parts}
    sources = [each for each in compiled if each.file in files]
    return sources_digest(directory, files, sources=sources, profiles=profiles)


def _profiles(folder: Path) -> list[str]:
    files = (file for file in folder.glob("*/*.*.json") if file.name != LOCK)
    return sorted({file.suffixes[-2][1:] for file in files})


def _require_profile(folder: Path, profile: str) -> None:
    known = _profiles(folder)
    if profile not in known:
        raise NotFound(
            f"{folder.parent}: no file has the profile {profile!r}; there is "
            f"{', '.join(known) or 'no profile'}"
        )
    for file in sorted(folder.glob(f"*/*.{profile}.json")):
        base = file.with_name(file.name.removesuffix(f".{profile}.json") + ".json")
        if not base.is_file():
            others = [each.name for each in base.parent.glob("*.json") if each.name.count(".") == 1]
            raise InvalidContract(
                f"{file}: changes {base.name}, which does not exist; there is "
                f"{', '.join(sorted(others))}"
            )


def profile_update(
    content: Mapping[str, JsonValue], changes: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Apply a profile: objects merge at every depth; lists, scalars and null replace."""
    merged = dict(content)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = profile_update(old, value) if both else value  # type: ignore[arg-type]  # both are dicts
    return merged


def _document(
    declared: Mapping[str, JsonValue], schemas: Mapping[str, Mapping[str, JsonValue]]
) -> dict[str, JsonValue]:
    config, user = schemas["config_schema"], schemas["user_definitions"]
    return {
        **{key: declared.get(key, "") for key in _TEXTS},
        **{key: declared[key] for key in ("name", "version") if key in declared},
        "resources": declared.get("resources", {}),
        "asynchronous": declared.get("asynchronous", False),
        **{key: declared[key] for key in _OPTIONAL if key in declared},
        **({"config": {**config}} if config else {}),
        "input": _side(schemas["input_schema"], user),
        "output": _side(schemas["output_schema"], user),
    }


def _side(schema: Mapping[str, JsonValue], user: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Convert a flat map of ports to an object schema; reserved keys are not ports."""
    ports = {key: value for key, value in schema.items() if key not in _RESERVED}
    nested = ports.get("properties")
    required = schema.get("required")
    converted = object_schema(
        nested if isinstance(nested, dict) else ports,
        required=[str(name) for name in required] if isinstance(required, list) else (),
        definitions=user,
        title=str(schema.get("title", "")),
        description=str(schema.get("description", "Expected format")),
    )
    converted |= {
        "$schema": schema.get("$schema", DRAFT),
        "type": schema.get("type", "object"),
        "definition": schema.get("definition", {}),
    }
    return converted | ({"content": schema["content"]} if schema.get("content") else {})
