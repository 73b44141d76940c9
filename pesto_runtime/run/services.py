"""Find the service of each process of a pipeline, and save descriptions of services in a catalog.

Command-line options take precedence over a catalog, and a catalog over the pipeline itself. This
file reads descriptions; calls are made by `run/callers.py`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, Service, drift
from pesto_runtime.contract.pipeline import PROFILES
from pesto_runtime.errors import BadField, InvalidContract, InvalidInput, StoreRefused
from pesto_runtime.run.builds import described_at, is_url, portable_target, processes_at
from pesto_runtime.run.catalogs import ServiceEntry, catalog_entries, service_entry, targets_in
from pesto_runtime.run.service_versions import is_compatible, newest, pinned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline
    from pesto_runtime.places import AnyPath

_AWAY = (
    "the replica {url} does not respond: it is used when it is back, and its code is compared then"
)


BUILT_IN = {"warp": "pesto_runtime.processor.warping:warp"}
"""Processes of this package, for pipelines that name no other service of them."""


@dataclass(frozen=True)
class Discovered:
    """A process with its service.

    Attributes:
        service: The service in the form that a plan contains.
        description: The description with the overlay.
        said: The description as the service returns it, without the overlay.
        overlay: The overlay; None for none.
        away: URLs of replicas that did not respond, and whose code is not known yet.
        is_placeless: Whether a service states that its code receives no place of its pixels.
    """

    service: Service
    description: Description
    said: Description
    overlay: Mapping[str, JsonValue] | None = None
    away: tuple[str, ...] = ()
    is_placeless: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is a service that accepts and returns only PESTO's own image forms."""
        return self.service.is_remote and not self.service.transports


@dataclass(frozen=True)
class Services:
    """The services of the processes of a pipeline.

    Attributes:
        found: Process name -> process with its service; a process without a service is absent.
        changed: Compatible changes since a catalog was saved, and replicas that are away.
        offered: Every process that has a service, whether the pipeline uses it or not.
        base: Directory of the pipeline's file, to which its own paths are relative.
    """

    found: Mapping[str, Discovered]
    changed: tuple[BadField, ...] = ()
    offered: frozenset[str] = frozenset()
    base: Path = Path()

    @property
    def services(self) -> dict[str, Service]:
        """Process name -> service in the form that a plan contains."""
        return {name: each.service for name, each in self.found.items()}

    @property
    def descriptions(self) -> dict[str, Description]:
        """Process name -> description with the overlay."""
        return {name: each.description for name, each in self.found.items()}

    @property
    def digests(self) -> dict[str, str]:
        """Process name -> digest of the description without the overlay."""
        return {name: each.said.digest for name, each in self.found.items()}

    @property
    def plain(self) -> frozenset[str]:
        """Processes that a plain PESTO service runs."""
        return frozenset(name for name, each in self.found.items() if each.is_plain)


def find(
    targets: Sequence[str],
    *,
    base: Path | None = None,
    overlay: Mapping[str, JsonValue] | None = None,
) -> Discovered:
    """Read the description of a target, or of the replicas of a service that respond.

    Args:
        targets: One target, or one or more URLs of the same process.
        base: Directory that a relative target is relative to.
        overlay: JSON merge patch for the description (RFC 7396).

    Raises:
        PestoError: the target cannot be loaded, or no replica of the service responds.
        InvalidContract: replicas describe different processes.
        ProcessChanged: replicas run different code.
    """
    found, away = described_at(targets, base)
    said = found.description
    description = _overlaid(said, overlay)
    service = Service(
        targets=tuple(targets) if is_url(targets[0]) else (portable_target(targets[0], base),),
        description=description.to_json(),
        build=found.build,
        transports=found.transports,
        digest=found.digest,
        states_code=found.states_code,
    )
    return Discovered(service, description, said, overlay, away, found.is_placeless)


