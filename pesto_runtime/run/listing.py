"""List the processes of projects and catalogs, and say which of them can take a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput, PestoError, json_pointer
from pesto_runtime.pipeline.fitting_scenes import SceneFacts, why_not
from pesto_runtime.places import RemotePath
from pesto_runtime.processor.project_files import read_project
from pesto_runtime.run.catalogs import catalog_entries
from pesto_runtime.run.services import find

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline, Scene
    from pesto_runtime.errors import BadField
    from pesto_runtime.places import AnyPath

_DEPTH = 3


@dataclass(frozen=True)
class Listed:
    """A process that was found.

    Attributes:
        name: Its name.
        version: Its version; empty if its description cannot be read.
        target: Where it is: a target, a URL, or a project's folder; empty if nobody says.
        title: Its title, or why its description cannot be read.
        reasons: Why it cannot take the scene; None without a scene, and empty if it can.
    """

    name: str
    version: str
    target: str
    title: str
    reasons: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return it as JSON."""
        found: dict[str, JsonValue] = {
            "name": self.name, "version": self.version, "target": self.target, "title": self.title,
        }  # fmt: skip
        return found if self.reasons is None else {**found, "reasons": [*self.reasons]}


def listed(place: AnyPath, scene: SceneFacts | None = None) -> list[Listed]:
    """Return the processes of a place, by name and version.

    Args:
        place: A catalog (a file, or a folder of saved descriptions), a folder with PESTO projects
            below it, or the URL of a catalog. A catalog's targets without a saved description are
            read, and its services contacted.
        scene: A scene that they should take.

    Raises:
        InvalidInput: there is none of these.
    """
    projects = [] if isinstance(place, RemotePath) else [*_projects(place)]
    found = [_project(folder, scene) for folder in projects] or [*_of_catalog(place, scene)]
    return sorted(found, key=lambda each: (each.name, each.version))


def scene_facts(scene: Scene, *, sensor: str = "", level: str = "") -> SceneFacts:
    """Return a scene with its resolution, and with facts that its file may not state."""
    from pesto_runtime.raster.place import place_of  # loads rasterio

    place = place_of(scene)
    metres = max(place.ground) if place is not None and place.ground else None
    return SceneFacts(scene, metres, sensor, level)


def others_for(
    pipeline: Pipeline, errors: Sequence[BadField], scenes: Mapping[str, Scene], catalog: AnyPath
) -> dict[str, list[Listed]]:
    """Return what else a catalog has: stage that does not take its scene -> other processes.

    Args:
        pipeline: The pipeline.
        errors: Those of its check.
        scenes: Image input -> scene.
        catalog: The catalog.
    """
    found: dict[str, list[Listed]] = {}
    for index, stage in enumerate(pipeline.stages):
        for port, binding in stage.inputs.items():
            where = json_pointer("stages", index, "inputs", port)
            name = binding.removeprefix("$inputs.") if isinstance(binding, str) else ""
            if name in scenes and any(each.pointer == where for each in errors):
                listed_ones = listed(catalog, scene_facts(scenes[name]))
                found[stage.id] = [each for each in listed_ones if each.name != stage.process]
    return found


def _of_catalog(place: AnyPath, scene: SceneFacts | None) -> Iterator[Listed]:
    try:
        entries = catalog_entries(place)
    except InvalidInput as error:
        raise InvalidInput(f"{error.detail}; there is no PESTO project below it either") from error
    for name, entry in entries.items():
        if entry.saved is not None and "@" not in name:
            continue  # the newest version, which is there as NAME@VERSION
        target = ", ".join(entry.targets)
        try:
            said = entry.saved or find(entry.targets, base=entry.base).said
            description = said.overlaid(entry.overlay) if entry.overlay else said
        except PestoError as error:
            yield Listed(name, "", target, str(error.detail))
            continue
        yield _process(description, target, scene)


def _project(folder: Path, scene: SceneFacts | None) -> Listed:
    try:
        return _process(read_project(folder).description, str(folder), scene)
    except PestoError as error:
        return Listed(folder.name, "", str(folder), str(error))


def _process(description: Description, target: str, scene: SceneFacts | None) -> Listed:
    reasons = None if scene is None else why_not(description, scene)
    title = description.known.title
    return Listed(description.name, description.version, target, title, reasons)


def _projects(folder: Path) -> Iterator[Path]:
    """Yield the folders of PESTO projects: this one, or those below it."""
    for depth in range(_DEPTH):
        for file in folder.glob("*/" * depth + "pesto/api/description.json"):
            yield file.parents[2]
