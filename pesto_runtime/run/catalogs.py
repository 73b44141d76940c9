"""Read how a catalog or a pipeline names the services of processes: targets, URLs, descriptions.

No service is contacted, and no process is loaded: `run/services.py` does that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidContract, InvalidInput, shortened
from pesto_runtime.places import RemotePath
from pesto_runtime.run.builds import parsed_description
from pesto_runtime.run.service_versions import newest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.places import AnyPath

_SAVED = "*@*.json"


@dataclass(frozen=True)
class ServiceEntry:
    """The service of a process as an option, a catalog or a pipeline names it.

    Attributes:
        targets: A target, or URLs of replicas; empty if only the description was saved.
        base: Directory that a relative target is relative to.
        overlay: JSON merge patch for its description.
        saved: The description in a catalog.
        transports: Media types that the service accepted when it was saved; empty for PESTO 1.7.2.
        versions: All versions in the catalog, of which this is the newest.
    """

    targets: tuple[str, ...]
    base: Path
    overlay: Mapping[str, JsonValue] | None = None
    saved: Description | None = None
    transports: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


def catalog_entries(path: AnyPath) -> dict[str, ServiceEntry]:
    """Read a catalog: `{name: TARGET}` as JSON, or a folder of saved descriptions.

    Raises:
        InvalidInput: it does not exist, or is malformed; with its name.
        InvalidContract: a description in it contradicts itself.
    """
    is_folder = path.suffix != ".json" if isinstance(path, RemotePath) else path.is_dir()
    if is_folder:
        files = _saved_files(path)
        if not files:
            raise InvalidInput(
                f"{path} does not contain a NAME@VERSION.json; `pesto discover` writes them"
            )
        return _by_version([_saved_entry(file) for file in files])
    document = _read_object(path)
    return {name: service_entry(name, value, path) for name, value in document.items()}


def service_entry(name: str, value: JsonValue, file: AnyPath) -> ServiceEntry:
    """Parse a service in a catalog: a target, a list of URLs, or `{"url": …, "overlay": …}`."""
    if isinstance(value, dict):
        targets = targets_in(value.get("url"), f"{file}, service {name!r}")
        return ServiceEntry(targets, base_of(file), _overlay(value, file))
    return ServiceEntry(targets_in(value, f"{file}, service {name!r}"), base_of(file))


def targets_in(value: object, where: str = "") -> tuple[str, ...]:
    """Return the targets of a service: one, or the URLs of replicas.

    Args:
        value: A text, or a list of texts.
        where: Its place, for the message.

    Raises:
        InvalidInput: it is neither.
    """
    found = (value,) if isinstance(value, str) else value
    if isinstance(found, (list, tuple)) and found and all(isinstance(each, str) for each in found):
        return tuple(found)
    fault = f"{shortened(value)} is neither a target, nor a URL, nor a list of URLs"
    raise InvalidInput(f"{where}: {fault}" if where else fault)


def read_document(path: AnyPath) -> JsonValue:
    """Read a JSON file, or a JSON object of a bucket or a web server.

    Raises:
        InvalidInput: it does not exist, or is not JSON; with its name.
    """
    try:
        document: JsonValue = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error
    return document


def base_of(file: AnyPath) -> Path:
    """Return the directory to which the targets in a file are relative: that of the file.

    It is the working directory for a file elsewhere: code is not loaded from a bucket.
    """
    return Path.cwd() if isinstance(file, RemotePath) else file.resolve().parent


def _saved_files(folder: AnyPath) -> list[AnyPath]:
    if isinstance(folder, RemotePath):
        return [folder / name for name in folder.names() if fnmatch(name, _SAVED)]
    return [*sorted(folder.glob(_SAVED))]


def _by_version(entries: list[tuple[str, ServiceEntry]]) -> dict[str, ServiceEntry]:
    """Return the entries by name: the newest of each, and all of them as `NAME@VERSION`."""
    found: dict[str, ServiceEntry] = {}
    for name in {name for name, _ in entries}:
        known = {e.saved.version: e for each, e in entries if each == name and e.saved is not None}
        best = newest(known)
        if best is not None:
            found[name] = replace(known[best], versions=tuple(sorted(known)))
        found |= {f"{name}@{version}": entry for version, entry in known.items()}
    return found


def _saved_entry(file: AnyPath) -> tuple[str, ServiceEntry]:
    document = _read_object(file)
    if "description" not in document:
        raise InvalidInput(f"{file} is not a saved description: it needs `description`")
    try:
        saved = parsed_description(json.dumps(document["description"]))
    except InvalidContract as error:
        raise InvalidContract(f"{file}: {error.detail}", fields=error.fields) from error
    if document.get("digest") not in (None, saved.digest):
        raise InvalidContract(
            f"{file}: its description has the digest {saved.digest}, not {document['digest']}: it "
            "was changed or damaged. Discover it again; an overlay changes a description"
        )
    # Without a URL, the engine has it: an Airflow connection, which differs by environment.
    targets = targets_in(document["url"]) if "url" in document else ()
    overlay = _overlay(document, file)
    # Without the key, assume a service of this package: only PESTO 1.7.2 accepts none of its types.
    known = document.get("transports", ["*/*"])
    transports = tuple(map(str, known)) if isinstance(known, list) else ()
    return saved.name, ServiceEntry(targets, base_of(file), overlay, saved, transports)


def _overlay(document: Mapping[str, JsonValue], file: AnyPath) -> Mapping[str, JsonValue] | None:
    overlay = document.get("overlay")
    if overlay is not None and not isinstance(overlay, dict):
        raise InvalidInput(f"{file}: overlay must be an object, not {shortened(overlay)}")
    return overlay


def _read_object(path: AnyPath) -> dict[str, JsonValue]:
    document = read_document(path)
    if not isinstance(document, dict):
        raise InvalidContract(f"{path} must be a JSON object, not {shortened(document)}")
    return document