def resolve_services(
    pipeline: Pipeline,
    *,
    base: Path,
    options: Sequence[str] = (),
    catalog: AnyPath | None = None,
    chosen: Mapping[str, JsonValue] | None = None,
    urls: Mapping[str, str] | None = None,
    ask: bool = True,
    later: Collection[str] = (),
) -> Services:
    """Find the service of every process of a pipeline.

    Args:
        pipeline: Its stages name the processes; its `services` have the lowest precedence.
        base: Directory of the pipeline's file.
        options: `NAME=TARGET_OR_URL` or `URL`, as on the command line; with the highest
            precedence. A name that is repeated lists replicas.
        catalog: `{name: TARGET}` as JSON, or a folder that `pesto discover` wrote.
        chosen: As a catalog's `{name: TARGET}`, relative to `base`; takes precedence over a
            catalog.
        urls: Process name -> URL that replaces its targets; a saved description stays in force.
        ask: Whether services that a catalog describes are contacted; False uses the saved
            descriptions unchecked.
        later: Processes of which a saved description is enough, as their URL is known later.

    Raises:
        InvalidInput: an option or the catalog is malformed, or a process has no URL.
        InvalidContract: a service has breaking changes since its description was saved.
        PestoError: a target cannot be loaded, or a service does not respond.
    """
    entries = _entries(pipeline, base, catalog, chosen or {})
    entries |= {
        name: replace(entries.get(name, ServiceEntry((), base)), targets=(url,))
        for name, url in (urls or {}).items()
    }
    entries |= _options(options)
    needed = {stage.process for stage in pipeline.stages}
    found = {}
    changed: list[BadField] = []
    entries = {**entries, **_pinned_entries(entries, needed)}
    for name in sorted(needed & set(entries)):
        entry = entries[name]
        changed += _choice(name, entry)
        if not entry.targets:
            entry = replace(entry, targets=_later(name, later))
        if entry.saved is not None:
            _require_pinned(name, entry.saved)
        if entry.saved is not None and not ask:
            found[name] = _from_catalog(entry, entry.saved)
            continue
        found[name] = find(entry.targets, base=entry.base, overlay=entry.overlay)
        _require_pinned(name, found[name].said)
        changed += _drift(name, entry, found[name])
        changed += [BadField(f"/{name}", _AWAY.format(url=url)) for url in found[name].away]
    return Services(found, tuple(changed), frozenset(entries), base)


