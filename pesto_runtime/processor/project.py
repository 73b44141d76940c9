"""A PESTO project directory at work, unmodified: the class `Process` of its `algorithm/process.py`.

One call at a time, as in a PESTO service: its authors were promised that.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pesto_runtime.errors import BadField, InvalidInput, shortened
from pesto_runtime.processor.entry import ProcessClass, load_entry
from pesto_runtime.processor.failure import author_code
from pesto_runtime.processor.judging import Judge
from pesto_runtime.processor.modules import ModuleSpace
from pesto_runtime.processor.named_keys import named_part
from pesto_runtime.processor.project_files import ProjectFiles, project_build, read_project
from pesto_runtime.processor.protocol import Given
from pesto_runtime.processor.supplied import supplied_modules
from pesto_runtime.processor.values import (
    encode_value,
    image_faults,
    output_image,
    output_images,
    refused_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port, TileInfo

T = TypeVar("T")
_IMAGES = ("image", "images")


@dataclass(frozen=True, eq=False)
class ProjectProcessor:
    """Performs a PESTO project.

    Attributes:
        files: What its files say.
        build: `sha256:…` of its sources and profiles.
    """

    files: ProjectFiles
    build: str
    _entry: ProcessClass = field(repr=False)
    _space: ModuleSpace = field(repr=False)
    _ready: threading.Event = field(default_factory=threading.Event, repr=False)
    _gate: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def description(self) -> Description:
        """The process's contract, as a PESTO service answers it."""
        return self.files.description

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """What `/version` tells: the project's `version.json`."""
        return self.files.version_document

    def setup(self) -> None:
        """Run the project's `on_start`, the first time only.

        Raises:
            AlgorithmFailed: it raised; the next call tries again.
        """
        with self._gate:
            if not self._ready.is_set():
                self._perform("on_start of ", self._entry.start)
            self._ready.set()

    def run(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer the outputs that the project gives; those it did not declare are dropped.

        A PESTO project knows nothing of tiles: `tile` is not passed on. It may write into its
        inputs, as it always could: they are its own copies, unless they were given away.

        Raises:
            InvalidInput: with every input that does not fit its schema.
            AlgorithmFailed: the project's code raised.
            ContractBroken: an output is neither an image nor JSON where it must be.
        """
        del tile
        values, faults = self._values(inputs)
        refused_inputs(self.description.name, faults)
        with self._gate:
            self.setup()
            given = self._perform("", lambda: self._entry.call(values))
        return {
            port.name: _output(port, given[port.name])
            for port in self.description.outputs
            if port.name in given and not (given[port.name] is None and port.kind in _IMAGES)
        }

    def settled(self) -> AbstractContextManager[None]:
        """Keep its modules in place between calls, for a process that serves nothing else."""
        return self._space.active()

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Refuse: a PESTO project is no reduce.

        Raises:
            InvalidInput: always.
        """
        del inputs, tile
        raise InvalidInput(f"{self.description.name} is no reduce: a PESTO project has no partial")

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Refuse: a PESTO project is no reduce.

        Raises:
            InvalidInput: always.
        """
        del partial
        raise InvalidInput(f"{self.description.name} is no reduce: a PESTO project has no finish")

    def _perform(self, doing: str, work: Callable[[], T]) -> T:
        root, name = self.files.directory, self.description.name
        with author_code(f"{doing}{name}", root), self._space.active():
            return work()

    def _values(self, inputs: Mapping[str, object]) -> tuple[dict[str, object], list[BadField]]:
        values: dict[str, object] = {}
        faults: list[BadField] = []
        for port in self.description.inputs:
            if port.name in inputs:
                faults.extend(self._faults(port, inputs[port.name]))
                values[port.name] = _taken(port, inputs)
            elif port.required:
                faults.append(BadField(f"/{port.name}", "is required"))
            elif port.has_default:
                values[port.name] = copy.deepcopy(port.schema["default"])
        return values, faults

    def _faults(self, port: Port, value: object) -> Iterator[BadField]:
        pointer = f"/{port.name}"
        if port.kind == "image":
            yield from image_faults(pointer, value, port.raster)
        elif port.kind == "images" and isinstance(value, (list, tuple)):
            for index, each in enumerate(value):
                yield from image_faults(f"{pointer}/{index}", each, port.raster)
        elif port.kind == "images":
            yield BadField(pointer, "must be a list of arrays (band, row, col)", shortened(value))
        else:
            yield from self._judges[port.name].faults(value)

    @cached_property
    def _judges(self) -> dict[str, Judge]:
        definitions = self.description.known.input.get("definitions", {})
        return {port.name: Judge.of(port, definitions) for port in self.description.inputs}


def load_project(
    directory: Path, *, profiles: Sequence[str] = (), build: str | None = None
) -> ProjectProcessor:
    """Load a PESTO project; its code is imported, `on_start` waits for `setup`.

    Raises:
        NotFound: no project there, or a profile that no file of it has.
        InvalidContract: a JSON file or the class `Process` contradicts the others.
        AlgorithmFailed: its code raises when it is imported.
    """
    files = read_project(directory, profiles)
    space = ModuleSpace(directory, supplied_modules(files.full_version, profiles))
    with space.active():
        entry = load_entry(directory, files.description)
    identity = build or project_build(directory, profiles)
    return ProjectProcessor(files, identity, entry, space)


def _taken(port: Port, inputs: Mapping[str, object]) -> object:
    """The project's own copy of a value, without the keys that its schema does not name."""
    value = inputs[port.name]
    if isinstance(inputs, Given) and _is_writeable(value):
        return value
    own = _own_copy(value)
    return named_part(own, dict(port.schema)) if port.kind == "json" else own


def _is_writeable(value: object) -> bool:
    arrays = value if isinstance(value, list) and value else [value]
    return all(isinstance(each, np.ndarray) and each.flags.writeable for each in arrays)


def _own_copy(value: object) -> object:
    if isinstance(value, np.ndarray):
        return np.array(value, order="C", copy=True)
    if isinstance(value, (list, tuple)) and any(isinstance(each, np.ndarray) for each in value):
        return [_own_copy(each) for each in value]
    return copy.deepcopy(value)


def _output(port: Port, value: object) -> object:
    if port.kind == "image":
        return output_image(port.name, value)
    if port.kind == "images":
        return output_images(port.name, value)
    return encode_value(port.name, value)
