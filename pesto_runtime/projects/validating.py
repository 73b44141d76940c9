"""Read all files of a PESTO project that its image is made from, and report every fault at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from jsonschema import Draft6Validator
from jsonschema.exceptions import SchemaError

from pesto_runtime.errors import BadField, InvalidContract, PestoError, shortened
from pesto_runtime.processor.project_files import ProjectReader
from pesto_runtime.run.services import find
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.processor.shared_schemas import SharedSchema

_SCHEMAS = ("input_schema", "output_schema")
_REQUIRED_FILES = ("api/description", "api/input_schema", "api/output_schema", "build/build")
_OPTIONAL_FILES = ("api/user_definitions", "api/config", "api/config_schema", "api/version",
                   "build/requirements")  # fmt: skip
_RESERVED = ("definition", "definitions", "content", "type", "$schema")
_SCHEMES = ("file", "http", "https", "s3", "gs")
_KINDS = ("python", "pip", "", "static", "copy")
_MANAGERS = ("apt", "dnf")
_IMAGE_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*")


@dataclass(frozen=True)
class Requirement:
    """A file that the image needs.

    Attributes:
        name: Its key in `requirements.json`.
        source: Href of the file; an archive `tar.gz` is unpacked.
        to: Absolute folder or file in the image; empty for a package of pip.
        kind: `python` (on the path of imports), `pip` (a wheel or source archive) or `copy`.
    """

    name: str
    source: str
    to: str
    kind: Literal["python", "pip", "copy"]


@dataclass(frozen=True)
class BuildFiles:
    """What an image of a project is made from.

    Attributes:
        directory: Of the project.
        profiles: In the order in which they apply.
        name: Of the image.
        version: Of the image, without profiles.
        description: Of the process.
        base: The base image that is declared; None for none.
        environment: Variables of the image.
        requirements: Files.
        pip: Requirements of pip, as in a requirements file.
        packages: Package manager -> system packages.
        target: What is served, below the directory: empty for a project, `/FILE.py:FUNCTION`.
        schemas: Those of other places, which the image does not reach.
    """

    directory: Path
    profiles: tuple[str, ...]
    name: str
    version: str
    description: Description
    base: str | None
    environment: Mapping[str, str]
    requirements: tuple[Requirement, ...]
    pip: tuple[str, ...]
    packages: Mapping[str, tuple[str, ...]]
    target: str = ""
    schemas: tuple[SharedSchema, ...] = ()

    @property
    def tag(self) -> str:
        """`NAME:VERSION`, with the profiles joined by hyphens."""
        return f"{self.name}:{'-'.join([self.version, *self.profiles])}"


def read_build_files(
    directory: Path, profiles: Sequence[str] = (), *, build: str = "build"
) -> BuildFiles:
    """Read and check a project; runs no code, and requests nothing.

    Args:
        directory: Of the project.
        profiles: In the order in which they apply.
        build: Name of its build file without `.json`; it is never changed by profiles.

    Raises:
        NotFound: it is not a project, or has no such profile.
        InvalidContract: files are missing or wrong; the error lists all faults.
    """
    reader = ProjectReader(directory, tuple(profiles), build=build, mode="compared")
    files = {name: reader.read(name, optional=False) for name in _REQUIRED_FILES}
    files |= {name: reader.read(name) for name in _OPTIONAL_FILES}
    faults = reader.faults
    if not (directory / "algorithm" / "process.py").is_file():
        faults.append(BadField("/algorithm/process.py", "is missing"))
    for side in _SCHEMAS:
        faults.extend(_schema_faults(side, files[f"api/{side}"]))
    faults.extend(_config_faults(reader.schemas["config_schema"], files["api/config"]))
    requirements = list(_requirements(directory, files["build/requirements"], faults))
    known = files["build/requirements"]
    environment = _texts(known, "environments", faults)
    pip, packages = _pip(known, faults), _packages(known, faults)
    name, version = (_text(files["build/build"], key, faults) for key in ("name", "version"))
    description = None
    if not faults:
        try:
            description = reader.project().description
        except PestoError as error:
            faults.extend(error.fields or [BadField("/pesto", error.detail)])
    if faults or description is None:
        raise InvalidContract.of(f"project {directory}", faults)
    base = known.get("dockerBaseImage")
    return BuildFiles(
        directory, tuple(profiles), name, version, description,
        str(base) if base else None, environment, tuple(requirements), pip, packages,
        schemas=tuple(reader.shared.used),
    )  # fmt: skip


def function_build_files(target: str) -> BuildFiles:
    """Return what the image of a function is made from: the code of its folder.

    Requirements of pip are in `requirements.txt` beside its file.

    Args:
        target: `FILE.py:FUNCTION`.

    Raises:
        PestoError: the target cannot be loaded.
        InvalidContract: its requirements or its name cannot be those of an image.
    """
    place, _, function = target.rpartition(":")
    file = Path(place).resolve()
    description = find((target,), base=Path.cwd()).said
    faults: list[BadField] = []
    listed = file.parent / "requirements.txt"
    lines = listed.read_text().splitlines() if listed.is_file() else []
    needed = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    pip = _list([*needed], f"/{listed.name}", faults)
    if not _IMAGE_NAME.fullmatch(description.name):
        faults.append(BadField("/name", "an image has small letters, digits, - and _ as its name",
                               description.name))  # fmt: skip
    if faults:
        raise InvalidContract.of(target, faults)
    return BuildFiles(
        file.parent, (), description.name, description.version, description, None, {}, (), pip, {},
        target=f"/{file.name}:{function}",
    )  # fmt: skip


def _schema_faults(side: str, schema: Mapping[str, JsonValue]) -> Iterator[BadField]:
    where = f"/pesto/api/{side}.json"
    for name, body in schema.items():
        if name not in ("required", "title", "description"):
            fault = _port_fault(name, body)
            if fault:
                yield BadField(f"{where}/{name}", fault, shortened(body))
    required = schema.get("required", [])
    for each in required if isinstance(required, list) else []:
        if each not in schema and "properties" not in schema:
            yield BadField(f"{where}/required", f"names {each!r}, which is not declared")


def _port_fault(name: str, body: JsonValue) -> str | None:
    """Return what is wrong with an entry of a flat schema."""
    if name in _RESERVED:
        is_port = isinstance(body, dict) and bool({"type", "$ref"} & set(body))
        return "is a reserved key, and cannot be a name" if is_port else None
    if not isinstance(body, dict):
        return "must be a JSON schema object"
    if name == "pesto":
        return "is the key of options, and cannot be a name"
    try:
        Draft6Validator.check_schema(body)
    except SchemaError as error:
        return f"is not a JSON schema: {error.message}"
    return None


def _config_faults(
    schema: Mapping[str, JsonValue], config: Mapping[str, JsonValue]
) -> Iterator[BadField]:
    if schema and config:
        try:
            yield from schema_faults(schema, dict(config), pointer="/pesto/api/config.json")
        except InvalidContract as error:
            yield BadField("/pesto/api/config_schema.json", error.detail)


def _requirements(
    directory: Path, content: Mapping[str, JsonValue], faults: list[BadField]
) -> Iterator[Requirement]:
    entries = content.get("requirements", {})
    where = "/pesto/build/requirements.json/requirements"
    if not isinstance(entries, dict):
        faults.append(BadField(where, "must be an object", shortened(entries)))
        return
    for name, body in entries.items():
        if not isinstance(body, dict) or not isinstance(body.get("from"), str):
            faults.append(BadField(f"{where}/{name}", "needs `from`, an href", shortened(body)))
            continue
        source, to, kind = str(body["from"]), str(body.get("to") or ""), str(body.get("type") or "")
        found = list(_requirement_faults(directory, source, to, kind))
        faults.extend(BadField(f"{where}/{name}{key}", text) for key, text in found)
        if not found:
            known = kind if kind in ("python", "pip") else "copy"
            yield Requirement(name, source, to, cast('Literal["python", "pip", "copy"]', known))


def _requirement_faults(
    directory: Path, source: str, to: str, kind: str
) -> Iterator[tuple[str, str]]:
    scheme, colon, _ = source.partition("://")
    if not colon or scheme not in _SCHEMES:
        yield "/from", f"{source!r} is not an href of {', '.join(_SCHEMES)}"
    elif scheme == "file" and not local_source(directory, source).exists():
        yield "/from", f"{local_source(directory, source)} does not exist"
    if kind not in _KINDS:
        yield "/type", f"{kind!r} is not python, pip, or absent for a copy"
    if kind != "pip" and (not to.startswith("/") or ".." in to.split("/")):
        yield "/to", f"{to!r} must be an absolute path of the image, without `..`"


def local_source(directory: Path, source: str) -> Path:
    """Return the path of a `file://` requirement; a relative one is of the project."""
    return directory / source.removeprefix("file://")


def _texts(content: Mapping[str, JsonValue], key: str, faults: list[BadField]) -> dict[str, str]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        faults.append(BadField(f"/pesto/build/requirements.json/{key}", "must be an object"))
        return {}
    wrong = [name for name, text in value.items() if isinstance(text, (dict, list))]
    faults.extend(BadField(f"/pesto/build/requirements.json/{key}/{name}", "must be a text")
                  for name in wrong)  # fmt: skip
    return {name: str(text) for name, text in value.items()}


def _pip(content: Mapping[str, JsonValue], faults: list[BadField]) -> tuple[str, ...]:
    return _list(content.get("pip", []), "/pesto/build/requirements.json/pip", faults)


def _packages(
    content: Mapping[str, JsonValue], faults: list[BadField]
) -> dict[str, tuple[str, ...]]:
    where = "/pesto/build/requirements.json/packages"
    value = content.get("packages", {})
    if not isinstance(value, dict) or set(value) - set(_MANAGERS):
        faults.append(BadField(where, f"must be an object of {' and '.join(_MANAGERS)}"))
        return {}
    return {name: _list(each, f"{where}/{name}", faults) for name, each in value.items()}


def _list(value: JsonValue, where: str, faults: list[BadField]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        faults.append(BadField(where, "must be a list of texts", shortened(value)))
        return ()
    wrong = [each for each in cast("list[str]", value) if "\n" in each or each.startswith("-")]
    faults.extend(BadField(where, f"{each!r} is not a requirement") for each in wrong)
    return tuple(cast("list[str]", value))


def _text(content: Mapping[str, JsonValue], key: str, faults: list[BadField]) -> str:
    value = content.get(key)
    if content and (not isinstance(value, str) or not value):
        faults.append(BadField(f"/pesto/build/build.json/{key}", "must be a text"))
    return str(value or "")
