"""Bundle schemas that several PESTO projects share into the description of a project.

A `$ref` names one by its file, relative to the file that has the `$ref`, or by its href. The file
`pesto/api/schemas.lock.json` of a project has their contents and digests: with it, a project needs
no other files, and a shared schema that was changed is refused.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import rfc8785

from pesto_runtime.errors import BadField, InvalidInput, PestoError, shortened
from pesto_runtime.places import place_of
from pesto_runtime.processor.description_builder import DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

LOCK = "schemas.lock.json"
SchemaMode: TypeAlias = Literal["locked", "compared", "live"]
_OWN = "#/definitions/"


@dataclass(frozen=True)
class SharedSchema:
    """A schema outside of a project.

    Attributes:
        href: Its href; of a local file, the path relative to `pesto/api` of the project.
        document: Its content.
    """

    href: str
    document: JsonValue

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical JSON (RFC 8785): white space and order are not compared."""
        return f"sha256:{hashlib.sha256(rfc8785.dumps(self.document)).hexdigest()}"

    @property
    def version(self) -> str:
        """The `version` that it states, or else its `$id`; empty without them."""
        stated = self.document if isinstance(self.document, dict) else {}
        return str(stated.get("version") or stated.get("$id") or "")


class SharedSchemas:
    """The shared schemas of a project; reads each one once.

    Attributes:
        definitions: Those of shared schemas that the project needs, by their new names.
        faults: References that lead nowhere, and schemas that changed.
    """

    def __init__(
        self, api: Path, *, reserved: Collection[str] = (), mode: SchemaMode = "locked"
    ) -> None:
        """Read the file of locked schemas, if there is one.

        Args:
            api: The folder `pesto/api`.
            reserved: Names of the project's own definitions.
            mode: `locked`: locked files are compared with those at their places, if these exist;
                `compared`: locked schemas of servers too, if they can be read; `live`: the lock
                does not count.
        """
        self.definitions: dict[str, JsonValue] = {}
        self.faults: list[BadField] = []
        self._api, self._reserved, self._where = api, reserved, ""
        self._compares = mode == "compared"
        self._read: dict[str, SharedSchema | None] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._locked = None if mode == "live" else self._lock()

    @property
    def used(self) -> list[SharedSchema]:
        """The schemas that were read, by href."""
        return sorted((each for each in self._read.values() if each), key=lambda each: each.href)

    def bundled(self, schema: Mapping[str, JsonValue], where: str) -> dict[str, JsonValue]:
        """Return a schema of the project whose references to others are to `definitions`.

        Args:
            schema: The content of a file of `pesto/api`.
            where: JSON pointer of the file, for faults.
        """
        self._where = where
        return {key: self._local(value, "") for key, value in schema.items()}

    def _local(self, value: JsonValue, base: str) -> JsonValue:
        """Rewrite the references in a part of a schema; `base` is its href, empty for our own."""
        if isinstance(value, list):
            return [self._local(each, base) for each in value]
        if not isinstance(value, dict):
            return value
        found = {key: self._local(each, base) for key, each in value.items()}
        reference = value.get("$ref")
        if isinstance(reference, str) and (base or not reference.startswith("#")):
            found["$ref"] = self._name(reference, base)
        return found

    def _name(self, reference: str, base: str) -> str:
        """Return the local reference for one to a part of a shared schema."""
        place, _, pointer = reference.partition("#")
        href = _joined(base, place) if place else base
        known = self._names.get((href, pointer))
        if known is None:
            schema = self._schema(href)
            if schema is None:
                return reference
            found, part = _at(schema.document, pointer)
            own = pointer.removeprefix("/definitions/")
            if not found and own in DEFINITIONS:  # PESTO's, which a shared schema may use
                return f"{_OWN}{own}"
            if not found:
                self._fault(f"{href} has no {pointer}")
                return reference
            known = self._names[href, pointer] = self._free_name(href, pointer)
            self.definitions[known] = None  # a schema may refer to itself
            self.definitions[known] = self._local(part, href)
        return f"{_OWN}{known}"

    def _free_name(self, href: str, pointer: str) -> str:
        stem = posixpath.basename(urlsplit(href).path).partition(".")[0] or "schema"
        last = unquote(pointer.rpartition("/")[2])
        name = f"{stem}.{last}" if last else stem
        taken = {*self._names.values(), *self._reserved, *DEFINITIONS}
        return next(each for each in _numbered(name) if each not in taken)

    def _schema(self, href: str) -> SharedSchema | None:
        if href not in self._read:
            self._read[href] = self._found(href)
        return self._read[href]

    def _found(self, href: str) -> SharedSchema | None:
        locked = None if self._locked is None else self._locked.get(href)
        if self._locked is not None and locked is None:
            self._fault(f"{href} is not in {LOCK}: pesto schemas PROJECT --lock")
            return None
        try:
            # In an image and without a network there is only the locked one.
            is_far = "://" in href or not (self._api / href).is_file()
            if locked is not None and is_far and not self._compares:
                return locked
            now = self._at_its_place(href)
        except (OSError, ValueError, PestoError) as error:
            if locked is None:
                told = "it does not exist" if isinstance(error, FileNotFoundError) else error
                self._fault(f"the schema {href} cannot be read: {told}")
            return locked
        if locked is not None and now.digest != locked.digest:
            self._fault(f"{href} has the digest {now.digest}, and {locked.digest} in {LOCK}: it "
                        "was changed; pesto schemas PROJECT --lock accepts it")  # fmt: skip
        return locked or now

    def _at_its_place(self, href: str) -> SharedSchema:
        place = place_of(href if "://" in href else self._api / href)
        return SharedSchema(href, json.loads(place.read_text()))

    def _lock(self) -> dict[str, SharedSchema] | None:
        path = self._api / LOCK
        if not path.is_file():
            return None
        self._where = f"/pesto/api/{LOCK}"
        try:
            return {each.href: each for each in locked_schemas(path)}
        except InvalidInput as error:
            self._fault(error.detail)
            return {}

    def _fault(self, text: str) -> None:
        fault = BadField(self._where, text)
        if fault not in self.faults:
            self.faults.append(fault)