def known_targets(
    pipeline: Pipeline, *, base: Path, options: Sequence[str] = (), catalog: AnyPath | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the targets of each process of a pipeline; none for a description without a URL.

    Only a URL without a name in `options` is contacted, for its name.

    Raises:
        InvalidInput: as for `resolve_services`, with its arguments.
    """
    entries = {**_entries(pipeline, base, catalog, {}), **_options(options)}
    needed = {stage.process for stage in pipeline.stages}
    entries |= _pinned_entries(entries, needed)
    return {name: entries[name].targets if name in entries else () for name in sorted(needed)}


def discover(urls: Sequence[str], folder: Path) -> list[Path]:
    """Save the description of every process as `NAME@VERSION.json`, and return the files.

    A service with several processes, or one of OGC API - Processes, has a file for each.

    The relative path of a target is saved as relative to the folder.

    Raises:
        PestoError: a service does not respond; then no description is saved.
        StoreRefused: the folder cannot be written.
        InvalidContract: a service's name or version cannot be part of a file name.
        InvalidInput: an existing file is not JSON.
    """
    found = [(each, find((each,))) for url in urls for each in processes_at(url)]
    return [
        save_description(folder, _seen_from(folder, url), each.said, each.service.transports)
        for url, each in found
    ]


def save_description(folder: Path, url: str, said: Description, transports: Sequence[str]) -> Path:
    """Save the description of a service as `NAME@VERSION.json`.

    An overlay in that file stays, and a file without a URL gets none.

    Args:
        folder: Created if it is missing.
        url: URL of the service.
        said: Its description.
        transports: Media types that it accepts; empty for PESTO 1.7.2.

    Raises:
        StoreRefused: the folder cannot be written.
        InvalidContract: its name or version cannot be part of a file name.
        InvalidInput: an existing file is not JSON.
    """
    file = f"{said.name}@{said.version}.json"
    if Path(file).name != file:
        raise InvalidContract(f"{url} has the name {file[:-5]!r}, which cannot be a file name")
    path = folder / file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        saved = _saved_before(path)
        document: dict[str, JsonValue] = {"url": url, "digest": said.digest}
        if "description" in saved and "url" not in saved:  # a user deleted it: a connection has it
            del document["url"]
        document |= {"overlay": saved["overlay"]} if "overlay" in saved else {}
        document["transports"] = list(transports)
        document["description"] = said.to_json()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=2) + "\n")
        part.replace(path)
    except OSError as error:
        raise StoreRefused(f"{folder}: {error.strerror or error}") from error
    return path


def _seen_from(folder: Path, target: str) -> str:
    """Return a target for a catalog: a relative path is read as relative to its folder."""
    code, mark, profiles = target.partition(PROFILES)
    place, colon, function = code.rpartition(":")
    path = Path(place if colon else code)
    if is_url(target) or path.is_absolute() or not path.exists():
        return target
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return f"{relative}{colon}{function if colon else ''}{mark}{profiles}"


def _entries(
    pipeline: Pipeline, base: Path, catalog: AnyPath | None, chosen: Mapping[str, JsonValue]
) -> dict[str, ServiceEntry]:
    """Return what pipeline, catalog and choice name, the last with the highest precedence."""
    entries = {
        stage.process: ServiceEntry((BUILT_IN[stage.process],), base)
        for stage in pipeline.stages
        if stage.process in BUILT_IN
    }
    entries |= {
        name: ServiceEntry(targets_in(value), base) for name, value in pipeline.services.items()
    }
    entries |= catalog_entries(catalog) if catalog else {}
    entries |= {
        name: service_entry(name, value, base / "services") for name, value in chosen.items()
    }
    return entries


def _pinned_entries(
    entries: Mapping[str, ServiceEntry], needed: Collection[str]
) -> dict[str, ServiceEntry]:
    """Return the entries of `NAME@PIN`: the newest compatible one, else the one of the name."""
    found = {}
    for name in needed - entries.keys():
        process, pin = pinned(name)
        versions = [version for each, version in map(pinned, entries) if each == process]
        best = newest(version for version in versions if version and is_compatible(version, pin))
        entry = entries.get(process if best is None else f"{process}@{best}")
        if entry is not None and pin:
            compatible = tuple(v for v in versions if v and is_compatible(v, pin))
            found[name] = replace(entry, versions=compatible)
    return found


def _choice(name: str, entry: ServiceEntry) -> Iterator[BadField]:
    """Yield which of several versions is used."""
    if len(entry.versions) > 1 and entry.saved is not None:
        listed = ", ".join(entry.versions)
        detail = f"the catalog has versions {listed}: {entry.saved.version} is used"
        yield BadField(f"/{name}", f"{detail}; name one by {pinned(name)[0]}@VERSION")


def _require_pinned(name: str, said: Description) -> None:
    process, pin = pinned(name)
    if pin and not is_compatible(said.version, pin):
        raise InvalidInput(
            f"{name} is pinned, and its service has version {said.version}: give a service of "
            f"version {pin} by -s {process}@{pin}=TARGET_OR_URL, or change the pin"
        )


def _overlaid(said: Description, overlay: Mapping[str, JsonValue] | None) -> Description:
    if not overlay:
        return said
    try:
        return said.overlaid(overlay)
    except InvalidContract as error:
        raise InvalidContract(f"overlay: {error.detail}", fields=error.fields) from error


def _from_catalog(entry: ServiceEntry, saved: Description) -> Discovered:
    description = _overlaid(saved, entry.overlay)
    service = Service(
        targets=entry.targets,
        description=description.to_json(),
        build=f"{saved.name}@{saved.version}",
        transports=entry.transports,
        digest=saved.digest,
    )
    return Discovered(service, description, saved, entry.overlay)


def _later(name: str, later: Collection[str]) -> tuple[str]:
    """Return the URL of a service that is known later: one of no server.

    Raises:
        InvalidInput: it is not known later either.
    """
    if name not in later:
        raise InvalidInput(
            f"the catalog has no URL of {name!r}, only its description: give -s {name}=URL; on "
            f"Airflow a connection of type pesto with the URL: conn_ids={{{name!r}: …}}"
        )
    return ("http://",)


def _drift(name: str, entry: ServiceEntry, found: Discovered) -> Iterator[BadField]:
    if entry.saved is None or entry.saved.digest == found.said.digest:
        return
    changes = drift(entry.saved, found.said)
    breaking = [
        BadField(f"/{name}{each.pointer}", each.detail) for each in changes if each.breaking
    ]
    if breaking:
        raise InvalidContract.of(
            f"{entry.targets[0]} is no longer the {name!r} that the catalog describes "
            "(discover it again, then check the pipeline)",
            breaking,
        )
    for each in changes:
        yield BadField(f"/{name}{each.pointer}", f"changed since the catalog: {each.detail}")


def _options(options: Sequence[str]) -> dict[str, ServiceEntry]:
    targets: dict[str, tuple[str, ...]] = {}
    for option in options:
        name, equals, target = option.partition("=")
        if is_url(option):
            name, target = find((option,)).description.name, option
        elif not equals or not name or not target:
            raise InvalidInput(f"-s {option!r} is neither NAME=TARGET_OR_URL nor a URL")
        targets[name] = (*targets.get(name, ()), target)
    return {name: ServiceEntry(each, Path.cwd()) for name, each in targets.items()}


def _saved_before(path: Path) -> dict[str, JsonValue]:
    """Return a description that was saved before; empty if there is none."""
    try:
        saved = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}; correct or delete it") from error
    return saved if isinstance(saved, dict) else {}