def locked_schemas(path: Path) -> Iterator[SharedSchema]:
    """Yield the schemas of a file of locked ones.

    Raises:
        InvalidInput: it is no such file, or a content in it has another digest.
    """
    try:
        listed = json.loads(path.read_text())["schemas"].items()
        found = [(SharedSchema(href, each["content"]), each["digest"]) for href, each in listed]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"is not a file of locked schemas: {shortened(error)}") from error
    for schema, digest in found:
        if schema.digest != digest:
            raise InvalidInput(
                f"its content of {schema.href} has the digest {schema.digest}, not {digest}: it "
                "was edited; pesto schemas PROJECT --lock writes it again"
            )
        yield schema


def lock_text(schemas: Sequence[SharedSchema]) -> str:
    """Return the text of a file of locked schemas."""
    listed = {
        each.href: {"version": each.version, "digest": each.digest, "content": each.document}
        for each in schemas
    }
    return json.dumps({"schemas": listed}, indent=1) + "\n"


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def _joined(base: str, place: str) -> str:
    """Return the href of a place that a schema at `base` names; relative ones as paths of files."""
    if "://" in place or place.startswith("/"):
        return place
    if "://" not in base:
        return posixpath.normpath(posixpath.join(posixpath.dirname(base), place))
    scheme, _, path = base.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), place))}"


def _at(document: JsonValue, pointer: str) -> tuple[bool, JsonValue]:
    """Return whether a document has a part, and the part (RFC 6901)."""
    part = document
    for word in unquote(pointer).split("/")[1:]:
        key = word.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and key.isdecimal() and int(key) < len(part):
            part = part[int(key)]
        elif isinstance(part, dict) and key in part:
            part = part[key]
        else:
            return False, None
    return True, part
